"""Small files of every format, made byte by byte; used by the tests of the readers."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
import tarfile

import numpy as np
import pytest

from softnll.data import DataError
from softnll.data.cifar10 import BINARY, CLASS_NAMES

RECORDS = 4


class CPickle:
    """Writes protocol 2 with the opcodes of Python 2's cPickle: SHORT_BINSTRING, no unicode, memo from 1."""

    def __init__(self, numpy_core="numpy.core.multiarray"):
        self.out = bytearray(b"\x80\x02")
        self.count = 0
        self.core = numpy_core

    def put(self):
        self.count += 1
        self.out += b"q" + bytes([self.count]) if self.count < 256 else b"r" + struct.pack("<I", self.count)
        return self

    def raw(self, data):
        self.out += data
        return self

    def string(self, data, *, memo=True):
        self.out += (b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))) + data
        return self.put() if memo else self

    def number(self, value):
        if 0 <= value < 256:
            self.out += b"K" + bytes([value])
        elif 0 <= value < 65536:
            self.out += b"M" + struct.pack("<H", value)
        else:
            self.out += b"J" + struct.pack("<i", value)
        return self

    def items(self, values, write):
        """A list, in batches of 1000 as cPickle wrote them."""
        self.raw(b"]").put()
        for start in range(0, len(values), 1000):
            self.raw(b"(")
            for value in values[start : start + 1000]:
                write(value)
            self.raw(b"e")
        return self

    def array(self, pixels, *, shape=None, dtype=b"u1", order=b"\x89", raw=None):
        self.raw(f"c{self.core}\n_reconstruct\n".encode()).put()
        self.raw(b"cnumpy\nndarray\n").put().raw(b"K\x00\x85").put().string(b"b").raw(b"\x87").put().raw(b"R").put()
        self.raw(b"(K\x01")
        for size in pixels.shape if shape is None else shape:
            self.number(size)
        self.raw(b"\x86").put().raw(b"cnumpy\ndtype\n").put().string(dtype).raw(b"K\x00K\x01\x87").put().raw(b"R").put()
        self.raw(b"(K\x03").string(b"|").raw(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t").put().raw(b"b").raw(order)
        return self.string(pixels.tobytes() if raw is None else raw).raw(b"t").put().raw(b"b")

    def done(self):
        return bytes(self.out + b".")


def pickled_batch(title, labels, pixels, *, numpy_core="numpy.core.multiarray", **array):
    """One batch of the python archive."""
    file = CPickle(numpy_core)
    file.raw(b"}").put().raw(b"(").string(b"batch_label").string(title).string(b"labels").items(labels, file.number)
    file.string(b"data").array(pixels, **array).string(b"filenames")
    file.items([f"{CLASS_NAMES[label % 10]}_s_{i:06d}.png".encode() for i, label in enumerate(labels)], file.string)
    return file.raw(b"u").done()


def pickled_meta(names=CLASS_NAMES, records=10_000):
    """The class names of the python archive."""
    file = CPickle()
    file.raw(b"}").put().raw(b"(").string(b"num_cases_per_batch").number(records).string(b"label_names")
    file.items([name.encode() for name in names], file.string)
    return file.string(b"num_vis").number(3072).raw(b"u").done()


def synthetic(seed=0):
    """Labels and channels-first pixels of six batches of RECORDS images."""
    generator = np.random.default_rng(seed)
    return [
        (generator.integers(0, 10, RECORDS).tolist(), generator.integers(0, 256, (RECORDS, 3072), dtype=np.uint8))
        for _ in BINARY.batches
    ]


def members(release, batches):
    """The files of a release by name."""
    meta = pickled_meta(records=RECORDS) if release.pickled else "\n".join(CLASS_NAMES).encode() + b"\n\n"
    files = {release.meta: meta, "readme.html": b"<html></html>"}
    for name, (labels, pixels) in zip(release.batches, batches, strict=True):
        if release.pickled:
            files[name] = pickled_batch(name.encode(), labels, pixels)
        else:
            files[name] = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes()
    return files


def small(release, files):
    """The release with RECORDS images a batch and the checksums of these files."""
    exact = {} if release.pickled else dict.fromkeys(release.batches, RECORDS * 3073)
    return dataclasses.replace(
        release,
        records=RECORDS,
        limits=dict(release.limits) | exact,
        md5={name: hashlib.md5(files[name], usedforsecurity=False).hexdigest() for name in release.md5},
    )


def tar_gz(path, entries, *, form=tarfile.GNU_FORMAT):
    """Write an archive of (name or TarInfo, bytes) pairs."""
    with tarfile.open(path, "w:gz", format=form, compresslevel=1) as archive:
        for entry, data in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def archive_entries(release, files):
    folder = tarfile.TarInfo(release.folder)
    folder.type = tarfile.DIRTYPE
    return [(folder, b""), *((f"{release.folder}/{name}", data) for name, data in files.items())]


def idx(array, code=0x08):
    """An array in IDX format."""
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def answers(call, kind):
    """The call returns this kind or refuses with one line; any other exception is a fault of ours."""
    try:
        result = call()
    except DataError as error:
        message = str(error)
    else:
        assert isinstance(result, kind)
        message = ""
    assert message == "" or message.isprintable(), ascii(message)


def refused(call, *parts, error=DataError):
    """The call raises the error, with one line that a terminal can show and that holds the parts."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable(), ascii(message)
    for part in parts:
        assert part in message, message
    return message
