"""Imported by the process that those of the tests are forked from: everything that takes time is done once."""

from tests.crash.jobs import Job, safety_filter

for captions in (False, True):
    safety_filter(Job(run="", captions=captions))
