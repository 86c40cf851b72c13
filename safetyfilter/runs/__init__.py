"""Run directories: their record, scored parts, decisions, and the index of these."""
