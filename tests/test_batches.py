"""Batches refuse arrays that don't fit together."""

import numpy as np
import pytest

from safetyfilter.batches import STATUS_CODES, EmbeddingBatch

X = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("others", "owners", "message"),
    [
        (X, None, "come together"),
        (None, np.array([0]), "come together"),
        (X.astype(np.float64), np.arange(3), "float32 of the vectors' shape"),
        (X[:, :2], np.arange(3), "float32 of the vectors' shape"),
        (X[:, None], np.arange(3), "float32 of the vectors' shape"),
        (X, np.arange(2), "int64 row each"),
        (X, np.arange(3, dtype=np.int32), "int64 row each"),
        (X, np.arange(1, 4), "rows below 3"),
        (X, np.arange(-1, 2), "rows below 3"),
    ],
)
def test_other_pictures_belong_to_rows(others: np.ndarray | None, owners: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingBatch(vectors=X, encoder="e", others=others, owners=owners)


def test_a_batch_without_other_pictures_has_none_of_the_right_shape() -> None:
    batch = EmbeddingBatch(vectors=X[:, None], encoder="e")
    assert batch.others.shape == (0, 1, 3)
    assert batch.owners.dtype == np.int64


def test_joined_batches_keep_rows_statuses_and_owners() -> None:
    status = np.uint8([0, STATUS_CODES["empty"], 0])
    one = EmbeddingBatch(vectors=X, encoder="e", status=status, others=X[:2], owners=np.array([0, 2]))
    both = EmbeddingBatch.joined([one, EmbeddingBatch(vectors=X[:1], encoder="e"), one])
    assert both.owners.tolist() == [0, 2, 4, 6]
    assert both.failures == {1: "empty", 5: "empty"}
    assert len(both.others) == 4
    with pytest.raises(ValueError, match="different encoders"):
        EmbeddingBatch.joined([one, EmbeddingBatch(vectors=X, encoder="f")])
