"""Inputs of models: contents, prepared images, codecs of visual tokens."""
