"""A probe file by its path, or by the name of a published detector in the user's cache."""

from pathlib import Path

import pytest

from safetyfilter.errors import ProbeError
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.laion import LaionDetector
from safetyfilter.score.named import NAMES, cached_probe_file, probe_file


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_file_in_the_cache(cache: Path, detector: LaionDetector, name: str) -> None:
    assert cached_probe_file(name) == cache / f"{name}.safetensors"
    with pytest.raises(ProbeError, match=f"{name} is not at .*safetyfilter probes fetch {name}"):
        probe_file(name)
    cache.mkdir(parents=True)
    ProbeBank([detector]).save(cached_probe_file(name))
    assert probe_file(name) == cached_probe_file(name)
    assert ProbeBank.load(name).digests == (detector.digest,)


def test_a_path_is_itself(tmp_path: Path) -> None:
    (tmp_path / "p.safetensors").write_bytes(b"")
    assert probe_file(tmp_path / "p.safetensors") == tmp_path / "p.safetensors"


@pytest.mark.parametrize("name", ["none.safetensors", ".", "laion-g14"])
def test_what_is_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProbeError, match=r"there is no probe file at .*laion-l14, laion-b32, laion-h14"):
        probe_file(name)


def test_text_is_not_a_probe_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no probes")
    with pytest.raises(ProbeError, match="damaged"):
        ProbeBank.load(tmp_path / "text")
