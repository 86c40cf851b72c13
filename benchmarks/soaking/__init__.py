"""Scans that are killed, run out of room and read from storage that fails, round after round: used by ``soak.py``."""
