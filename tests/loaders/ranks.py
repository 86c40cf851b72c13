"""One of two ranks: reads each kind of loader and writes down which pictures reached its model."""

import pickle
from pathlib import Path

import datasets
import torch.distributed
import webdataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader, DistributedSampler

from safetyfilter.loaders.datasets import filter_dataset
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.loaders.webdataset import safety_filter
from tests.loaders.training import Diffusion, FolderPictures, Pictures, Stream, decoded, only_images, seen, stack


def one_rank(rank: int, pictures: Pictures, place: Path) -> None:
    """Read the loaders as rank so-and-so of two, in a process of its own."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=2)
    mapped = SafeDataset(FolderPictures(pictures.folder, pictures.keys), pictures.folder_run, keys=pictures.keys)
    sampler = DistributedSampler(mapped, shuffle=True, seed=4)
    iterable = SafeIterable(Stream(pictures.folder, pictures.keys), pictures.folder_run, key="key")
    tars = webdataset.WebDataset(
        [str(path) for path in sorted(pictures.tars.rglob("*.tar"))],
        shardshuffle=False,
        nodesplitter=webdataset.split_by_node,
    )
    rows = filter_dataset(datasets.load_from_disk(pictures.saved), pictures.saved_run)
    rows = split_dataset_by_node(rows, rank, 2).with_transform(decoded, columns=["image"])
    loaders = {
        "map": DataLoader(mapped, batch_size=8, sampler=sampler),
        "iterable": DataLoader(iterable, batch_size=8, num_workers=2, collate_fn=stack),
        "webdataset": DataLoader(
            tars.compose(safety_filter(pictures.tars_run, root=pictures.tars)),
            batch_size=8,
            num_workers=2,
            collate_fn=stack,
        ),
        "datasets": DataLoader(rows, batch_size=8, collate_fn=only_images),
    }
    for kind, loader in loaders.items():
        model = Diffusion()
        with torch.no_grad():
            for images in loader:
                model(images)
        (place / f"{kind}-{rank}").write_bytes(pickle.dumps(dict(seen(model, pictures))))
    torch.distributed.destroy_process_group()
