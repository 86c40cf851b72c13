"""Scores -> keep or exclude, and why."""
