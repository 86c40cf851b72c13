"""The audit report of a run, and the texts about it that go with a published data set."""
