"""Image towers on a CUDA device: compiled code, graphs of kernels, and float8."""
