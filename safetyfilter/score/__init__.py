"""Embeddings -> scores in [0, 1]."""
