"""The self-check of an encoder: generated pictures, what it makes of them, and what it made of them before."""
