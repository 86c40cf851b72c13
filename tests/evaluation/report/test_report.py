"""The report as a file: written once whole, the same each time, with everything in it and nothing of a sample."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from datetime import datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import Policy, Run, SafetyFilter, SignalPair, apply_policy, open_source, scan, write_report
from safetyfilter.batches import REASON_NAMES
from safetyfilter.decide.presets import PRESETS
from safetyfilter.errors import OutputError, RunError, UnfinishedRunError, UsageError
from safetyfilter.evaluation.grid import binned
from safetyfilter.evaluation.report import page as page_module
from safetyfilter.evaluation.report.bins import COARSE, FINE
from safetyfilter.evaluation.report.page import page
from safetyfilter.evaluation.report.page_data import page_data
from safetyfilter.evaluation.report.parts import part_groups
from safetyfilter.evaluation.report.texts import script_data
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.html_table import visible
from safetyfilter.runs.record import COUNT_NAMES
from tests.cli.commands import command
from tests.evaluation.report.conftest import PICTURES, POLICY, WRITTEN
from tests.evaluation.report.made import drawn
from tests.writers import write_files


class Outline(HTMLParser):
    """The elements of a page, and the text in the visible ones."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "link", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, given in self.elements if (value := given.get(name)) is not None]


@pytest.fixture(scope="module")
def text() -> str:
    return page(drawn(20_000).summary(), WRITTEN)


@pytest.fixture(scope="module")
def outline(text: str) -> Outline:
    return Outline(text)


def test_the_command_writes_a_report_on_a_run(run: Run) -> None:
    done = command("report", run.path, "--json")
    assert done.json["report"] == f"{run.path}/report.html"
    assert {name: done.json[name] for name in run.counts} == run.counts
    written = (Path(run.path) / "report.html").read_text()
    seen = Outline(written)
    assert "".join(seen.text).count(f"{run.counts['seen']}") >= 1
    assert run.record.decisions_digest in written
    assert run.record.setup.encoder.weights_sha256 in written
    assert not [name for name in PICTURES if name.rsplit("/", 1)[-1] in written]  # no sample is named
    assert not [word for word in (str(run.path), Path(run.path).parent.name) if word in written]
    scores = run.read_scores()
    for signal in POLICY.thresholds:
        values = [value for value in scores[signal].to_pylist() if value == value and 0 < value < 1]
        assert values
        assert not [value for value in values if f"{value:.6g}" in written]
    assert not [digest for digest in scores["key_digest"].to_pylist() if digest.hex() in written]


@pytest.mark.parametrize("where", ["other.html", None])
def test_a_report_is_replaced_by_the_next_one(run: Run, tmp_path: Path, where: str | None) -> None:
    out = None if where is None else tmp_path / where
    first = write_report(run, out)
    before = Path(first).read_bytes()
    apply_policy(run, Policy.preset("strict"))
    assert write_report(run, out) == first
    assert Path(first).read_bytes() != before
    assert sorted(path.name for path in Path(first).parent.glob("*.tmp")) == []


def test_another_file_is_not_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<!doctype html>mine")
    for place in (tmp_path / "mine.html", Path(run.path) / "run.json"):
        before = place.read_bytes()
        with pytest.raises(OutputError, match="is not a report, and is not replaced"):
            write_report(run, place)
        assert place.read_bytes() == before
    with pytest.raises(OutputError, match="is a folder"):
        write_report(run, tmp_path)
    done = command("report", run.path, "--out", tmp_path / "nowhere" / "report.html")
    assert done.status == 1
    assert "there is no folder" in done.message


def test_a_link_in_a_run_leads_nowhere(run: Run, tmp_path: Path) -> None:
    """A run directory may come from others."""
    other = tmp_path / "other.html"
    write_report(run, other)
    before = other.read_bytes()
    (Path(run.path) / "report.html").symlink_to(other)
    apply_policy(run, Policy.preset("strict"))
    write_report(run)
    assert other.read_bytes() == before
    assert not (Path(run.path) / "report.html").is_symlink()


def test_an_unfinished_run_has_no_report(run: Run) -> None:
    record = json.loads((Path(run.path) / "run.json").read_text())
    (Path(run.path) / "run.json").write_text(json.dumps(record | {"complete": False, "counts": {}, "scores": ""}))
    with pytest.raises(UnfinishedRunError, match="is not finished; run the same `safetyfilter scan` again"):
        write_report(Run.open(run.path))
    assert not (Path(run.path) / "report.html").exists()


def test_a_run_without_a_part_has_no_report(run: Run) -> None:
    (Path(run.path) / "scores" / "part-00001.parquet").unlink()
    with pytest.raises(RunError, match="part-00001"):
        write_report(run)
    assert not (Path(run.path) / "report.html").exists()


def test_a_run_that_another_one_decides_too(run: Run, tmp_path: Path, encoder, probes, scanned: Path) -> None:
    source = open_source(scanned / "pictures", part_size=6)
    other = scan(source, tmp_path / "other", SafetyFilter(encoder, probes, POLICY), secret_from=run)
    apply_policy([run, other], Policy())
    seen = "".join(Outline(Path(write_report(run)).read_text()).text)
    assert "the decisions rest on scores of other runs too" in seen
    assert other.record.scores in seen
    assert f"{run.counts['excluded']}" in seen


def test_a_path_is_not_a_run(run: Run) -> None:
    with pytest.raises(UsageError, match=r"is not a Run; open it with Run\.open"):
        write_report(str(run.path))  # type: ignore[arg-type]


def test_a_run_that_is_decided_anew_meanwhile_has_no_report(run: Run) -> None:
    def meanwhile(_: object) -> None:
        if Run.open(run.path).policy != Policy.preset("strict"):
            apply_policy(Run.open(run.path), Policy.preset("strict"))

    with pytest.raises(RunError, match="again"):
        write_report(run, progress=meanwhile)
    assert not (Path(run.path) / "report.html").exists()


def test_the_same_run_gives_the_same_bytes_but_for_the_date(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the run lies, and whatever it is called."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    first = Path(write_report(run)).read_bytes()
    shutil.copytree(run.path, tmp_path / "elsewhere" / "other")
    moved = Run.open(tmp_path / "elsewhere" / "other")
    assert Path(write_report(moved)).read_bytes() == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800090000")
    later = Path(write_report(run)).read_bytes()
    differing = [(a, b) for a, b in zip(first.splitlines(), later.splitlines(), strict=True) if a != b]
    assert len(differing) == 1
    assert [b"2027-01-15 08:00 UTC" in differing[0][0], b"2027-01-16 09:00 UTC" in differing[0][1]] == [True, True]


@pytest.mark.parametrize("epoch", ["yesterday", "1e9", "99999999999999999999"])
def test_a_date_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch, epoch: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(UsageError, match=r"SOURCE_DATE_EPOCH is '.*'; give the seconds since 1970"):
        write_report(run)


def test_the_date_is_now_where_none_is_given(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    before = datetime.now().astimezone()
    text = Path(write_report(run)).read_text()
    written = datetime.fromisoformat(re.search(r'<time datetime="([^"]+)"', text)[1])
    assert abs((written - before).total_seconds()) < 300


def test_a_report_on_object_storage(s3, encoder, probes, tmp_path: Path) -> None:
    source = open_source(write_files(tmp_path / "pictures", PICTURES), part_size=8)
    run = scan(source, f"{s3.url}/runs/first", SafetyFilter(encoder, probes, POLICY))
    place = write_report(run)
    assert str(place) == f"{s3.url}/runs/first/report.html"
    assert place.read_bytes().startswith(b"<!doctype html>")
    assert write_report(run) == place
    assert command("report", f"{s3.url}/runs/first", "--out", tmp_path / "here.html", "--json").json["seen"] == len(
        PICTURES
    )
    assert (tmp_path / "here.html").stat().st_size > 4_000_000
    for other in (s3.url, f"{s3.url}/runs/first/scores", f"{s3.url}/runs/first/run.json"):
        with pytest.raises(OutputError, match="is not replaced"):
            write_report(run, other)
    assert Run.open(run.path).counts == run.counts


def test_labels_say_what_is_found(run: Run, tmp_path: Path) -> None:
    keys = sorted(PICTURES)
    labels = {"key": keys, "explicit": [number % 2 for number in range(len(keys))]}
    pq.write_table(pa.table(labels), tmp_path / "labels.parquet")
    assert command("report", run.path, "--labels", tmp_path / "labels.parquet", "--json").status == 0
    with_labels = Outline((Path(run.path) / "report.html").read_text())
    finding = RunSummary.of(run, pa.table(labels)).labels.findings(run.policy)[0]
    shown = "".join(with_labels.text)
    assert "Measured on labelled samples" in shown
    assert str(finding.recall) in shown
    assert "no labelled sample has it" in shown  # of the other signal
    assert "Measured on labelled samples" not in "".join(Outline(page(RunSummary.of(run), WRITTEN)).text)


def test_the_notice_of_stand_ins_comes_first() -> None:
    pair = SignalPair(explicit="three", minor="seven", notice="The encoder is a stand-in: it scores nothing real.")
    made = drawn(2000, policy=Policy(thresholds={"three": 0.3, "seven": 0.25}, pair=pair))
    seen = "".join(Outline(page(made.summary(), WRITTEN)).text)
    assert 0 < seen.index(pair.notice) < seen.index("This page holds counts")


def test_a_warning_of_the_policy_comes_before_the_counts() -> None:
    made = drawn(2000, policy=Policy(thresholds={"explicit": 1.0, "minor": 0.5}))
    seen = "".join(Outline(page(made.summary(), WRITTEN)).text)
    assert seen.index("Hardly any score reaches the threshold of explicit") < seen.index("Excluded samples by reason")


def test_a_calibration_that_was_accepted_without_fitting_is_told_before_the_counts() -> None:
    summary, told = drawn(2000).summary(), "does not fit the scores of this run, which was accepted"
    accepted = dataclasses.replace(summary, record=dataclasses.replace(summary.record, accepted_uncertified=True))
    assert told not in "".join(Outline(page(summary, WRITTEN)).text)
    seen = "".join(Outline(page(accepted, WRITTEN)).text)
    assert (
        seen.index(told) < seen.index("Excluded samples by reason") < seen.index("Where the thresholds come from", 900)
    )


@pytest.mark.parametrize(("count", "few"), [(500, True), (1500, False)])
def test_a_small_run_is_named_as_such(count: int, few: bool) -> None:
    seen = "".join(Outline(page(drawn(count).summary(), WRITTEN)).text)
    assert ("The run is small" in seen) is few


def test_it_is_small_enough_and_allows_no_network(text: str, outline: Outline) -> None:
    assert len(text.encode()) < 6_000_000
    policy = next(given["content"] for tag, given in outline.elements if given.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search(r"https?:|\*|unsafe-eval|connect-src", policy)
    assert not [value for value in outline.values("src") + outline.values("href") if not value.startswith("#")]


def test_its_structure_is_sound(outline: Outline) -> None:
    assert outline.open == []
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    named = [name for value in outline.values("aria-labelledby") for name in value.split()]
    described = outline.values("aria-describedby") + outline.values("for") + outline.values("data-copy")
    assert {*named, *described, *(link[1:] for link in outline.values("href"))} <= set(ids)
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tags = [tag for tag, _ in outline.elements]
    assert tags.count("table") == tags.count("caption") + sum("facts" in value for value in outline.values("class"))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


STYLES = (Path(page_module.__file__).parent / "page.css").read_text()
PALETTES = [
    dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    for block in re.findall(r":root \{(.*?)\}", STYLES, re.DOTALL)
]


@pytest.mark.parametrize("palette", PALETTES, ids=["light", "dark", "print"])
@pytest.mark.parametrize("ground", ["ground", "panel", "notice"])
def test_words_stand_out_from_their_ground(palette: dict[str, str], ground: str) -> None:
    """As WCAG 2.2 asks: 4.5 to 1 for words, 3 to 1 for lines and marks that say something."""
    for name in ("text", "muted", "link"):
        assert contrast(palette[name], palette[ground]) >= 4.5
    for name in ("excluded", "bar", "second", "high"):
        assert contrast(palette[name], palette["ground"]) >= 3


def test_scripts_end_nowhere_early(text: str) -> None:
    assert len(re.findall("<script", text)) == len(re.findall("</script", text)) == 4


@pytest.mark.parametrize("mark", ["\0", "\u202e", "\u2028", "\ud800", "\x9b", "\U000e0001"])
def test_hidden_characters_are_shown_and_never_written(mark: str) -> None:
    name = f"a{mark}b"
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, name: 0.5})
    made = drawn(100, policy=policy, kind=name)
    written = page(made.summary(), WRITTEN)
    assert mark not in written.replace("\n", "")
    assert visible(name) in written
    assert written.encode()
    assert name not in visible(name)


def test_data_in_a_script_is_read_back() -> None:
    data = {"</script>": ["<!--", "&amp;", "\u2028😀"]}
    written = script_data(data)
    assert json.loads(written) == data
    assert not set(written) & set("<>&\u2028")


@pytest.mark.parametrize("edges", [FINE, COARSE])
def test_bins_hold_every_sample_once(edges: tuple[float, ...]) -> None:
    summary = drawn(5000).summary()
    plane = summary.plane
    in_bins = binned(plane.scored, plane.grids, edges)
    assert in_bins.shape == (len(edges) - 1,) * 2
    assert in_bins.sum() == plane.scored.sum()
    made = drawn(5000)
    scores = made.batch().values[made.batch().status == 0]
    counted, *_ = np.histogram2d(scores[:, 0], scores[:, 1], bins=[np.float32(edges)] * 2)
    assert (in_bins == counted).all()


@pytest.mark.parametrize("name", PRESETS)
def test_the_script_has_every_policy_by_name(name: str) -> None:
    summary = drawn(1000).summary()
    trial = page_data(summary)["trial"]
    choice, grids = trial["presets"][name], summary.plane.grids
    preset = Policy.preset(name)
    assert [grid.thresholds[at] for at, grid in zip(choice["thresholds"], grids, strict=True)] == [0.5, 0.5]
    assert choice["alone"] == [signal in preset.exclude for signal in preset.pair.names]
    cuts = [None if at is None else grid.thresholds[at] for at, grid in zip(choice["cuts"], grids, strict=True)]
    assert cuts == [preset.exclude_at.get(signal) for signal in preset.pair.names]


def test_every_reason_is_explained(outline: Outline) -> None:
    seen = "".join(outline.text)
    assert not [name for name in REASON_NAMES if name not in seen]


@pytest.mark.parametrize(
    ("sizes", "untold"),
    [
        ((1000, 1000, 1), {2}),
        ((10, 3, 10, 10), {1}),
        ((5, 5, 5), set()),
        ((1,), set()),
        ((1000, 450), set()),
        ((0, 9), {0}),
    ],
)
def test_a_small_part_among_large_ones_has_no_share(sizes: tuple[int, ...], untold: set[int]) -> None:
    """The last part of a source is often one of few samples: all of them excluded, or none, would be told of these."""
    counts = np.zeros((len(sizes), len(COUNT_NAMES)), np.int64)
    counts[:, COUNT_NAMES.index("seen")] = counts[:, COUNT_NAMES.index("excluded")] = sizes
    groups = part_groups(counts)
    assert {group.first for group in groups if group.excluded.percent is None} == untold
    assert {str(group.excluded) for group in groups} <= {"100 %", "-"}
    (together,) = part_groups(counts, most=1)
    assert together.excluded.total == sum(size for at, size in enumerate(sizes) if at not in untold)


def test_only_shares_are_told_of_parts() -> None:
    """A part's number of samples would tell whoever holds the source which stretch of it the part is."""
    made = dataclasses.replace(drawn(4321), part_sizes=(1234, 3087))
    written = page(made.summary(), WRITTEN)
    assert not [
        count for count in ("1,234", "1234", "3,087", "3087") if count in written.replace(page_module._plotly(), "")
    ]
