"""Training from webdataset pipelines: no co-occurring picture ever reaches the model."""

import io
import itertools
import pickle
import tarfile

import numpy as np
import pytest
import webdataset
from torch.utils.data import DataLoader

from safetyfilter import Policy, SafetyFilter, open_source
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.webdataset import ShardKeys, safety_filter
from tests.loaders.training import BY_AND_WORKERS, Diffusion, Pictures, check, seen, stack, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # four workers on a small machine
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # webdataset leaves its tars to the collector
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]


def pipeline(pictures: Pictures, shuffle: bool = False) -> webdataset.WebDataset:
    urls = [str(path) for path in sorted(pictures.tars.rglob("*.tar"))]
    return webdataset.WebDataset(urls, shardshuffle=4 if shuffle else False, seed=2)


def loader(data, workers: int, **options) -> DataLoader:
    return DataLoader(data, batch_size=7, num_workers=workers, collate_fn=stack, **options)


@pytest.mark.parametrize(("by", "workers"), BY_AND_WORKERS)
def test_training_two_epochs_shuffled(pictures: Pictures, catching: SafetyFilter, workers: int, by: str) -> None:
    stage = (
        safety_filter(catching)
        if by == "filter"
        else safety_filter(pictures.tars_run, root=pictures.tars, verify_content=by == "content")
    )
    data = pipeline(pictures, shuffle=True).compose(stage).shuffle(20)
    batches = loader(data, workers, persistent_workers=workers == 2)
    model = Diffusion()
    for _ in range(2):
        train(batches, model)
    report = stage.filter_report()
    assert report["seen"] == report["kept"] + report["excluded"] == 2 * len(pictures.keys)
    assert report["kept"] == len(model.seen)
    assert report["unscored"] == 4
    if by == "filter":
        assert not [number for number in seen(model, pictures) if not pictures.keep[number]]
    else:
        check(model, pictures, epochs=2)


@pytest.mark.parametrize("by", ["run", "filter"])
def test_order_members_and_a_resumed_epoch(pictures: Pictures, catching: SafetyFilter, by: str) -> None:
    stage = safety_filter(pictures.tars_run if by == "run" else catching, root=pictures.tars)
    whole = list(pipeline(pictures) | stage)
    keys = [sample["__key__"] for sample in whole]
    assert keys == sorted(keys)
    originals = {sample["__key__"]: sample for sample in pipeline(pictures)}
    assert all(sample == originals[sample["__key__"]] for sample in whole)  # byte for byte, caption and all
    rest = list(itertools.islice(pipeline(pictures) | stage, 10, None))
    assert rest == whole[10:]
    model = train([stack(whole[:10]), stack(rest)])
    if by == "run":
        check(model, pictures)
    assert not [number for number in seen(model, pictures) if not pictures.keep[number]]


def test_in_a_pipeline_of_stages_and_on_a_plain_iterator(pictures: Pictures) -> None:
    stage = safety_filter(pictures.tars_run, root=pictures.tars)
    urls = [str(path) for path in sorted(pictures.tars.rglob("*.tar"))]
    stages = webdataset.DataPipeline(
        webdataset.SimpleShardList(urls),
        webdataset.tarfile_to_samples(),
        stage,
        webdataset.decode("pil"),
        webdataset.to_tuple("jpg", "txt"),
    )
    decoded = list(stages)
    assert len(decoded) == pictures.keep.sum()
    assert decoded[0][0].size == (64, 64)
    assert len(list(iter(list(pipeline(pictures))) | stage)) == len(decoded)


@pytest.mark.parametrize("root", ["", "deep", "deep/*.tar", "deep/{0..3}.tar", "deep/1.tar"])
@pytest.mark.parametrize("url", ["{}/", "", "file:{}/", "file://{}/"])
def test_keys_are_those_of_the_scan(pictures: Pictures, monkeypatch, root: str, url: str) -> None:
    monkeypatch.chdir(pictures.tars)
    source = open_source(str(pictures.tars / root).rstrip("/"))
    expected = [sample.key for part in source.parts() for sample in source.samples(part) if "1.tar" in sample.key]
    for given in (pictures.tars / root, root or ".", f"./{root}"):
        shards = ShardKeys(str(given))
        data = webdataset.WebDataset(f"{url.format(pictures.tars)}deep/1.tar", shardshuffle=False)
        assert [shards(sample) for sample in data] == expected
    assert ShardKeys("s3://bucket/data")({"__url__": "s3://bucket/data/a/1.tar", "__key__": "x"}) == "a/1.tar/x"
    assert ShardKeys(str(pictures.tars))({"__url__": "pipe:cat deep/1.tar", "__key__": "x"}) is None


@pytest.mark.parametrize(
    ("root", "url", "shard"),
    [
        ("s3://bucket/data", "s3://bucket/data/a/1.tar?versionId=7", "a/1.tar"),
        ("s3://bucket/data/", "s3://bucket/data/1.tar", "1.tar"),
        ("s3://bucket/data/{0..9}.tar", "s3://bucket/data/1.tar#fragment", "1.tar"),
        ("s3://bucket/data", "s3://bucket/data/1?.tar", "1?.tar"),  # a name like any other
        ("s3://bucket/data", "s3://bucket/data/1.tar?a=b.tar", "1.tar?a=b.tar"),  # could be one too: the scan knows
        ("https://host/data", "https://host/data/1.tar?signature=x", "1.tar"),
        ("s3://bucket/data", "s3://bucket/data2/1.tar", None),
        ("s3://bucket/data", "s3://bucket/data", None),
        ("s3://bucket/data", "pipe:aws s3 cp s3://bucket/data/1.tar -", None),
        ("s3://bucket/data", "/bucket/data/1.tar", None),
        ("gs://bucket/data", "s3://bucket/data/1.tar", None),
    ],
)
def test_shards_by_url(root: str, url: str, shard: str | None) -> None:
    key = ShardKeys(root)({"__url__": url, "__key__": "x"})
    assert key == (None if shard is None else f"{shard}/x")


def test_a_command_is_not_run_and_what_it_would_give_is_unknown(pictures: Pictures, tmp_path) -> None:
    stage = safety_filter(pictures.tars_run, root=pictures.tars)
    kept = int(np.flatnonzero(pictures.keep)[0])
    sample = {"__key__": f"{kept:03d}", "jpg": pictures.content(kept)}
    samples = [
        {**sample, "__url__": f"pipe:touch {tmp_path}/run; cat {pictures.tars}/deep/0.tar"},
        {**sample, "__url__": str(pictures.tars / "deep" / f"{kept // 24}.tar")},
    ]
    assert list(stage(samples)) == samples[1:]
    assert stage.filter_report()["unknown"] == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["set[1]", "a{b", "what?", "all*"])
def test_a_folder_is_one_whatever_its_name_holds(pictures: Pictures, tmp_path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "0.tar").write_bytes((pictures.tars / "deep" / "0.tar").read_bytes())
    source = open_source(tmp_path / name)
    keys = {sample.key for part in source.parts() for sample in source.samples(part)}
    assert ShardKeys(str(tmp_path / name))({"__url__": f"{tmp_path}/{name}/0.tar", "__key__": "000"}) in keys
    assert ShardKeys(f"{tmp_path}/0.tar.gz")({"__url__": f"{tmp_path}/0.tar.gz", "__key__": "a"}) == "0.tar.gz/a"


def test_a_shard_of_the_same_name_elsewhere_is_unknown(pictures: Pictures, tmp_path) -> None:
    (tmp_path / "1.tar").write_bytes((pictures.tars / "deep" / "1.tar").read_bytes())
    stage = safety_filter(pictures.tars_run, root=pictures.tars)
    with pytest.raises(RunError, match="knows none of the first 24 samples"):
        list(webdataset.WebDataset(str(tmp_path / "1.tar"), shardshuffle=False) | stage)


def test_broken_samples_are_excluded_with_their_reason(pictures: Pictures, tmp_path) -> None:
    first = int(np.flatnonzero(pictures.keep)[0])
    url = str(pictures.tars / "deep" / "0.tar")
    good = {"__key__": f"{first:03d}", "__url__": url, "jpg": pictures.content(first)}
    samples = [
        good,
        {"__url__": url},
        {"__key__": "000"},
        {},
        None,
        {**good, "__key__": "999"},
        {**good, "jpg": good["jpg"] + b"\0"},
        {"__key__": good["__key__"], "__url__": url, "txt": b""},
        {**good, "png": b"two"},
        good,
    ]
    stage = safety_filter(pictures.tars_run, root=pictures.tars, verify_content=True)
    assert list(stage(samples)) == [good, good]
    report = stage.filter_report()
    assert {name: count for name, count in report.items() if count} == {
        "seen": 10,
        "kept": 2,
        "excluded": 8,
        "unknown": 5,
        "drifted": 3,
    }
    assert len(pickle.loads(pickle.dumps(stage)).filter_report()) == len(report)


def test_online_broken_samples_are_unscored(pictures: Pictures, catching: SafetyFilter) -> None:
    stage = safety_filter(catching.with_policy(Policy(thresholds={"explicit": 1, "minor": 1})))
    good = {"__key__": "a", "jpg": pictures.content(0)}
    assert list(stage([{"jpg": b"no"}, {}, {"jpg": b"", "png": b""}, good])) == [good]
    assert stage.filter_report()["unscored"] == 3


def test_a_damaged_shard_loses_its_rest_and_no_more(pictures: Pictures, tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    for path in sorted(pictures.tars.rglob("*.tar")):
        content = path.read_bytes()
        end = len(content) // 2 + 100 if path.name == "1.tar" else len(content)
        (tmp_path / "deep" / path.name).write_bytes(content[:end])
    data = webdataset.WebDataset(
        [str(tmp_path / "deep" / f"{number}.tar") for number in range(4)],
        shardshuffle=False,
        handler=webdataset.ignore_and_continue,
    )
    stage = safety_filter(pictures.tars_run, root=tmp_path, verify_content=True)
    counts = seen(train(loader(data | stage, 0)), pictures)
    kept = np.flatnonzero(pictures.keep)
    assert set(kept[(kept < 24) | (kept >= 48)].tolist()) <= set(counts) < set(kept.tolist())


@pytest.mark.parametrize("how", ["pil", "rgb", "torchrgb"])
@pytest.mark.parametrize("verify", [False, True])
def test_after_decoding_is_too_late(pictures: Pictures, verify: bool, how: str) -> None:
    stage = safety_filter(pictures.tars_run, root=pictures.tars, verify_content=verify)
    decoded = pipeline(pictures).decode(how, handler=webdataset.ignore_and_continue)
    with pytest.raises(UsageError, match="put the stage before"):
        next(iter(decoded | stage))
    other = safety_filter(pictures.tars_run, root=pictures.tars, image_field="png")
    with pytest.raises(UsageError, match=r"not one of the first.*before \.decode"):
        list(pipeline(pictures) | other)


def test_a_stage_without_a_root(pictures: Pictures) -> None:
    with pytest.raises(UsageError, match="root="):
        safety_filter(pictures.tars_run)


def test_a_thousand_samples_of_another_source(pictures: Pictures, tmp_path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in range(1500):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    stage = safety_filter(pictures.tars_run, root=tmp_path)
    data = webdataset.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False).compose(stage)
    with pytest.raises(RunError, match="none of the first 1000 samples"):
        list(data)


def test_another_source_with_the_same_names_is_an_error_before_anything_passes(pictures: Pictures, tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    paths = sorted(pictures.tars.rglob("*.tar"))
    for path, other in zip(paths, [*paths[1:], paths[0]], strict=True):
        with webdataset.TarWriter(str(tmp_path / "deep" / path.name), encoder=False) as tar:
            for mine, others in zip(
                *(webdataset.WebDataset(str(p), shardshuffle=False) for p in (path, other)), strict=True
            ):
                tar.write({"__key__": mine["__key__"], "jpg": others["jpg"]})
    urls = [str(path) for path in sorted((tmp_path / "deep").iterdir())]
    passed = []
    with pytest.raises(RunError, match="are not those that the run"):
        passed.extend(webdataset.WebDataset(urls, shardshuffle=False) | safety_filter(pictures.tars_run, root=tmp_path))
    assert passed == []
