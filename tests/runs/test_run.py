"""A run reads back what it wrote, and refuses what it can't vouch for."""

import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import (
    Decisions,
    EmbedOptions,
    Policy,
    ProbeBank,
    Run,
    SafetyFilter,
    ScoreBatch,
    apply_policy,
    export,
    open_source,
    scan,
)
from safetyfilter.batches import STATUS_CODES
from safetyfilter.errors import (
    CalibrationError,
    OutputError,
    RunError,
    SafetyFilterError,
    SchemaError,
    SecretError,
    UnfinishedRunError,
    UsageError,
)
from safetyfilter.runs.decided import read_decisions, write_decisions
from safetyfilter.runs.parts import ScoredPart, read_meta, read_scores, read_table, write_scores, write_table
from safetyfilter.runs.reasons import Reasons
from safetyfilter.storage import Location
from tests.conftest import bad_images, good_images
from tests.writers import write_files

IMAGES = dict(sorted((good_images() | bad_images()).items()))
FIXTURES = Path(__file__).with_name("fixtures")


@pytest.fixture(scope="module")
def safe(encoder, probes) -> SafetyFilter:
    return SafetyFilter(encoder, probes, Policy(), EmbedOptions(views="whole"))


@pytest.fixture(scope="module")
def scanned(safe: SafetyFilter, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("run")
    source = open_source(write_files(place / "pictures", IMAGES), part_size=8)
    return Path(scan(source, place / "run", safe, keep_embeddings=True).path)


@pytest.fixture
def run(scanned: Path, tmp_path: Path) -> Run:
    shutil.copytree(scanned, tmp_path / "run")
    shutil.copy(scanned.with_name("run.secret"), tmp_path / "run.secret")
    return Run.open(tmp_path / "run")


def read_all(run: Run) -> None:
    run.read_scores()
    run.read_embeddings()


class TestReading:
    """Scores and embeddings of all samples, row by row."""

    def test_scores_and_embeddings_belong_together(self, run: Run, safe: SafetyFilter) -> None:
        scores, vectors = run.read_scores(), run.read_embeddings()
        assert scores.column_names == ["key_digest", "content_digest", "explicit", "minor", "status"]
        assert len(scores) == len(vectors) == len(IMAGES)
        digester = run.digester()
        row_of = {digester.key(name): row for row, name in enumerate(IMAGES)}
        rows = [row_of[digest] for digest in scores["key_digest"].to_pylist()]
        expected = safe.encoder.embed(list(IMAGES.values()), safe.options)
        np.testing.assert_allclose(vectors, expected.vectors[rows].astype(np.float16), atol=2e-3)
        np.testing.assert_allclose(
            scores["minor"].to_numpy(), safe.probes.score(expected)["minor"][rows], atol=1e-5, equal_nan=True
        )
        contents = list(IMAGES.values())
        assert scores["content_digest"].to_pylist() == [digester.content(contents[row]) for row in rows]

    @pytest.mark.parametrize("folder", ["scores", "embeddings"])
    def test_a_missing_part_is_an_error(self, run: Run, folder: str) -> None:
        run.file(folder, 1).remove()
        with pytest.raises(RunError, match="scan"):
            read_all(run)

    @pytest.mark.parametrize("stopped", ["scan", "decide"])
    def test_an_unfinished_run_is_an_error(self, run: Run, stopped: str) -> None:
        scores = "" if stopped == "scan" else run.record.scores
        run.write_record(replace(run.record, complete=False, scores=scores))
        for read in (run.read_scores, run.read_embeddings, lambda: run.align_labels(pa.table({"key": ["a"]}))):
            with pytest.raises(UnfinishedRunError, match=f"`safetyfilter {stopped}` again"):
                read()

    @pytest.mark.parametrize("damage", [b"", b"PAR1", "cut"])
    def test_a_damaged_part_is_an_error(self, run: Run, damage) -> None:
        path = Path(run.file("scores", 1))
        path.write_bytes(path.read_bytes()[:-50] if damage == "cut" else damage)
        with pytest.raises(RunError, match="scan"):
            run.read_scores()

    def test_another_schema_is_an_error(self, run: Run) -> None:
        part, meta = read_scores(run.file("scores", 1), run.record.setup.signals)
        write_scores(part, run.file("scores", 1), meta | {"schema": 5})
        with pytest.raises(SchemaError):
            run.read_scores()

    def test_a_part_with_another_fingerprint_is_an_error(self, run: Run) -> None:
        part, meta = read_scores(run.file("scores", 1), run.record.setup.signals)
        write_scores(part, run.file("scores", 1), meta | {"fingerprint": "another scan's"})
        with pytest.raises(RunError, match=r"are not those that its run\.json speaks of"):
            run.read_scores()
        with pytest.raises(RunError, match=r"are not those that its run\.json speaks of"):
            run.read_embeddings()

    def test_embeddings_of_another_part_are_an_error(self, run: Run) -> None:
        shutil.copy(run.file("embeddings", 0), run.file("embeddings", 1))
        with pytest.raises(RunError, match="does not hold the embeddings of its scores"):
            run.read_embeddings()
        assert len(run.read_scores()) == len(IMAGES)

    def test_a_run_without_embeddings_says_so(self, run: Run, safe: SafetyFilter, tmp_path: Path) -> None:
        source = open_source(write_files(tmp_path / "f", {"a.jpg": IMAGES["china.jpg"]}))
        with pytest.raises(RunError, match="scan again with --keep-embeddings"):
            scan(source, tmp_path / "other", safe).read_embeddings()


class TestLabels:
    """Labels in any order, by key."""

    def test_they_are_put_into_the_runs_order(self, run: Run) -> None:
        names = sorted(IMAGES, reverse=True)
        labels = pa.table({"key": names, "minor": [name in good_images() for name in names]})
        aligned = run.align_labels(labels.slice(2))
        status = run.read_scores()["status"].to_pylist()
        known = [label for label in aligned["minor"].to_pylist() if label is not None]
        assert len(known) == len(IMAGES) - 2
        pairs = zip(aligned["minor"].to_pylist(), status, strict=True)
        assert all(label == (code == "ok") for label, code in pairs if label is not None)

    def test_by_the_runs_own_digests_no_secret_is_needed(self, run: Run) -> None:
        digests = run.read_scores()["key_digest"]
        Path(run.path).with_name("run.secret").unlink()
        aligned = run.align_labels(pa.table({"key_digest": digests.take([2, 0]), "minor": [True, False]}))
        assert aligned["minor"].to_pylist()[:3] == [False, None, True]
        with pytest.raises(SecretError):
            run.align_labels(pa.table({"key": list(IMAGES), "minor": [True] * len(IMAGES)}))

    def test_captions_and_whatever_else_belongs_to_samples(self, run: Run) -> None:
        captions = pa.table({"key": ["rocket.jpg", "china.jpg"], "caption": ["a rocket", "a pagoda"], "year": [1, 2]})
        aligned = run.align(captions)
        digester, digests = run.digester(), run.read_scores()["key_digest"].to_pylist()
        assert aligned["caption"].to_pylist()[digests.index(digester.key("china.jpg"))] == "a pagoda"
        assert aligned["year"].to_pylist()[digests.index(digester.key("rocket.jpg"))] == 1
        assert aligned["caption"].null_count == len(IMAGES) - 2
        with pytest.raises(CalibrationError, match="no row's key is among"):
            run.align(pa.table({"key": ["elsewhere.jpg"]}))
        with pytest.raises(CalibrationError, match="the rows have no column key"):
            run.align(pa.table({"caption": ["a rocket"]}))

    def test_labels_of_nobody_are_told(self, run: Run, caplog) -> None:
        run.align_labels(pa.table({"key": ["china.jpg", "elsewhere.jpg"], "minor": [True, False]}))
        assert "1 of 2 labels belong to no scored sample" in caplog.text

    @pytest.mark.parametrize(
        ("labels", "match"),
        [
            ({"minor": [True] * len(IMAGES)}, "no column key"),
            ({"key": ["elsewhere.jpg"], "minor": [True]}, "no label's key is among those of the scored samples"),
            ({"key": ["china.jpg"] * 2, "minor": [True, False]}, "more than once .1 of 2 rows are too many."),
        ],
    )
    def test_labels_that_cant_be_joined(self, run: Run, labels: dict, match: str) -> None:
        with pytest.raises(CalibrationError, match=match):
            run.align_labels(pa.table(labels))


def part(keys: list[int], *, known: list[bool] | None = None, vectors: np.ndarray | None = None) -> ScoredPart:
    digests = np.array([[key] * 32 for key in keys], np.uint8)
    scores = ScoreBatch(
        values=np.array([[key / 255, key / 255] for key in keys], np.float32),
        signals=("explicit", "minor"),
        status=np.array([STATUS_CODES["empty"] if key == 9 else 0 for key in keys], np.uint8),
    )
    return ScoredPart.in_order(0, "s", digests, scores, None if known is None else np.array(known), vectors)


class TestWriting:
    """Parts are recorded whole, in order, with nothing of before beside them."""

    def test_rows_are_put_in_order_with_all_that_belongs_to_them(self) -> None:
        vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
        ordered = part([9, 200, 3], known=[True, False, False], vectors=vectors)
        assert ordered.keys[:, 0].tolist() == [3, 9, 200] == ordered.contents[:, 0].tolist()
        np.testing.assert_allclose(ordered.scores["minor"] * 255, [3, 9, 200], rtol=1e-6)
        assert ordered.scores.failures == {1: "empty"}
        assert ordered.known_hashes.tolist() == [False, True, False]
        assert ordered.vectors.tolist() == [[4, 5], [0, 1], [2, 3]]

    def test_a_part_out_of_order_is_a_fault(self) -> None:
        good = part([1, 2])
        with pytest.raises(RunError, match="not in the order of their keys"):
            replace(good, keys=good.keys[::-1])
        with pytest.raises(RunError, match="differ in length"):
            replace(good, contents=good.contents[:1])

    def test_what_is_written_is_read(self, run: Run) -> None:
        written = part([9, 200, 3, 0], known=[False, True, False, False])
        counts = run.write(written)
        read, meta = read_scores(run.file("scores", 0), run.record.setup.signals)
        np.testing.assert_array_equal(read.keys, written.keys)
        assert read.scores.failures == written.scores.failures
        assert read.known_hashes.tolist() == written.known_hashes.tolist()
        assert meta["embeddings"] is None
        table, _ = read_table(run.file("decisions", 0))
        assert table["reasons"].to_pylist() == [[], [], ["unscored"], ["co_occurrence", "known_hash"]]
        assert table["content_digest"].to_pylist()[0] is None  # all zeros: there were no bytes
        assert (counts["seen"], counts["kept"], counts["known_hash"], counts["unscored"]) == (4, 2, 1, 1)

    def test_an_image_on_a_list_stays_excluded_under_any_policy(self, run: Run) -> None:
        run.write(part([1, 2], known=[True, False]))
        lenient = Policy(thresholds={"explicit": 1, "minor": 1})
        assert run.decide_part(0, Reasons.by_policy(lenient)).counts["known_hash"] == 1

    def test_embeddings_of_before_are_removed(self, run: Run) -> None:
        place = run.file("embeddings", 0)
        assert place.exists()
        run.write(part([1, 2]))
        assert not place.exists()
        run.write(part([1, 2], vectors=np.ones((2, 4), np.float32)))
        assert np.load(place).dtype == np.float16
        assert read_meta(run.file("scores", 0))["embeddings"]

    def test_an_empty_part(self, run: Run) -> None:
        scores = ScoreBatch(values=np.empty((0, 2), np.float32), signals=("explicit", "minor"))
        counts = run.write(ScoredPart.in_order(0, "s", np.empty((0, 32), np.uint8), scores))
        assert counts == Counter({"seen": 0})

    def test_parts_that_the_source_no_longer_has_are_removed(self, run: Run, scanned: Path, safe: SafetyFilter) -> None:
        source = open_source(write_files(Path(run.path).parent / "pictures", IMAGES), part_size=8)
        run = scan(source, Path(run.path).parent / "again", safe, keep_embeddings=True)
        (Path(run.path) / "scores" / "part-x.parquet").write_text("of another tool")
        for name in sorted(IMAGES)[-8:]:
            (Path(run.path).parent / "pictures" / name).unlink()
        run = scan(open_source(Path(run.path).parent / "pictures", part_size=8), run.path, safe)
        for folder, count in (("scores", 2), ("decisions", 2), ("embeddings", 1)):  # the second part was done again
            assert len(list((Path(run.path) / folder).glob("part-0*"))) == count
        assert run.part_count == 2
        assert (Path(run.path) / "scores" / "part-x.parquet").exists()


def everything(run: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(run.path).rglob("*") if path.is_file()}


class TestForeignParts:
    """Only scores that the record vouches for are decided on, and only decisions on these are used."""

    @pytest.fixture
    def other(self, run: Run, safe: SafetyFilter) -> Run:
        """A run of the same source under the same secret, with probes that keep everything."""
        probes = ProbeBank([replace(probe, bias=probe.bias - 1000) for probe in safe.probes.probes])
        source = open_source(write_files(Path(run.path).parent / "pictures", IMAGES), part_size=8)
        shutil.copy(Path(run.path).with_name("run.secret"), Path(run.path).with_name("other.secret"))
        return scan(source, Path(run.path).with_name("other"), replace(safe, probes=probes))

    def test_decisions_of_another_run_are_refused(self, run: Run, other: Run) -> None:
        for path in (Path(other.path) / "decisions").glob("*"):
            shutil.copy(path, Path(run.path) / "decisions")
        with pytest.raises(RunError, match=r"are not those that its run\.json speaks of"):
            Decisions.of(run)

    @pytest.mark.parametrize("what", ["scores of another run", "swapped parts", "a part twice", "fewer", "none"])
    def test_deciding_launders_nothing(self, run: Run, other: Run, what: str) -> None:
        first, second = (run.file("scores", index) for index in (0, 1))
        if what == "scores of another run":
            shutil.copy(other.file("scores", 0), first)
        elif what == "swapped parts":
            content = first.read_bytes()
            shutil.copy(second, first)
            Path(second).write_bytes(content)
        elif what == "a part twice":
            shutil.copy(first, second)
        else:
            parts = {"fewer": run.part_count - 1, "none": 0}[what]
            run.write_record(replace(run.record, source=replace(run.record.source, parts=parts)))
        before = everything(run)
        with pytest.raises(RunError, match=r"are not those that its run\.json speaks of"):
            apply_policy(run, Policy.preset("strict"))
        assert everything(run) == before

    @pytest.mark.parametrize("rescue", ["decide", "scan"])
    def test_decisions_that_were_put_there_are_refused_and_never_taken_for_own(
        self, run: Run, scanned: Path, safe: SafetyFilter, rescue: str
    ) -> None:
        """Whole files, of the right scores and policy, that keep what was excluded."""
        before = Decisions.of(run)
        places = [run.file("decisions", number) for number in range(run.part_count)]
        number = next(n for n, place in enumerate(places) if read_decisions(place).reason_bits.any())
        place, decided = places[number], read_decisions(places[number])
        part, _ = read_scores(run.file("scores", number), run.record.setup.signals)
        meta = {name: getattr(decided, name) for name in ("fingerprint", "scores", "policy")}
        write_decisions(part, np.zeros(len(part), np.uint16), place, meta)
        with pytest.raises(RunError, match="run `safetyfilter decide` again"):
            Decisions.of(run)
        if rescue == "decide":
            apply_policy(run, run.policy)
        else:
            run.write_record(replace(run.record, complete=False, counts={}))
            scan(open_source(scanned.parent / "pictures", part_size=8), run.path, safe)
        assert read_decisions(place).content == decided.content
        np.testing.assert_array_equal(
            Decisions.of(Run.open(run.path)).reasons(list(IMAGES)), before.reasons(list(IMAGES))
        )

    def test_scores_of_the_same_fingerprint_are_told_from_the_runs_own(self, run: Run) -> None:
        part, meta = read_scores(run.file("scores", 0), run.record.setup.signals)
        low = replace(part, scores=replace(part.scores, values=part.scores.values * 0))
        write_scores(low, run.file("scores", 0), {name: meta[name] for name in ("fingerprint", "embeddings")})
        with pytest.raises(RunError, match=r"the scores of part 0 in .* are not those that its run\.json speaks of"):
            run.read_scores()
        with pytest.raises(RunError, match=r"the scores of part 0 in .* are not those that its run\.json speaks of"):
            apply_policy(run, run.policy)

    def test_a_stopped_scan_is_not_completed_by_deciding(self, safe: SafetyFilter, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "pictures", IMAGES)
        run = scan(open_source(folder, part_size=8), tmp_path / "run", safe)
        last = sorted(IMAGES)[-1]
        for name in (sorted(IMAGES)[0], last):  # in the first part and in the last
            (folder / name).write_bytes(IMAGES["rocket.jpg"] + b" changed")

        def stop(counts) -> None:
            if "kept" in counts and not counts.get("resumed"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            scan(open_source(folder, part_size=8), tmp_path / "run", safe, progress=stop)
        with pytest.raises(UnfinishedRunError, match="some of its scores may be of another time"):
            apply_policy(Run.open(run.path), Policy())
        with pytest.raises(UnfinishedRunError):
            Decisions.of(Run.open(run.path))
        again = scan(open_source(folder, part_size=8), tmp_path / "run", safe)
        content = (folder / last).read_bytes()
        assert again.read_scores()["content_digest"].to_pylist().count(again.digester().content(content)) >= 1

    def test_a_stopped_decision_is_completed_by_deciding_again(self, run: Run) -> None:
        run.write_record(replace(run.record, complete=False, counts={}))
        assert apply_policy(run, Policy.preset("strict")).counts["seen"] == len(IMAGES)


class TestTwoAtOnce:
    """One process writes a run at a time; another one changes nothing."""

    def test_a_refused_scan_leaves_the_run_as_it_is(self, run: Run, safe: SafetyFilter) -> None:
        source, before = open_source(write_files(Path(run.path).parent / "f", IMAGES)), everything(run)
        with run.writing(), pytest.raises(RunError, match="another process is writing"):
            scan(source, run.path, safe)
        assert everything(run) == before

    def test_deciding_waits_its_turn(self, run: Run) -> None:
        before = everything(run)
        with run.writing(), pytest.raises(RunError, match="another process is writing"):
            apply_policy(Run.open(run.path), Policy.preset("strict"))
        assert everything(run) == before

    def test_what_a_killed_process_left_is_swept_up(self, run: Run) -> None:
        left = [Path(run.path) / ".run.json.1-ab.tmp", Path(run.path) / "scores" / ".part-00000.parquet.1-ab.tmp"]
        building = Path(run.path) / "index" / ".decisions.bin.1-ab.tmp"  # a reader may be building it now
        building.parent.mkdir(exist_ok=True)
        for path in (*left, building):
            path.write_text("half")
        with run.writing():
            assert not [path for path in left if path.exists()]
        assert building.exists()


class TestDamage:
    """A part that is damaged is told, and the next scan makes it again."""

    @pytest.mark.parametrize("folder", ["scores", "decisions", "embeddings"])
    @pytest.mark.parametrize("damage", ["bit", "cut", "empty", "text"])
    def test_the_next_scan_mends_it(self, scanned: Path, tmp_path: Path, safe, folder: str, damage: str) -> None:
        for name in ("pictures", "run"):
            shutil.copytree(scanned.parent / name, tmp_path / name)
        shutil.copy(scanned.with_name("run.secret"), tmp_path / "run.secret")
        run = Run.open(tmp_path / "run")
        source = open_source(scanned.parent / "pictures", part_size=8)
        place = Path(run.file(folder, 1))
        content = bytearray(place.read_bytes())
        if damage == "bit":
            content[len(content) // 2 if folder == "embeddings" else 40] ^= 1
        place.write_bytes({"bit": content, "cut": content[:-60], "empty": b"", "text": b"text"}[damage])
        if folder != "decisions":
            with pytest.raises(RunError):
                read_all(run)
        assert scan(source, run.path, safe, keep_embeddings=True).counts == Run.open(scanned).counts
        read_all(Run.open(run.path))
        assert len(Decisions.of(Run.open(run.path))) == len(IMAGES)

    @pytest.mark.parametrize("name", ["signals", "content", "embeddings", "repeated", "fingerprint"])
    def test_a_missing_field_of_a_part_is_named(self, run: Run, name: str) -> None:
        table, meta = read_table(run.file("scores", 0))
        write_table(table, run.file("scores", 0), {field: value for field, value in meta.items() if field != name})
        with pytest.raises(RunError, match=f"the field {name} is not"):
            read_scores(run.file("scores", 0), run.record.setup.signals)

    @pytest.mark.parametrize("name", ["scores", "policy", "content", "counts"])
    def test_a_missing_field_of_decisions_is_named(self, run: Run, name: str) -> None:
        table, meta = read_table(run.file("decisions", 0))
        write_table(table, run.file("decisions", 0), {field: value for field, value in meta.items() if field != name})
        with pytest.raises(RunError, match=f"the field {name} is not"):
            read_decisions(run.file("decisions", 0))

    @pytest.mark.parametrize("folder", ["scores", "decisions"])
    def test_pages_have_checksums(self, run: Run, folder: str) -> None:
        place = Path(run.file(folder, 0))
        content = bytearray(place.read_bytes())
        content[40] ^= 1
        place.write_bytes(content)
        with pytest.raises(OSError, match="could not verify page integrity"):
            pq.read_table(place, page_checksum_verification=True)

    def test_a_flipped_bit_changes_no_decision_unseen(self, run: Run) -> None:
        place = Path(run.file("decisions", 0))
        content, before = place.read_bytes(), Decisions.of(run).reasons(list(IMAGES)).tolist()
        for at in range(4, len(content) - 8, 23):
            flipped = bytearray(content)
            flipped[at] ^= 16
            place.write_bytes(flipped)
            with suppress(SafetyFilterError):
                assert Decisions.of(run).reasons(list(IMAGES)).tolist() == before

    def test_a_flipped_bit_changes_no_score_unseen(self, run: Run) -> None:
        place = Path(run.file("scores", 0))
        content, before = place.read_bytes(), repr(run.read_scores().to_pydict())
        for at in range(4, len(content) - 8, 7):
            flipped = bytearray(content)
            flipped[at] ^= 16
            place.write_bytes(flipped)
            with suppress(SafetyFilterError):
                assert repr(run.read_scores().to_pydict()) == before


class TestPlaces:
    """Where a run may lie."""

    def test_in_the_folder_itself(self, safe: SafetyFilter, tmp_path: Path, monkeypatch) -> None:
        source = open_source(write_files(tmp_path / "f", {"a.jpg": IMAGES["china.jpg"]}))
        (tmp_path / "run").mkdir()
        monkeypatch.chdir(tmp_path / "run")
        assert scan(source, ".", safe).counts["seen"] == 1
        assert (tmp_path / "run.secret").exists()
        assert Run.open(".").counts["seen"] == 1


class TestOtherPlaces:
    """A run does not lie where it can't be written, or where its secret would have no place."""

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            ("s3://bucket", "is a whole bucket, .* give a folder in it"),
            (Path("s3://bucket/"), "is a whole bucket, .* give a folder in it"),
            ("memory://run", "is a whole bucket, .* give a folder in it"),
            ("simplecache::memory://bucket/run", "give a path on this machine"),
            ("nowhere://bucket/run", "install the fsspec package"),
        ],
    )
    def test_other_urls_are_refused_and_leave_nothing(
        self, out, message: str, safe: SafetyFilter, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        source = open_source(write_files(tmp_path / "f", {"a.jpg": IMAGES["china.jpg"]}))
        with pytest.raises((OutputError, UsageError), match=message):
            scan(source, out, safe)
        with pytest.raises((OutputError, UsageError), match=message):
            Run.open(out)
        assert [path.name for path in tmp_path.iterdir()] == ["f"]


class TestSchemas:
    """Run directories of every version that ever wrote one, committed as they were written."""

    def test_the_first_is_refused_with_what_to_do(self) -> None:
        with pytest.raises(SchemaError, match=r"has schema 1, .* scan into a new directory") as caught:
            Run.open(FIXTURES / "schema-1")
        assert "keep or remove the old one as you would the secret" in str(caught.value)
        with pytest.raises(SchemaError):
            read_table(Location.of(FIXTURES / "schema-1" / "scores" / "part-00000.parquet"))

    def test_the_first_is_not_written_over(self, safe: SafetyFilter, tmp_path: Path) -> None:
        shutil.copytree(FIXTURES / "schema-1", tmp_path / "run")
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        source = open_source(write_files(tmp_path / "f", {"a.jpg": IMAGES["china.jpg"]}))
        with pytest.raises(SafetyFilterError, match="schema 1"):
            scan(source, tmp_path / "run", safe)
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before

    def test_the_second_is_refused_with_what_to_do(self) -> None:
        with pytest.raises(SchemaError, match=r"has schema 2, .*no probe saw.* scan into a new directory"):
            Run.open(FIXTURES / "schema-2")
        with pytest.raises(SchemaError):
            read_table(Location.of(FIXTURES / "schema-2" / "scores" / "part-00000.parquet"))

    def test_the_third_is_read(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("SAFETYFILTER_SECRET", "00" * 32)
        shutil.copytree(FIXTURES / "schema-3", tmp_path / "run")
        run = Run.open(tmp_path / "run")
        assert (run.counts["seen"], run.counts["unscored"]) == (7, 1)
        assert run.read_scores()["status"].to_pylist().count("ok") == 6
        assert run.read_embeddings().shape == (7, 128)
        assert str(run.record.setup.pair.notice)
        decisions = Decisions.of(run)
        assert [bool(bits) for bits in decisions.reasons(["0.png", "6.png"])] == [True, True]
        assert apply_policy(run, Policy(thresholds={"explicit": 1, "minor": 1})).counts["unscored"] == 1


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda run, source: scan("pictures", "run", None), "open_source"),
        (lambda run, source: export("run", source, "out"), r"Run\.open"),
        (lambda run, source: export(run, "pictures", "out"), "open_source"),
        (lambda run, source: apply_policy("run", Policy()), r"Run\.open"),
        (lambda run, source: apply_policy(run, "strict"), r"Policy\.load"),
        (lambda run, source: Decisions.of("run"), r"Run\.open"),
    ],
)
def test_a_path_in_the_place_of_what_is_there_names_the_remedy(run: Run, call, remedy: str) -> None:
    with pytest.raises(UsageError, match=remedy):
        call(run, open_source(write_files(Path(run.path).parent / "f", {"a.jpg": IMAGES["china.jpg"]})))
