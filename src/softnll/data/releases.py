"""The two official releases of CIFAR-10: names, sizes and checksums of their files.

From https://www.cs.toronto.edu/~kriz/cifar.html (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images,
2009). MD5 identifies an official file; it does not protect against forgery, and need not, since files are only read as
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BINARY", "BINARY_SHA256", "BINARY_SIZE", "BINARY_URL", "CLASS_NAMES", "PYTHON", "Release"]

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

BINARY_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
BINARY_SIZE = 170_052_171
BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


@dataclass(frozen=True)
class Release:
    """One release: the files of its folder, which its archive holds as ``folder/file``."""

    archive: str
    folder: str
    batches: tuple[str, ...]  # the files with images, training batches first, the test batch last
    meta: str  # the file with the class names
    limits: Mapping[str, int]  # bytes of each file: exact for the binary batches, the largest allowed for all others
    md5: Mapping[str, str]  # of each file; a file without one has its contents compared instead
    records: int  # images a batch
    pickled: bool


_STEMS = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
_README = "readme.html"

_BINARY_MD5 = (
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
    "803d5f7f4d78ea53de84dbe85f74fb6d",
)
_PYTHON_MD5 = (
    "c99cafc152244af753f735de768cd75f",
    "d4bba439e000b95fd0a9bffe97cbabec",
    "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a",
    "482c414d41f54cd18b22e5b47cb7c3cb",
    "40351d587109b95175f43aff81a1287e",
)

BINARY = Release(
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    batches=tuple(f"{stem}.bin" for stem in _STEMS),
    meta="batches.meta.txt",
    # A record is 1 label byte + 3 · 1024 pixels.
    limits={f"{stem}.bin": 10_000 * 3073 for stem in _STEMS} | {"batches.meta.txt": 1024, _README: 1 << 16},
    md5={f"{stem}.bin": md5 for stem, md5 in zip(_STEMS, _BINARY_MD5, strict=True)},
    records=10_000,
    pickled=False,
)

PYTHON = Release(
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    batches=_STEMS,
    meta="batches.meta",
    limits=dict.fromkeys(_STEMS, 32_000_000) | {"batches.meta": 1024, _README: 1 << 16},
    md5=dict(zip(_STEMS, _PYTHON_MD5, strict=True)) | {"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    records=10_000,
    pickled=True,
)
