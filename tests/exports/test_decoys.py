"""Decoys: a share of kept samples that a list leaves out too, always the same, and random without the secret."""

from pathlib import Path

import numpy as np
import pytest

from safetyfilter import scan
from safetyfilter.errors import UsageError
from safetyfilter.exports import FORMATS, export
from safetyfilter.exports.decoys import Decoys, flagged_among_gaps
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.digests import Digester
from safetyfilter.sources import open_source
from tests.exports.contents import IMAGES
from tests.writers import write_files

PNG = IMAGES["china-2.png"]


@pytest.fixture
def source(tmp_path: Path):
    """Sixty pictures, two of each content, and one that is none."""
    files = {f"{copy}/{n}.png": PNG + bytes([n]) for n in range(30) for copy in "ab"}
    return open_source(write_files(tmp_path / "f", files | {"a/none.png": b"no picture"}))


def listed(run, source, place: Path, decoys: float | None) -> tuple[set[str], dict[str, int]]:
    counts = export(run, source, place, format="keys", decoys=decoys)
    return set(place.read_text().splitlines()), counts


def test_the_lists_of_one_run(tmp_path: Path, keeps_all, source) -> None:
    run = scan(source, tmp_path / "run", keeps_all)
    everything, plain = listed(run, source, tmp_path / "all", None)
    some, counts = listed(run, source, tmp_path / "some", 0.3)
    again, _ = listed(run, source, tmp_path / "again", 0.3)
    fewer, _ = listed(run, source, tmp_path / "fewer", 0.6)
    assert "decoys" not in plain
    assert counts == plain | {"decoys": len(everything) - len(some)}
    assert 0 < counts["decoys"] < counts["kept"] == len(everything) == 60
    assert some == again  # else two lists would tell by what only one leaves out
    assert fewer < some < everything
    for keys in (some, fewer):  # a copy that is still listed would give a decoy away
        assert {key[2:] for key in keys if key[0] == "a"} == {key[2:] for key in keys if key[0] == "b"}
    other = scan(source, tmp_path / "other", keeps_all)
    assert listed(other, source, tmp_path / "others", 0.3)[0] != some
    assert (Decisions.of(run).reasons(sorted(some)) == 0).all()


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_the_share_is_as_asked_for(share: float) -> None:
    decoys, count = Decoys(Digester(b"s" * 32), share), 4_000
    found = sum(decoys.has("", [str(number).encode()]) for number in range(count))
    assert abs(found - count * share) < 5 * np.sqrt(count * share * (1 - share))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_shares_that_cant_be(share: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        Decoys(Digester(b"s" * 32), share)


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("keys", "datacomp")])
def test_samples_themselves_have_no_decoys(tmp_path: Path, keeps_all, source, format: str) -> None:
    run = scan(source, tmp_path / "run", keeps_all)
    with pytest.raises(UsageError, match="decoys are for lists"):
        export(run, source, tmp_path / "out", format=format, decoys=0.1)
    assert not (tmp_path / "out").exists()


def test_what_gaps_tell() -> None:
    rng = np.random.default_rng(0)
    flagged = rng.random(200_000) < 0.02
    gaps = flagged | (rng.random(200_000) < 0.1)
    assert flagged[gaps].mean() == pytest.approx(flagged_among_gaps(0.02, 0.1), abs=0.01)
    assert flagged_among_gaps(0, 0) == 0
