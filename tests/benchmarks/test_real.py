"""The check on real data, on made-up files of the same layout: random directions, and no picture anywhere."""

import json
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, precision_score, recall_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import real
import real_laion
import real_sets

from safetyfilter import LinearProbe, ProbeBank, SafetyFilter, open_source, scan, train_probe
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import CalibrationError, ProbeError, SafetyFilterError, SourceError
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.score.convert.detector import convert_detector, read_detector
from tests.score.published_files import DATA, ZIPS, needs_laion

ROWS = {"drawings": 24, "hentai": 18, "neutral": 26, "porn": 20, "sexy": 22}
POSITIVE = {"hentai", "porn", "sexy"}
ENCODER = NamedEncoder.named("ViT-L-14-quickgelu", "openai").spec
ARRAY = ("img_emb", "img_emb_0.npy")
DIRECTION = (np.random.default_rng(0).choice([-1, 1], 768) / np.sqrt(768)).astype(np.float32)


def units(count: int, towards: float, seed: int) -> np.ndarray:
    """(N, 768) float16 rows of norm 1, that go a little towards one direction or away from it."""
    rows = np.random.default_rng(seed).standard_normal((count, 768)) / np.sqrt(768) + towards * DIRECTION
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def write_set(place: Path, *, ending: str = "") -> dict[str, np.ndarray]:
    """A set in LAION's layout, and its arrays by folder."""
    arrays = {}
    for seed, (name, count) in enumerate(ROWS.items()):
        arrays[name] = units(count, 0.06 if name in POSITIVE else -0.06, seed)
        file = place.joinpath(f"{name}{ending}", *ARRAY)
        file.parent.mkdir(parents=True)
        np.save(file, arrays[name])
    return arrays


def write_zip(place: Path, folder: Path, root: str = "") -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.npy")):
            archive.write(file, f"{root}{file.relative_to(folder)}")
    return place


@pytest.fixture
def laid(tmp_path: Path) -> Path:
    write_set(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probes") / "probes.safetensors"
    ProbeBank(
        [LinearProbe(signal=s, weight=30 * DIRECTION, bias=0.5, encoder=ENCODER.digest) for s in ("explicit", "minor")]
    ).save(path)
    return path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> tuple[dict, np.ndarray, np.ndarray]:
    """What the script writes of a set, the set's rows, and its labels."""
    place = tmp_path_factory.mktemp("laion")
    arrays = write_set(place / "nsfw_testset", ending="-test")
    result = run(place, "--probes", probes, "--folds", "3")
    return result, np.concatenate(list(arrays.values())), np.repeat([n in POSITIVE for n in ROWS], list(ROWS.values()))


def run(*words: object) -> dict:
    """What the script writes."""
    target = Path(str(words[0])).parent / "out" / "real.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["real.py", *map(str, words), "--json", str(target)])
        real.main()
    return json.loads(target.read_text())


@pytest.mark.parametrize("threshold", real.THRESHOLDS)
def test_shares_are_scikit_learns_with_wilsons_intervals(
    told: tuple[dict, np.ndarray, np.ndarray], threshold: float
) -> None:
    result, rows, present = told
    logits = rows.astype(np.float64) @ (30 * DIRECTION.astype(np.float64)) + 0.5
    flagged = logits >= np.log(threshold / (1 - threshold))
    at = result["ways"]["given probes"]["at"][f"{threshold:g}"]
    assert at["accuracy"]["value"] == accuracy_score(present, flagged)
    assert at["recall"]["value"] == recall_score(present, flagged)
    assert at["precision"]["value"] == precision_score(present, flagged)
    assert at["false_alarms"]["value"] == flagged[~present].mean()
    assert at["recall"] == Proportion.of(int(flagged[present].sum()), int(present.sum())).to_dict()
    assert result["ways"]["given probes"]["auc"] == pytest.approx(roc_auc_score(present, logits))
    folder = np.repeat(list(ROWS), list(ROWS.values()))
    for name in ROWS:
        assert at["flagged"][name]["value"] == flagged[folder == name].mean()


def test_the_linear_probe_is_held_out_as_scikit_learns_is(told: tuple[dict, np.ndarray, np.ndarray]) -> None:
    result, rows, present = told
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, class_weight="balanced"))
    theirs = cross_val_predict(model, rows.astype(np.float32), present, cv=3, method="decision_function")
    seen = model.fit(rows.astype(np.float32), present).decision_function(rows.astype(np.float32))
    found = result["ways"]["linear probe"]["auc"]
    assert roc_auc_score(present, seen) == 1  # by a probe that has seen its rows
    assert found < 0.97
    assert found == pytest.approx(roc_auc_score(present, theirs), abs=0.08)


def test_the_result_names_the_set_and_what_others_found(told: tuple[dict, np.ndarray, np.ndarray]) -> None:
    result, _, present = told
    assert result["counts"] == {
        "rows": len(present), "present": int(present.sum()), "absent": int((~present).sum()), "folders": ROWS
    }  # fmt: skip
    assert result["published"] == real.PUBLISHED
    assert (result["signal"], result["encoder"]) == ("explicit", "ViT-L-14-quickgelu/openai")
    assert "left_out" not in result


def test_without_the_detector_the_linear_probe_is_measured_and_the_reason_told(
    laid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(laid, "--folds", "2")
    assert list(result["ways"]) == ["linear probe"]
    assert "safetyfilter probes fetch laion-l14" in result["left_out"]["laion-l14"]
    assert "laion-l14 is left out" in capsys.readouterr().out


@needs_laion
def test_laions_detector_scores_as_it_does_by_itself(
    laid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = DATA / ZIPS["laion-l14"]
    convert_detector(file)
    rows = real_laion.read_laion(laid)
    scores = real.given_scores(rows, "laion-l14")
    expected = read_detector(file.read_bytes()).score(rows.vectors)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    at = real.figures(rows, scores)["at"]["0.5"]
    assert at["accuracy"]["value"] == accuracy_score(rows.labels.present, expected >= 0.5)


@pytest.mark.parametrize("root", ["", "nsfw_testset/"])
def test_the_zip_file_is_read_as_its_folder_is(tmp_path: Path, laid: Path, root: str) -> None:
    one, other = real_laion.read_laion(laid), real_laion.read_laion(write_zip(tmp_path / "set.zip", laid, root))
    np.testing.assert_array_equal(one.vectors, other.vectors)
    np.testing.assert_array_equal(one.labels.present, other.labels.present)
    assert one.folder.tolist() == other.folder.tolist()


def test_rows_without_a_number_are_unscored_and_count_as_flagged(laid: Path, probes: Path) -> None:
    rows = units(ROWS["neutral"], -0.3, 9)
    rows[:2], rows[2] = np.nan, 0
    np.save(laid.joinpath("neutral", *ARRAY), rows)
    result = run(laid, "--probes", probes, "--folds", "2")
    for way in ("given probes", "linear probe"):
        assert result["ways"][way]["unscored"] == 3
        assert result["ways"][way]["at"]["0.8"]["flagged"]["neutral"]["count"] >= 3


def test_rows_of_other_norms_are_refused_unless_they_are_to_be_normalised(laid: Path) -> None:
    plain = real_laion.read_laion(laid)
    file = laid.joinpath("porn", *ARRAY)
    np.save(file, 4 * np.load(file).astype(np.float32))
    with pytest.raises(SourceError, match=r"norms from 0\.99\d* to 4.*--normalise|norms from 1 to 4.*--normalise"):
        real.read(real.arguments([str(laid)]))
    normalised = real.read(real.arguments([str(laid), "--normalise"]))
    np.testing.assert_allclose(normalised.vectors, plain.vectors, atol=1e-3)


class Opened:
    """An object that tells if it is unpickled."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle was loaded",))


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (units(3, 0, 0)[:, :512], "its rows have 512 columns, and those of ViT-L/14 have 768"),
        (units(3, 0, 0)[:0], "porn: it has no rows"),
        (np.array([[Opened()]], object), "pickled objects, which are never loaded"),
        (units(3, 0, 0).astype(np.float64), "float64; write float16 or float32"),
        (units(3, 0, 0)[0], "its shape is"),
        (header("(9000000000000, 768)") + bytes(1536), "it ends too early"),
        (b"no array", "can't read the embeddings of porn"),
        (b"", "can't read the embeddings of porn"),
    ],
    ids=["width", "no rows", "objects", "float64", "one row", "claims more", "no array", "empty"],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_a_bad_array_is_refused(
    laid: Path, tmp_path: Path, content: np.ndarray | bytes, message: str, zipped: bool
) -> None:
    file = laid.joinpath("porn", *ARRAY)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content, allow_pickle=True)
    with pytest.raises(SourceError, match=message):
        real_laion.read_laion(write_zip(tmp_path / "set.zip", laid) if zipped else laid)


def test_a_set_too_large_is_refused(laid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "set.zip", laid)
    monkeypatch.setattr(real_laion, "MAX_ARRAY", 1000)
    with pytest.raises(SourceError, match="at most 1,000 are read"):
        real_laion.read_laion(laid)
    with pytest.raises(SourceError, match=r"claims [\d,]+ bytes from [\d,]+"):
        real_laion.read_laion(packed)
    monkeypatch.setattr(real_laion, "MAX_ZIP", 1000)
    with pytest.raises(SourceError, match="has more than 1,000 bytes"):
        real_laion.read_laion(packed)


@pytest.mark.parametrize("at", [("porn",), ("porn", "img_emb"), ("porn", *ARRAY)], ids="/".join)
def test_no_link_is_followed(laid: Path, tmp_path: Path, at: tuple[str, ...]) -> None:
    place = laid.joinpath(*at)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="is a link, and none is followed"):
        real_laion.read_laion(laid)


def test_a_folder_that_is_missing_or_there_twice_is_named(laid: Path, tmp_path: Path) -> None:
    (laid / "sexy").rename(tmp_path / "sexy")
    with pytest.raises(SourceError, match="holds 0 of the folders sexy and sexy-test"):
        real_laion.read_laion(laid)
    with pytest.raises(SourceError, match=r"no img_emb/img_emb_0\.npy of sexy"):
        real_laion.read_laion(write_zip(tmp_path / "set.zip", laid))
    for name in ("sexy", "sexy-test"):
        (laid / name).mkdir()
    with pytest.raises(SourceError, match="holds 2 of the folders"):
        real_laion.read_laion(laid)


def test_an_array_that_would_be_left_out_is_an_error(laid: Path, tmp_path: Path) -> None:
    np.save(laid / "porn" / "img_emb" / "img_emb_1.npy", units(3, 0, 0))
    for place in (laid, write_zip(tmp_path / "set.zip", laid)):
        with pytest.raises(SourceError, match=r"porn has 1 arrays besides img_emb_0\.npy"):
            real_laion.read_laion(place)


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    ("info", "content", "message"),
    [
        (entry("porn/img_emb/img_emb_0.npy", stat.S_IFLNK | 0o777), b"/etc/passwd", "a link in the place of porn's"),
        (entry("porn/img_emb/img_emb_0.npy"), bytes(1 << 20), r"porn claims 1,048,576 bytes from [\d,]+"),
        (entry("/porn/img_emb/img_emb_0.npy"), b"", "at an odd place"),
        (entry("../porn/img_emb/img_emb_0.npy"), b"", "at an odd place"),
        (entry("a/b/porn/img_emb/img_emb_0.npy"), b"", "at an odd place"),
        (entry("porn-test/img_emb/img_emb_0.npy"), b"", "has no img_emb/img_emb_0.npy of drawings"),
    ],
    ids=["link", "bomb", "absolute", "above", "deep", "alone"],
)
def test_an_odd_archive_is_refused(tmp_path: Path, info: zipfile.ZipInfo, content: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(info, content)
    with pytest.raises(SourceError, match=message):
        real_laion.read_laion(tmp_path / "set.zip")


def test_what_else_lies_in_the_archive_is_never_read(laid: Path, tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "set.zip", laid)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/porn/img_emb/img_emb_0.npy", b"no array")
        archive.writestr("porn/metadata/metadata_0.parquet", b"no table")
        archive.writestr("../escaped.txt", b"text")
    assert len(real_laion.read_laion(packed).vectors) == sum(ROWS.values())
    assert not (tmp_path / "escaped.txt").exists()


@pytest.mark.parametrize(("name", "content"), [("set.zip", b"PK\x03\x04 damaged"), ("set.zip", b"")])
def test_what_is_no_zip_file_is_said_to_be_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="is not a readable zip file"):
        real_laion.read_laion(tmp_path / name)


def test_an_error_is_one_sentence_and_a_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["real.py", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"^error: there is no folder and no zip file at .*; give LAION's test set$"):
        real.main()


def test_probes_that_were_asked_for_are_needed(laid: Path) -> None:
    rows = real_laion.read_laion(laid)
    with pytest.raises(ProbeError, match="there is no probe file at none"):
        real.measure(rows, probes="none", folds=2, needed=True)


def test_probes_of_another_signal_are_named(laid: Path, tmp_path: Path) -> None:
    probe = LinearProbe(signal="minor", weight=DIRECTION, bias=0, encoder=ENCODER.digest)
    ProbeBank([probe]).save(tmp_path / "minor.safetensors")
    rows = real_laion.read_laion(laid)
    with pytest.raises(ProbeError, match="score minor, and the labels are about explicit"):
        real.measure(rows, probes=str(tmp_path / "minor.safetensors"), folds=2, needed=True)


ICCWD = ["Final_Child"] * 20 + ["Final_NoChild"] * 20 + ["Disagreement"] * 2


@pytest.fixture
def iccwd(tmp_path: Path, probes: Path) -> tuple[Path, Path]:
    """A run of all but one of the pictures that a table in ICCWD's form names, and the table."""
    rows = np.concatenate([units(20, 0.2, 1), units(20, -0.2, 2), units(2, 0, 3)])
    order = np.random.default_rng(0).permutation(len(rows))[1:]
    (tmp_path / "stored").mkdir()
    np.save(tmp_path / "stored" / "rows.npy", rows[order])
    (tmp_path / "stored" / "rows.keys.txt").write_text("".join(f"{number}.jpg\n" for number in order))
    safe = SafetyFilter(NamedEncoder(ENCODER), ProbeBank.load(probes))
    scan(open_source(tmp_path / "stored"), tmp_path / "run", safe, keep_embeddings=True)
    table = pa.table({"url": ["u"] * len(ICCWD), "label": ICCWD})
    pa.csv.write_csv(table, tmp_path / "iccwd.csv")
    return tmp_path / "run", tmp_path / "iccwd.csv"


def test_iccwds_table_is_joined_with_a_run_by_the_pictures_names(iccwd: tuple[Path, Path], probes: Path) -> None:
    result = run(iccwd[0], "--labels", iccwd[1], "--probes", probes, "--folds", "2")
    assert result["signal"] == "minor"
    counts = result["counts"]
    assert counts["present"] + counts["absent"] in (39, 40)  # the picture that was not had may be one without a label
    for way in ("given probes", "linear probe"):
        assert result["ways"][way]["auc"] > 0.8  # rows and labels in another order would be told apart by chance
        assert result["ways"][way]["unscored"] == 0
    assert "published" not in result


def test_a_label_that_is_not_iccwds_is_an_error() -> None:
    table = pa.table({"label": ["Final_Child", "child"]})
    with pytest.raises(CalibrationError, match=r"1 of 2 labels are not ICCWD's; those are Final_Child, Final_NoChild"):
        real_sets.iccwd_labels(table, "minor")


def test_iccwds_labels_are_of_no_other_signal() -> None:
    """`--signal explicit` would else count a detector against labels of something else."""
    with pytest.raises(CalibrationError, match="labels are about minor, and say nothing of explicit"):
        real_sets.iccwd_labels(pa.table({"label": ["Final_Child", "Final_NoChild"]}), "explicit")


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    np.save(tmp_path / "rows.npy", np.concatenate([units(15, 0.2, 1), units(15, -0.2, 2)]))
    table = pa.table({"minor": [True] * 15 + [False] * 15, "family": [str(n % 15 // 2) for n in range(30)]})
    pq.write_table(table, tmp_path / "labels.parquet")
    return tmp_path / "rows.npy", tmp_path / "labels.parquet"


def test_an_array_and_labels_row_by_row(own: tuple[Path, Path]) -> None:
    result = run(own[0], "--labels", own[1], "--folds", "2", "--group-column", "family")
    assert list(result["ways"]) == ["linear probe"]
    assert (result["counts"]["present"], result["counts"]["absent"]) == (15, 15)
    assert result["ways"]["linear probe"]["auc"] > 0.9


def test_no_group_is_trained_on_and_counted(own: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def recorded(*arguments: object, **options: object) -> LinearProbe:
        trained.append(np.bincount(options["groups"], minlength=8))
        return train_probe(*arguments, **options)

    monkeypatch.setattr(real, "train_probe", recorded)
    rows = real.read(real.arguments([str(own[0]), "--labels", str(own[1]), "--group-column", "family"]))
    scores = real.held_out_scores(rows, 2)
    assert np.isfinite(scores).all()
    whole = np.unique(rows.groups, return_counts=True)[1]
    assert len(trained) == 2
    for counts in trained:
        assert set(np.flatnonzero(counts)) == set(np.flatnonzero(counts == whole))
    np.testing.assert_array_equal(sum(trained), whole)


def test_a_picture_seen_in_several_views_scores_as_the_highest_of_them(laid: Path, probes: Path) -> None:
    rows = real_laion.read_laion(laid)
    views = np.stack([rows.vectors, rows.vectors[::-1]], axis=1)
    scores = real.given_scores(replace(rows, vectors=views), str(probes))
    one = real.given_scores(rows, str(probes))
    np.testing.assert_allclose(scores, np.maximum(one, one[::-1]), atol=1e-6)
    views[0, 1] = np.nan
    assert not replace(rows, vectors=views).scorable[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--signal", "age"], "no column 'age'"),
        (["--encoder", "ViT-B-32-quickgelu/openai"], "width 768, and those of ViT-B-32-quickgelu/openai have 512"),
        (["--encoder", "none/such"], "none"),
        (["--group-column", "none"], "no column 'none'"),
    ],
)
def test_what_does_not_fit_is_refused(own: tuple[Path, Path], words: list[str], message: str) -> None:
    with pytest.raises(SafetyFilterError, match=message):
        real.read(real.arguments([str(own[0]), "--labels", str(own[1]), *words]))


def test_labels_of_another_length_are_refused(own: tuple[Path, Path]) -> None:
    pq.write_table(pa.table({"minor": [True, False]}), own[1])
    with pytest.raises(CalibrationError, match=r"30 rows and .* 2; give a label a row"):
        real.read(real.arguments([str(own[0]), "--labels", str(own[1])]))
