"""What every reader returns: inputs, labels and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["DataError", "Dataset"]


class DataError(ValueError):
    """A file that cannot be used; the message says which, what is wrong, and what is expected, in one line."""


@dataclass(frozen=True)
class Dataset:
    """Labelled examples.

    Attributes
    ----------
    inputs
        ``(N, H, W)`` or ``(N, H, W, 3)`` uint8 images, or ``(N, F)`` floating-point features.
    labels
        ``(N,)`` int64, each in ``[0, len(class_names))``.
    class_names
        One name a class, in the order of the labels.
    split
        ``"train"``, ``"test"`` or ``"all"``.
    name
        What the data is called where it is reported (``"digits"``, ``"CIFAR-10"``, a file's name).
    """

    inputs: NDArray[np.generic] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    class_names: tuple[str, ...]
    split: str
    name: str

    @property
    def has_images(self) -> bool:
        """Whether the inputs are images."""
        return self.inputs.ndim in (3, 4)

    def features(self) -> NDArray[np.floating]:
        """Return the inputs as ``(N, F)`` rows, images as float32 pixels in [0, 1]."""
        rows = self.inputs.reshape(len(self.inputs), -1)
        if self.inputs.dtype == np.uint8:
            return rows.astype(np.float32) / np.float32(255)
        return rows  # type: ignore[return-value]
