"""Where samples come from, and what a run leaves behind."""
