"""The quality benchmark: a tiny run from end to end, the placed objects, and the baselines' cuts."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import ClipEncoder
from safetyfilter.standin import ENCODER
from tests.rendering import here, render_here

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # scripts import each other by name, and so do the processes that render

import quality  # noqa: E402
import quality_baselines  # noqa: E402
import quality_pictures  # noqa: E402

TINY = quality.Sizes(
    train=150,
    calibration=360,
    mixed=60,
    pairs=20,
    small=20,
    edge=20,
    along=60,
    seeds=(0, 0),  # the second draw is read from where the first was kept
    other_hands=360,
    max_miss_rate=0.3,
    least_promise=0.3,
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("quality") / "quality.json"
    with pytest.MonkeyPatch.context() as patch:
        render_here(patch)
        patch.setattr(quality_pictures, "ProcessPoolExecutor", lambda *_, **__: here())
        patch.setitem(quality.SIZES, "quick", TINY)
        patch.setattr(sys, "argv", ["quality.py", "--quick", "--json", str(path), "--keep", str(path.parent / "kept")])
        quality.main()
    return json.loads(path.read_text())


def test_json_holds_what_the_design_names(result: dict) -> None:
    names = {"rule_recall", "rule_wrongly_excluded", "multi_wrongly_excluded", "whole_wrongly_excluded"}
    assert names | {f"{name}_recall" for name in quality_baselines.TITLES} <= set(result["ratios"])
    assert all(0 <= value <= 1 for value in result["ratios"].values())
    assert result["environment"]["seed"] == 0
    assert result["quick"] is True


def test_no_picture_outside_the_test_split_holds_both(result: dict) -> None:
    counts = result["counts"]
    assert (
        counts["train"]["both"]
        == counts["calibration"]["both"]
        == counts["validation"]["both"]
        == counts["along"]["both"]
        == 0
    )
    assert counts["train"]["pictures"] == len(TINY.seeds) * TINY.train
    assert counts["test"]["pictures"] == len(TINY.seeds) * (TINY.mixed + TINY.pairs)
    assert counts["test"]["both"] >= len(TINY.seeds) * TINY.pairs


def test_every_way_is_measured_in_every_view_with_intervals(result: dict) -> None:
    ways = {(row["way"], row["views"]) for row in result["rows"]}
    assert {("zero-shot at 0.5", v) for v in quality_pictures.VIEWS} < ways
    assert {(quality.WHOLE[0], v) for v in quality_pictures.VIEWS} < ways
    assert {(quality.BY_VIEWS, v) for v in ("multi", *quality.GATES)} < ways
    for row in result["rows"]:
        for share in (row["rule"]["recall"], row["rule"]["wrongly_excluded"], row["signals"]["three"]["recall"]):
            assert share["low"] <= share["value"] <= share["high"]
        assert row["rule"]["recall"]["total"] == result["counts"]["test"]["both"]
        total = row["rule"]["recall"]["total"] + row["rule"]["wrongly_excluded"]["total"]
        assert total == result["counts"]["test"]["pictures"]


def test_the_same_share_is_the_same(result: dict) -> None:
    main = next(row for row in result["rows"] if (row["way"], row["views"]) == quality.MAIN)
    wrong = main["rule"]["wrongly_excluded"]["count"]
    for name, peer in result["baselines"].items():
        same = peer["at_same_share"]["wrongly_excluded"]["count"]
        assert same <= wrong if name == "laion_400m" else same == wrong


def test_draws_are_pooled(result: dict) -> None:
    main = quality.rule_of(result, *quality.MAIN)
    for share in ("recall", "wrongly_excluded"):
        for name in ("count", "total"):
            assert main[share][name] == sum(draw[share][name] for draw in result["draws"])
    assert quality.pooled([{"a": [0.5, 1, None, "x"]}, {"a": [1.0, 2, None, "x"]}]) == {"a": [0.75, 3, None, "x"]}


def test_position_covers_the_whole_width(result: dict) -> None:
    for columns in result["positions"].values():
        bands = [share["total"] for band, share in columns["guaranteed"].items() if band != "false_alarms"]
        assert sum(bands) == result["counts"]["along"]["three"] + result["counts"]["along"]["seven"]
        assert columns["same_false_alarms"]["false_alarms"]["value"] <= quality.FALSE_ALARMS


@pytest.mark.parametrize("number", range(20))
def test_small_digits_are_small(number: int) -> None:
    scene, _ = quality_pictures.draw(np.random.default_rng(number), "small")
    heights = scene.boxes[:, 3] - scene.boxes[:, 1]
    assert (heights <= 0.2 * min(scene.image.size) + 2).all()


@pytest.mark.parametrize("number", range(20))
def test_edge_digits_lie_at_both_ends_and_whole(number: int) -> None:
    scene, _ = quality_pictures.draw(np.random.default_rng(number), "edge")
    width, height = scene.image.size
    assert width == 2 * height
    middles = sorted((scene.boxes[:, 0] + scene.boxes[:, 2]) / 2 / width)
    assert len(middles) == 2
    assert middles[0] <= 0.16
    assert middles[1] >= 0.84


@pytest.mark.parametrize(("excluded", "recall"), [(0, 1 / 3), (1, 1 / 3), (2, 2 / 3), (3, 2 / 3)])
def test_a_cut_excludes_as_many_of_the_rest(excluded: int, recall: float) -> None:
    values = np.array([5.0, 3.0, -np.inf, 4.0, 2.0, -np.inf, -np.inf])  # three pairs, then four others
    both = np.array([True, True, True, False, False, False, False])
    found = quality_baselines.Baseline(values=values, published_cut=4.5).at_share(excluded, both)
    assert found["recall"]["value"] == pytest.approx(recall)
    assert found["wrongly_excluded"]["count"] == min(excluded, 2)  # the gate lets no more be excluded


def test_a_baseline_as_published() -> None:
    both = np.array([True, False])
    peer = quality_baselines.Baseline(values=np.array([1.0, 0.0]), published_cut=0.0)
    assert peer.as_published(both)["wrongly_excluded"]["value"] == 1
    assert quality_baselines.Baseline(values=np.zeros(2), published_cut=None).as_published(both) is None


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, set()),
        ({"rule_recall": 0.9949}, {"recall_at_least_99.5_percent"}),
        ({"rule_wrongly_excluded": 0.0601}, {"wrongly_excluded_at_most_6_percent"}),
        ({"whole_wrongly_excluded": 0.05}, {"multi_excludes_less_wrongly_than_whole"}),
        ({"small_whole_recall": 0.41}, {"small_objects_twice_as_often_found"}),
        ({"direct_recall": 0.995}, {"beats_every_baseline_at_the_same_share"}),
    ],
)
def test_bars(changed: dict[str, float], failing: set[str]) -> None:
    ratios = {
        "rule_recall": 0.995,
        "rule_wrongly_excluded": 0.06,
        "multi_wrongly_excluded": 0.05,
        "whole_wrongly_excluded": 0.06,
        "small_recall": 0.8,
        "small_whole_recall": 0.4,
    }
    found = quality.bars({**ratios, **changed}, {"direct_recall": changed.get("direct_recall", 0.99)})
    assert {name for name, holds in found.items() if not holds} == failing


def test_embeddings_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_here(monkeypatch)
    encoder = ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
    drawn = quality_pictures.Embedder(encoder=encoder, keep=tmp_path)
    first = drawn.usual(6, "test", 1, pairs=True)
    monkeypatch.setattr(quality_pictures, "pictures", None)
    again = drawn.usual(6, "test", 1, pairs=True)
    assert set(again.views) == set(quality_pictures.VIEWS) == set(first.views)
    for view, batch in first.views.items():
        assert np.array_equal(batch.vectors, again.views[view].vectors)
    assert np.array_equal(first.digits, again.digits)
    assert np.array_equal(first.present["three"], again.present["three"])


@pytest.mark.skipif(not quality.LAION_DATA.is_dir(), reason=f"LAION's detectors are not at {quality.LAION_DATA}")
def test_dropping_the_tables_changes_decisions() -> None:
    found = quality_baselines.laion_tables(quality.LAION_DATA)
    assert found["l14"]["vocab16"]["changed"] == 20
    assert found["b32"]["vocab16"]["changed"] == 12


def test_without_laion_data_there_is_nothing_to_count(tmp_path: Path) -> None:
    assert quality_baselines.laion_tables(tmp_path) == {}
