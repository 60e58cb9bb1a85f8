"""Data in, `Dataset` out: the digits, CIFAR-10, MNIST's family, and arrays and tables of your own.

Every reader checks what it reads (sizes before memory, checksums before contents), executes nothing from a file, and
refuses what does not fit with a `DataError` of one line.
"""

from __future__ import annotations

from softnll.data.dataset import DataError, Dataset
from softnll.data.download import DownloadError
from softnll.data.load import NAMES, load
from softnll.data.text import printable

__all__ = ["NAMES", "DataError", "Dataset", "DownloadError", "load", "printable"]
