"""One of two ranks: trains on each kind of loader and writes down which pictures reached its model."""

import pickle
import sys
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
from tests.loaders.training import FolderPictures, Stream, decoded, only_images, seen, stack, train


def main(place: Path) -> None:
    pictures = pickle.loads((place / "pictures").read_bytes())
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
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
        "map": DataLoader(mapped, batch_size=8, sampler=sampler, num_workers=2),
        "iterable": DataLoader(iterable, batch_size=8, num_workers=2, collate_fn=stack),
        "webdataset": DataLoader(
            tars.compose(safety_filter(pictures.tars_run, root=pictures.tars)),
            batch_size=8,
            num_workers=2,
            collate_fn=stack,
        ),
        "datasets": DataLoader(rows, batch_size=8, collate_fn=only_images, num_workers=2),
    }
    for kind, loader in loaders.items():
        (place / f"{kind}-{rank}").write_bytes(pickle.dumps(dict(seen(train(loader), pictures))))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
