"""The forms in which lists of hashes come: each module reads one."""
