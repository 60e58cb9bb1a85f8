"""Scores in one column of lists, as frameworks write them to .parquet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_files import refused
from softnll.data import load
from softnll.data.pairs import open_pair
from softnll.data.score_files import open_labels, open_scores

SCORES = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
LABELS = np.arange(50) % 4
KINDS = {
    "list": pa.list_(pa.float32()),
    "large": pa.large_list(pa.float32()),
    "fixed": pa.list_(pa.float32(), 4),
    "wide": pa.list_(pa.float64()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_place_is_a_class(kind, tmp_path):
    path = tmp_path / "predictions.parquet"
    lists = pa.array(SCORES.tolist(), KINDS[kind])
    table = pa.table({"id": np.arange(100, 150), "logits": lists, "label": LABELS, "tokens": [[1], [2, 3]] * 25})
    pq.write_table(table, path, row_group_size=7)
    scores, _ = open_scores(path)
    assert scores.dtype == (np.float64 if kind == "wide" else np.float32)
    np.testing.assert_array_equal(np.concatenate([block for _, block in scores.blocks()]), SCORES)
    np.testing.assert_array_equal(scores.rows(np.array([5, 49, 0])), SCORES[[5, 49, 0]])
    pair = open_pair(path)
    np.testing.assert_array_equal(pair.labels, LABELS)
    assert pair.rows.shape == (50, 4)


def test_features_and_one_hot_labels(tmp_path):
    hot = pa.array(np.eye(4, dtype=int)[LABELS].tolist())
    pq.write_table(pa.table({"embedding": pa.array(SCORES.tolist()), "label": LABELS}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"y": hot}), tmp_path / "y.parquet")
    data, _ = load(tmp_path / "x.parquet")
    np.testing.assert_array_equal(data.inputs, SCORES)
    np.testing.assert_array_equal(open_labels(tmp_path / "y.parquet"), np.eye(4)[LABELS])


def test_lists_of_different_lengths_or_with_missing_numbers_are_refused(tmp_path):
    rows = SCORES.tolist()
    late = [*rows[:40], rows[40][:3], [*rows[41], 1.0], *rows[42:]]  # as many numbers as equal lists would have
    gap = [*rows[:40], [1.0, None, 2.0, 3.0], *rows[41:]]
    for name, lists, message in (
        ("ragged", [*rows[:-1], [1.0]], "has type list"),
        ("late", late, "of another length than 4"),
        ("gap", gap, "with a missing number"),
    ):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"logits": pa.array(lists)}), path)
        refused(lambda path=path: list(open_scores(path)[0].blocks()), f"{name}.parquet", message)
