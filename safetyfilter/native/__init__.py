"""Loops that NumPy has no function for, in C: compiled for this machine when they are first needed."""
