"""Zero-shot probes in the user's cache: the same ones, for the same encoder and prompts alone, and from nobody else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

import safetyfilter
from safetyfilter import ClipEncoder, LinearProbe, NamedEncoder, ProbeBank, PromptPair, zero_shot_probes
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import UsageError
from safetyfilter.score.files import unpacked
from safetyfilter.score.zero_shot import PromptSet
from safetyfilter.signals import SignalPair

PROMPTS = {
    "boat": PromptPair(present=["a boat", "a ship"], absent=["a cup", "a tree"]),
    "rock": PromptPair(present=["a rock"], absent=["a tree", "a cup", "a cup"]),
}


@dataclass
class Counting:
    """An encoder that notes which texts it embeds."""

    spec: EncoderSpec
    logit_scale: float = 2.0
    token: int = 0
    embedded: list[str] = field(default_factory=list)

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[self.token, *text.encode().ljust(9)] for text in texts], np.int64)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded += texts
        rows = np.array([[len(text), *text.encode()[:7].ljust(7)] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "safetyfilter" / "zero-shot"


@pytest.fixture
def encoder() -> Counting:
    return Counting(replace(NamedEncoder.named("ViT-B-32-quickgelu", "openai").spec, width=8))


def entries(cache: Path) -> list[Path]:
    return sorted(cache.glob("*"))


def test_each_text_is_embedded_once(cache: Path, encoder: Counting) -> None:
    zero_shot_probes(encoder, PROMPTS)
    assert encoder.embedded == ["a boat", "a ship", "a cup", "a tree", "a rock"]


def test_the_same_probes_come_from_the_cache(cache: Path, encoder: Counting) -> None:
    prompts = PromptSet(PROMPTS, SignalPair(explicit="boat", minor="rock", notice="boats only"))
    made = zero_shot_probes(encoder, prompts)
    encoder.embedded.clear()
    again = zero_shot_probes(encoder, prompts)
    assert encoder.embedded == []
    assert (again.digests, again.pair) == (made.digests, made.pair)
    assert [probe.card for probe in again.probes] == [probe.card for probe in made.probes]
    assert zero_shot_probes(encoder, PROMPTS).pair != made.pair  # the pair is the caller's
    assert encoder.embedded == []
    (entry,) = entries(cache)
    assert b"a boat" not in entry.read_bytes()


def test_another_name_of_the_encoder_is_on_the_card(cache: Path, encoder: Counting) -> None:
    zero_shot_probes(encoder, PROMPTS)
    encoder.spec, encoder.embedded = replace(encoder.spec, architecture="mine", tag=""), []
    (probe, _) = zero_shot_probes(encoder, PROMPTS).probes
    assert isinstance(probe, LinearProbe)
    assert probe.card is not None
    assert (probe.card.encoder, encoder.embedded) == ("mine", [])


def other_encoder(encoder: Counting, _: pytest.MonkeyPatch) -> None:
    encoder.spec = replace(encoder.spec, weights_sha256="0" * 64)


def other_tokens(encoder: Counting, _: pytest.MonkeyPatch) -> None:
    encoder.token = 1


def other_version(_: Counting, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(safetyfilter, "__version__", "99")


CHANGES: dict[str, Callable[[Counting, pytest.MonkeyPatch], None]] = {
    "encoder": other_encoder,
    "tokens": other_tokens,
    "version": other_version,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_probes_come_from_has_an_entry_of_its_own(
    cache: Path, encoder: Counting, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    zero_shot_probes(encoder, PROMPTS)
    encoder.embedded.clear()
    CHANGES[change](encoder, monkeypatch)
    bank = zero_shot_probes(encoder, PROMPTS)
    assert len(encoder.embedded) == 5
    assert bank.bind(encoder.spec).digests == bank.digests
    assert len(entries(cache)) == 2


@pytest.mark.parametrize(
    "prompts",
    [
        {"boat": PROMPTS["boat"]},
        {"rock": PROMPTS["rock"], "boat": PROMPTS["boat"]},
        {"boat": PROMPTS["rock"], "rock": PROMPTS["boat"]},
        {"boat": PromptPair(present=["a boat"], absent=["a ship", "a cup", "a tree"]), "rock": PROMPTS["rock"]},
        {"boat": PromptPair(present=["a ship", "a boat"], absent=["a cup", "a tree"]), "rock": PROMPTS["rock"]},
    ],
    ids=["fewer", "in another order", "exchanged", "moved to the other side", "a side in another order"],
)
def test_other_prompts_have_an_entry_of_their_own(cache: Path, encoder: Counting, prompts: dict) -> None:
    zero_shot_probes(encoder, PROMPTS)
    encoder.embedded.clear()
    assert zero_shot_probes(encoder, prompts).signals == tuple(prompts)
    assert encoder.embedded
    assert len(entries(cache)) == 2


def changed(content: bytes, *, tensors: dict | None = None, **metadata: str) -> bytes:
    arrays, header = unpacked(content)
    return save({**arrays, **(tensors or {})}, metadata={**header, **metadata})


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-9],
    "prose": lambda content: b"no probes here" * 9,
    "a flipped bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "other weights": lambda content: changed(content, tensors={"weight": -load(content)["weight"]}),
    "another width": lambda content: changed(content, tensors={"weight": np.ones((2, 5), np.float32)}),
    "weights that are not finite": lambda content: changed(content, tensors={"weight": np.full((2, 8), np.nan)}),
    "another bias": lambda content: changed(content, tensors={"bias": load(content)["bias"] + 1}),
    "other signals": lambda content: changed(content, signals=json.dumps(["rock", "boat"])),
    "another encoder": lambda content: changed(content, encoder="0" * 64),
    "another entry's": lambda content: changed(content, key="0" * 64),
    "no digests": lambda content: changed(content, digests="[]"),
    "no cards": lambda content: changed(content, cards="[null, null]"),
    "text that is not JSON": lambda content: changed(content, cards="["),
    "without a header": lambda content: save(load(content)),
    "a card with other fields": lambda content: changed(content, cards='[{"x": 1}, {"x": 1}]'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_anew(cache: Path, encoder: Counting, damage: str) -> None:
    made = zero_shot_probes(encoder, PROMPTS)
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    entry.write_bytes(DAMAGE[damage](whole))
    encoder.embedded.clear()
    assert zero_shot_probes(encoder, PROMPTS).digests == made.digests
    assert len(encoder.embedded) == 5
    assert load(entry.read_bytes())["weight"].tolist() == load(whole)["weight"].tolist()
    encoder.embedded.clear()
    zero_shot_probes(encoder, PROMPTS)
    assert encoder.embedded == []


def other_probes(entry: Path) -> None:
    """Put other probes into an entry, as whoever can write to it would: with digests that fit."""
    content = entry.read_bytes()
    tensors, header = unpacked(content)
    probes = [replace(probe, weight=-probe.weight) for probe in LinearProbe.unpack(tensors, header)]
    weights, _ = LinearProbe.pack(probes)
    entry.write_bytes(changed(content, tensors=weights, digests=json.dumps([probe.digest for probe in probes])))


@pytest.mark.parametrize("which", ["folder", "entry"])
@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_probes_that_others_could_write_are_not_used(
    cache: Path, encoder: Counting, caplog: pytest.LogCaptureFixture, which: str, mode: int
) -> None:
    made = zero_shot_probes(encoder, PROMPTS)
    (entry,) = entries(cache)
    other_probes(entry)
    assert zero_shot_probes(encoder, PROMPTS).digests != made.digests  # by this user: nothing tells it
    (cache if which == "folder" else entry).chmod(mode)
    encoder.embedded.clear()
    with caplog.at_level(logging.WARNING):
        assert zero_shot_probes(encoder, PROMPTS).digests == made.digests
    assert len(encoder.embedded) == 5
    assert "can be written to by others" in caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch, encoder: Counting, caplog) -> None:
    (tmp_path / "file").write_text("")
    expected = zero_shot_probes(encoder, PROMPTS, cached=False).digests
    for place in (str(tmp_path / "file"), "s3://bucket/cache", "/proc/none"):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        with caplog.at_level(logging.WARNING):
            assert zero_shot_probes(encoder, PROMPTS).digests == expected
    assert caplog.text == ""


def test_without_a_home_there_is_no_cache(monkeypatch, encoder: Counting) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert zero_shot_probes(encoder, PROMPTS).signals == ("boat", "rock")


def test_it_can_be_left_out(cache: Path, encoder: Counting) -> None:
    zero_shot_probes(encoder, PROMPTS, cached=False)
    assert not cache.exists()


def test_an_encoder_that_does_not_tell_its_tokens_has_no_entry(cache: Path, encoder: Counting) -> None:
    class Plain:
        spec, logit_scale, embed_text = encoder.spec, encoder.logit_scale, encoder.embed_text

    zero_shot_probes(Plain(), PROMPTS)
    assert not cache.exists()


def test_an_encoder_that_is_only_named_says_so(cache: Path) -> None:
    with pytest.raises(UsageError, match="only named"):
        zero_shot_probes(NamedEncoder.named("ViT-B-32-quickgelu", "openai"), PROMPTS)


def test_real_encoders_keep_theirs(cache: Path, tiny_clip: Path) -> None:
    first, again = (ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="fp32") for _ in range(2))
    made = zero_shot_probes(first)
    again.embed_text = pytest.fail  # type: ignore[method-assign]
    assert zero_shot_probes(again).digests == made.digests
    assert zero_shot_probes(first, cached=False).digests == made.digests


def test_many_at_once_come_to_the_same(cache: Path, encoder: Counting) -> None:
    def one(_: int) -> tuple[str, ...]:
        return zero_shot_probes(Counting(encoder.spec), PROMPTS).digests

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(one, range(40)))) == 1
    (entry,) = entries(cache)
    assert ProbeBank(LinearProbe.unpack(*unpacked(entry.read_bytes()))).signals == ("boat", "rock")
