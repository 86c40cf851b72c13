"""Decoding into rows of pixels: in the threads that ask for it, or in processes that may crash without harm."""
