"""The types of arrays in the overloads of the public functions: a result has the type and the shape of an argument."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

Shape = TypeVar("Shape", bound=tuple[int, ...])
Float = TypeVar("Float", bound=np.floating[Any])  # of logits, and of what has their type
Loss = TypeVar("Loss", np.float32, np.float64)  # of logits whose losses have the same type; half types' are float32
