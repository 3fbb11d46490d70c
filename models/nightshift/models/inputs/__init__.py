"""What models are shown: contents, prepared images, codecs of visual tokens."""
