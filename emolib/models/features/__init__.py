"""Features by pretrained models of transformers, from local folders."""
