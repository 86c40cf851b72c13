"""Imported by the process that those of the tests are forked from: everything that takes time is done once."""

import pyarrow as pa

from tests.crash.jobs import Job, safety_filter

for captions in (False, True):
    safety_filter(Job(run="", captions=captions))
pa.array([0])  # imports pandas, and so would the first array of each job, for longer than most of them take
