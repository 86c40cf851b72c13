"""Encoded images -> pixels: headers within limits, decoding, frames, views and resizing."""
