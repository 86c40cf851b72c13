"""Engines: score the parts of a source in one process or on several devices, and record them."""
