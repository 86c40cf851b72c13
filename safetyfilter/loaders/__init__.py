"""Training loops: data loaders of PyTorch, Hugging Face datasets and webdataset that yield no excluded sample."""
