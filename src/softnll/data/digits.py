"""The 8 × 8 handwritten digits that are part of scikit-learn: data that needs no download."""

from __future__ import annotations

import numpy as np

from softnll.data.dataset import Dataset

__all__ = ["load_digits"]


def load_digits() -> tuple[Dataset, Dataset]:
    """Return the digits, first half to train, second half to test (898 and 899 images of 8 × 8).

    A pixel is the number of black pixels in a 4 × 4 block of the scan, 0 … 16; it is kept, with ``scale = 16``, and
    ``features()`` returns X / 16 exactly, because 16 is a power of two. The halves are scikit-learn's own: different
    people wrote them, so a random split would give a better score.

    Raises
    ------
    ModuleNotFoundError
        Without scikit-learn.

    Examples
    --------
    >>> train, test = load_digits()
    >>> train.inputs.shape, test.inputs.shape, train.scale
    ((898, 8, 8), (899, 8, 8), 16.0)
    """
    try:
        from sklearn import datasets  # noqa: PLC0415 - costs a second, and only the digits need it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the digits come with scikit-learn: pip install 'softnll[app]'") from error

    bunch = datasets.load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    half = len(labels) // 2
    names = tuple("0123456789")
    return (
        Dataset(images[:half], labels[:half], names, "train", "digits", scale=16.0),
        Dataset(images[half:], labels[half:], names, "test", "digits", scale=16.0),
    )
