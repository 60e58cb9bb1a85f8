"""`Dataset`, the result of every reader: inputs, labels and class names."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted

__all__ = ["DataError", "Dataset", "is_images"]


class DataError(ValueError):
    """A file that cannot be used; the message names it, the fault and what is expected, in one line."""


def is_images(array: NDArray[np.generic]) -> bool:
    """Whether an array holds images: uint8, ``(N, H, W)`` or ``(N, H, W, 3)``."""
    return array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled examples, checked at construction.

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
        The name of the data in reports (``"digits"``, ``"CIFAR-10"``, a file's name).
    scale
        The value of a white pixel: 255, or 16 for the digits, whose pixels are counts up to 16.
    read
        How a table was read: which column is what; "" for other files.

    Raises
    ------
    DataError
        Where shapes, types, counts or label ranges are not the ones above.
    """

    inputs: NDArray[np.generic] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    class_names: tuple[str, ...]
    split: str
    name: str
    scale: float = 255.0
    read: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        shape, dtype = self.inputs.shape, self.inputs.dtype
        if not is_images(self.inputs) and not (dtype.kind == "f" and len(shape) == 2):
            raise DataError(
                f"{self.name}: inputs of shape {shape} and type {dtype.name}; allowed are uint8 images (N, H, W) or "
                "(N, H, W, 3) and floating-point features (N, F)"
            )
        if self.labels.ndim != 1 or self.labels.dtype != np.int64:
            raise DataError(f"{self.name}: labels must be (N,) int64, got {self.labels.shape} {self.labels.dtype.name}")
        if len(self.labels) != shape[0]:
            raise DataError(f"{self.name}: {counted(shape[0], 'input')} but {counted(len(self.labels), 'label')}")
        if 0 in shape:
            raise DataError(f"{self.name}: no examples (inputs of shape {shape})")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.class_names):
            wrong = low if low < 0 else high
            raise DataError(
                f"{self.name}: label {wrong} is not one of the {counted(len(self.class_names), 'class')} (0 first)"
            )

    @property
    def has_images(self) -> bool:
        """Whether the inputs are images."""
        return is_images(self.inputs)

    def features(self) -> NDArray[np.floating]:
        """Return the inputs as ``(N, F)`` rows: images as float32 ``pixel / scale`` in [0, 1], features as they are."""
        rows = self.inputs.reshape(len(self.inputs), -1)
        if self.inputs.dtype == np.uint8:
            return rows.astype(np.float32) / np.float32(self.scale)
        return rows  # type: ignore[return-value]

    def pixels(self) -> NDArray[np.uint8]:
        """Return the images with black 0 and white 255, to look at (images only)."""
        if not self.has_images:
            raise DataError(f"{self.name}: has features, not images")
        if self.scale == 255:
            return self.inputs  # type: ignore[return-value]
        bright = self.inputs.astype(np.float32) * np.float32(255 / self.scale)
        pixels: NDArray[np.uint8] = np.rint(np.minimum(bright, np.float32(255))).astype(np.uint8)
        return pixels
