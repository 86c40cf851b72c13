"""Smoke."""

from safetyfilter.attest.verify import verify_run


def test_holds(run, keys):
    done = verify_run(run, keys.public)
    for c in done.claims:
        print(c.what, c.state, c.found)
    assert done.holds
