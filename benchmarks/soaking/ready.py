"""Imported by the process that those of the scans are forked from: everything that takes time is done once."""

from soaking.jobs import safety_filter

safety_filter().encoder.embed_text([""])
