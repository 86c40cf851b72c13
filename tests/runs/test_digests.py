"""The order of digests is that of their bytes, whatever they are; digests of texts are those of keys."""

import numpy as np
import pyarrow as pa
import pytest

from safetyfilter.runs import digests as digests_module
from safetyfilter.runs.digests import Digester, digest_order, in_order, rows_in_order

DIGESTER = Digester(b"s" * 32)
KEYS = ["a.jpg", "", "写真/é.png", "x" * 500, "\0", "a.jpg"]


def made(count: int, kind: str) -> np.ndarray:
    digests = np.random.default_rng(count).integers(0, 256, (count, 16), dtype=np.uint8)
    match kind:
        case "few":
            digests[:, :15], digests[:, 15] = 0, digests[:, 15] % 3
        case "same":
            digests[:] = 7
        case "begin alike":
            digests[:, :6] = 0
    return digests


@pytest.mark.parametrize("kind", ["random", "few", "same", "begin alike"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 65_537])
def test_the_order_is_that_of_the_bytes_and_equal_ones_keep_theirs(count: int, kind: str) -> None:
    digests = made(count, kind)
    order = digest_order(digests)
    rows = [digest.tobytes() for digest in digests]
    assert order.tolist() == sorted(range(count), key=rows.__getitem__)
    ordered = rows_in_order(digests, order)
    np.testing.assert_array_equal(ordered, digests[order])
    assert ordered.flags.c_contiguous
    assert in_order(ordered)


def test_what_is_not_in_order_is_told() -> None:
    digests = made(1000, "random")
    ordered = rows_in_order(digests, digest_order(digests))
    ordered[[400, 401]] = ordered[[401, 400]]
    assert not in_order(ordered)
    assert not in_order(np.uint8([[0] * 15 + [2], [0] * 15 + [1]]))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("compiled", [True, False])
def test_digests_of_texts_are_those_of_keys(kind: pa.DataType, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(digests_module, "native", lambda: None)
    texts = pa.array(KEYS, kind)
    np.testing.assert_array_equal(DIGESTER.texts(texts), DIGESTER.keys(KEYS))
    np.testing.assert_array_equal(DIGESTER.texts(texts.slice(2, 3)), DIGESTER.keys(KEYS[2:5]))
    assert DIGESTER.texts(texts.slice(0, 0)).shape == (0, 16)
    found = DIGESTER.texts(pa.array(["a", None, "b"], kind))
    np.testing.assert_array_equal(found[[0, 2]], DIGESTER.keys(["a", "b"]))
