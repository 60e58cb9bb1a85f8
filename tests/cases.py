"""One table of cases: rows of logits that are hard to get right, and options in every combination."""

from __future__ import annotations

from itertools import product

import ml_dtypes
import numpy as np

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

# NUMERICS §5: three images, three classes (cat, dog, horse).
SCORES = np.array([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]])
TRUE = np.array([0, 2, 1])
PROBABILITIES = np.array(
    [[0.705385, 0.259496, 0.035119], [0.017943, 0.002428, 0.979629], [0.487856, 0.487856, 0.024289]]
)
LOSSES = np.array([0.349012, 0.020581, 0.717736])
GRADIENTS = np.array(
    [[-0.294615, 0.259496, 0.035119], [0.017943, 0.002428, -0.020371], [0.487856, -0.512144, 0.024289]]
)


def hard_rows(dtype):
    """Return rows (all of four classes) in this type: gaps, ties, offsets, subnormal results, spreads."""
    dtype = np.dtype(dtype)
    wide = dtype == np.float64
    rng = np.random.default_rng(1)
    largest_gap = {"float64": 745.0, "float32": 104.0, "float16": 20.0, "bfloat16": 100.0}[dtype.name]
    offsets = [0.0, 1e3, -1e3] if dtype.name == "float16" else [0.0, 1e3, -1e3, 1e6, -1e6]
    rows = []
    for gap in np.concatenate([np.linspace(0, largest_gap, 60), [1e-3, 17.0, 16.6355, 36.7, 37.4, 88.0, 103.9]]):
        rows += [[gap, 0.0, 0.0, 0.0], [0.0, gap, gap, 0.0], [0.0, 0.0, gap, -gap], [gap, gap, gap, gap]]
    for offset in offsets:
        rows += [(offset + rng.normal(size=4) * scale).tolist() for scale in (1e-3, 1.0, 10.0, 100.0) for _ in range(3)]
    rows += [[0.1, 0.1, 0.1, 0.1], [-0.0, 0.0, 0.0, -0.0], [1e-30, 0.0, -1e-30, 1e-38]]
    if wide:
        rows += [[-708.5, 0.0, -740.0, -745.2], [1e-300, 1e-310, 0.0, -1e-305], [1e6 + 0.1, 1e6 - 0.3, 1e6, 3.7]]
    return np.array(rows).astype(dtype)


# Every option at rest and at work. What depends on shapes is made by the tests for three rows of four classes.
OPTIONS = {
    "label_smoothing": [0.0, 0.1],
    "z_loss": [0.0, 0.02],
    "softcap": [None, 3.0],
    "temperature": [1.0, 2.5, np.array([0.5, 1.0, 3.0])],
    "class_weight": [None, np.array([1.0, 0.5, 2.0, 0.25])],
    "sample_weight": [None, np.array([0.5, 2.0, 0.0])],
    "reduction": ["mean", "sum", "none"],
}
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in product(*OPTIONS.values())]
LOGITS = np.array([[0.3, -1.2, 2.0, 0.7], [4.0, 1.5, -2.5, 0.0], [-0.6, 0.9, 1.1, -3.0]])
HARD = np.array([2, 1, 0])
SOFT = np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.5, 0.0]])
MASK = np.array([[True, True, True, False], [True, True, True, True], [True, False, True, True]])
MASKED_SOFT = np.array([[0.1, 0.4, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.25, 0.0, 0.5, 0.25]])
