"""Encoded bytes -> embeddings: the only package that knows CLIP and the GPU."""
