"""Files in the form of LAION's published detectors: the published ones where they are, and small ones made here."""

import io
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from safetyfilter.score.convert.tensor_bundle import masked_crc32c

DATA = Path(os.environ.get("SAFETYFILTER_LAION", Path(__file__).parents[3] / "shared" / "data" / "laion"))
"""A folder with LAION's two zip files, and arrays of inputs and the original's outputs."""
ZIPS = {"laion-l14": "clip_autokeras_binary_nsfw.zip", "laion-b32": "clip_autokeras_nsfw_b32.zip"}
WHY = f"LAION's detectors are not at {DATA}; SAFETYFILTER_LAION names their folder"

INDEX, WEIGHTS, MODEL = "variables/variables.index", "variables/variables.data-00000-of-00001", "saved_model.pb"
DT_FLOAT, DT_STRING, DT_INT64 = 1, 7, 9

needs_laion = pytest.mark.skipif(not DATA.is_dir(), reason=WHY)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """The numbers of a small detector, from which its files are written and its outputs computed."""

    mean: np.ndarray
    variance: np.ndarray
    layers: Sequence[tuple[np.ndarray, np.ndarray]]
    vocabularies: Mapping[int, Sequence[str]]

    @classmethod
    def random(cls, width: int = 512, columns: Sequence[int] = (3, 92, 133), seed: int = 0) -> "Network":
        rng = np.random.default_rng(seed)
        widths = (width, 6, 4, 1)
        values = rng.permutation(np.arange(-1200, 1200))[: 60 * len(columns)].reshape(-1, 60) / 1024
        return cls(
            mean=rng.normal(size=width).astype(np.float32),
            variance=rng.uniform(100, 200, width).astype(np.float32),
            layers=[
                (rng.normal(size=(a, b)).astype(np.float32), rng.normal(size=b).astype(np.float32))
                for a, b in pairwise(widths)
            ],
            vocabularies={
                column: [f"{value:f}" for value in words.tolist()]
                for column, words in zip(columns, values, strict=True)
            },
        )

    def vectors(self, count: int = 200) -> np.ndarray:
        """(N, D) float32 that float16 holds, half of them with words of the vocabularies in their columns."""
        rng = np.random.default_rng(1)
        x = rng.normal(size=(count, len(self.mean)))
        for column, words in self.vocabularies.items():
            x[: count // 2, column] = rng.choice(words, count // 2).astype(float)
        return x.astype(np.float16).astype(np.float32)

    def output(self, vector: np.ndarray) -> float:
        """The published network on one vector, by printing and looking up, as AutoKeras does."""
        x = vector.astype(float)
        for column, words in self.vocabularies.items():
            text = f"{vector[column]:f}"
            x[column] = words.index(text) + 1 if text in words else 0
        x = (x - self.mean) / np.maximum(np.sqrt(self.variance), 1e-7)
        for number, (weight, bias) in enumerate(self.layers):
            x = x @ weight.astype(float) + bias
            if number < len(self.layers) - 1:
                x = x.clip(min=0)
        return float(1 / (1 + np.exp(-x[0])))

    def files(self) -> dict[str, bytes]:
        """The members of its zip file."""
        tensors = {"layer_with_weights-1/mean": self.mean, "layer_with_weights-1/variance": self.variance}
        for number, (weight, bias) in enumerate(self.layers, start=2):
            tensors |= {f"layer_with_weights-{number}/kernel": weight, f"layer_with_weights-{number}/bias": bias}
        data, entries = b"", {b"": number_field(1, 1)}
        for name, tensor in tensors.items():
            raw = tensor.astype("<f4").tobytes()
            entries[f"{name}/.ATTRIBUTES/VARIABLE_VALUE".encode()] = b"".join(
                [
                    number_field(1, DT_FLOAT),
                    bytes_field(2, shape(tensor.shape)),
                    number_field(4, len(data)),
                    number_field(5, len(raw)),
                    varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(raw)),
                ]
            )
            data += raw
        for column in self.vocabularies:
            key = f"layer_with_weights-0/encoding_layers/{column}/token_counts/.ATTRIBUTES/table-keys"
            entries[key.encode()] = (
                number_field(1, DT_STRING) + bytes_field(2, shape((1,))) + varint(6 << 3 | 5) + bytes(4)
            )
        nodes = b"".join(constant(DT_STRING, words) + constant(DT_INT64, words) for words in self.vocabularies.values())
        model = bytes_field(2, bytes_field(2, bytes_field(1, bytes_field(2, b"Placeholder")) + nodes))
        return {MODEL: model, INDEX: index_file(entries), WEIGHTS: data, "keras_metadata.pb": b"metadata"}

    def zipped(self) -> bytes:
        """Its zip file."""
        return packed(self.files())


def varint(value: int) -> bytes:
    """A number in protobuf's and LevelDB's form."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def number_field(number: int, value: int) -> bytes:
    """A whole-number field of a message."""
    return varint(number << 3) + varint(value)


def bytes_field(number: int, content: bytes) -> bytes:
    """A field of bytes, or of a message, of a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def shape(sizes: Sequence[int]) -> bytes:
    """A tensor's shape as a message."""
    return b"".join(bytes_field(2, number_field(1, size)) for size in sizes)


def constant(dtype: int, words: Sequence[str]) -> bytes:
    """A node of the graph that holds a vocabulary's words, or their places."""
    content = (
        b"".join(bytes_field(8, word.encode()) for word in words)
        if dtype == DT_STRING
        else bytes_field(4, np.arange(1, len(words) + 1, dtype="<i8").tobytes())
    )
    tensor = number_field(1, dtype) + bytes_field(2, shape((len(words),))) + content
    value = bytes_field(5, bytes_field(1, b"value") + bytes_field(2, bytes_field(8, tensor)))
    return bytes_field(1, bytes_field(1, b"a constant") + bytes_field(2, b"Const") + value)


def index_file(entries: Mapping[bytes, bytes]) -> bytes:
    """A LevelDB table of two data blocks."""
    names = sorted(entries)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    content, handles = b"", {}
    for half in halves:
        one = block({name: entries[name] for name in half})
        handles[half[-1]] = varint(len(content)) + varint(len(one) - 5)
        content += one
    ends = []
    for one in (block({}), block(handles)):
        ends.append(varint(len(content)) + varint(len(one) - 5))
        content += one
    return content + b"".join(ends).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def block(entries: Mapping[bytes, bytes]) -> bytes:
    """A block of keys, each without the prefix it shares with the one before, and its trailer."""
    content, before = b"", b""
    for key, value in entries.items():
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(len(before), len(key))
        )
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    content += struct.pack("<II", 0, 1) + b"\0"
    return content + struct.pack("<I", masked_crc32c(content))


def packed(files: Mapping[str, bytes], root: str = "detector/") -> bytes:
    """A zip file of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(root + name, content)
    return buffer.getvalue()


@lru_cache
def published_files(name: str) -> dict[str, bytes]:
    """The members of one of LAION's own zip files."""
    with zipfile.ZipFile(DATA / ZIPS[name]) as archive:
        return {n.split("/", 1)[1]: archive.read(n) for n in archive.namelist() if not n.endswith("/")}
