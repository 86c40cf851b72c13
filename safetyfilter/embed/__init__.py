"""Encoded bytes -> embeddings: the only room that knows CLIP and the GPU."""
