"""Read the digits, CIFAR-10, MNIST's family, and arrays and tables of your own as a `Dataset`.

Every reader checks sizes before it allocates memory and checksums before it uses contents, executes nothing from a
file, and raises `DataError` with a message of one line.
"""

from __future__ import annotations

from softnll.data.dataset import DataError, Dataset
from softnll.data.download import DownloadError
from softnll.data.load import NAMES, load
from softnll.data.text import printable

__all__ = ["NAMES", "DataError", "Dataset", "DownloadError", "load", "printable"]
