"""The record of an encoder's first use, in the user's cache: held against from then on, where it is theirs."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.self_check.cache import require_as_first
from safetyfilter.embed.self_check.checks import checked
from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.errors import SelfCheckError


@pytest.fixture(scope="module")
def first(encoder: ClipEncoder) -> CheckEmbeddings:
    return checked(encoder, EmbedOptions(views="whole"))


@pytest.fixture(scope="module")
def wrong(first: CheckEmbeddings) -> CheckEmbeddings:
    return CheckEmbeddings.of(-first.vectors, precision="float32", view="whole", device="cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "safetyfilter" / "self-check"


def test_the_first_use_is_recorded_and_later_ones_are_held_against_it(
    cache: Path, encoder: ClipEncoder, first: CheckEmbeddings, wrong: CheckEmbeddings
) -> None:
    require_as_first(encoder, first)
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    assert CheckEmbeddings.from_dict(json.loads(content)) == first
    with pytest.raises(
        SelfCheckError, match=rf"-1\.0000 .*first use, .*If it was wrong at its first use, remove {file}"
    ):
        require_as_first(encoder, wrong)
    assert file.read_bytes() == content
    file.unlink()
    require_as_first(encoder, wrong)  # as the error says


def test_each_precision_and_quantised_model_is_recorded_and_all_are_held_against_float32(
    cache: Path, encoder: ClipEncoder, first: CheckEmbeddings, wrong: CheckEmbeddings
) -> None:
    for precision, quantised in (("float32", ""), ("bfloat16", ""), ("int8", "aa"), ("int8", "bb")):
        require_as_first(encoder, replace(first, precision=precision), quantised)
    assert len(list(cache.iterdir())) == 4
    with pytest.raises(SelfCheckError, match=r"at least 0\.8 is asked \(first use, .* on cpu, float32"):
        require_as_first(encoder, replace(wrong, precision="int8"), "cc")


def test_one_of_a_lower_precision_may_differ_more(cache: Path, encoder: ClipEncoder, first: CheckEmbeddings) -> None:
    require_as_first(encoder, first)
    off = first.vectors + np.float32(0.1) * np.roll(first.vectors, 1, axis=1)
    other = CheckEmbeddings.of(off, precision="bfloat16", view="whole", device="cuda (NVIDIA H100)")
    assert 0.99 < other.least_cosine(first) < 0.999
    require_as_first(encoder, other)
    with pytest.raises(SelfCheckError, match=r"at least 0\.999 is asked"):
        require_as_first(encoder, replace(other, precision="float32"))


def test_a_folder_that_others_write_to_is_told_and_left_alone(
    cache: Path, encoder: ClipEncoder, first: CheckEmbeddings, wrong: CheckEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    require_as_first(encoder, first)
    cache.chmod(0o777)
    require_as_first(encoder, wrong)
    assert "not held against its first use" in caplog.text
    assert "make it private (chmod go-w)" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"pictures": 1, "precision": "", "view": "", "device": "", "embeddings": ""}']
)
def test_a_damaged_record_is_made_anew(
    cache: Path, encoder: ClipEncoder, first: CheckEmbeddings, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    require_as_first(encoder, first)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    require_as_first(encoder, first)
    assert "is damaged" in caplog.text
    assert file.read_bytes() == whole


def test_a_cache_that_is_no_folder_stops_nothing(
    encoder: ClipEncoder, first: CheckEmbeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    require_as_first(encoder, first)
