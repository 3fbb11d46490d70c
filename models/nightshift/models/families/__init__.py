"""One small file a model family, named by transformers' `model_type`."""
