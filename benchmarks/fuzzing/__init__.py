"""Mutated files for every reader of foreign bytes, each case in a process under limits: used by ``fuzz.py``."""
