"""CIFAR-10's archives and folders: read to the last pixel, or refused."""

from __future__ import annotations

import dataclasses
import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_files import (
    RECORDS,
    answers,
    archive_entries,
    members,
    pickled_batch,
    pickled_meta,
    refused,
    small,
    synthetic,
    tar_gz,
)
from softnll.data import cifar10, load
from softnll.data.cifar10 import BINARY, CLASS_NAMES, PYTHON, read_archive, read_folder

BATCHES = synthetic()
FILES = {"binary": members(BINARY, BATCHES), "python": members(PYTHON, BATCHES)}
RELEASES = {"binary": small(BINARY, FILES["binary"]), "python": small(PYTHON, FILES["python"])}
ALL = tuple(RELEASES.values())


@pytest.fixture(params=["binary", "python"])
def kind(request):
    return request.param


def entries(kind):
    return archive_entries(RELEASES[kind], FILES[kind])


def check(train, test):
    images = np.concatenate([pixels for _, pixels in BATCHES]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([numbers for numbers, _ in BATCHES])
    assert (train.split, test.split, train.name, train.class_names) == ("train", "test", "CIFAR-10", CLASS_NAMES)
    assert train.inputs.shape == (5 * RECORDS, 32, 32, 3)
    assert test.inputs.shape == (RECORDS, 32, 32, 3)
    # Channels last: pixel (row, column) of channel c stands at 1024 c + 32 row + column of the record.
    assert train.inputs[1, 2, 3, 1] == BATCHES[0][1][1, 1024 + 32 * 2 + 3]
    np.testing.assert_array_equal(np.concatenate([train.inputs, test.inputs]).transpose(0, 3, 1, 2), images)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), labels)


def test_an_archive_is_read_whatever_the_order(kind, tmp_path):
    for number, order in enumerate((entries(kind), entries(kind)[::-1])):
        check(*read_archive(tar_gz(tmp_path / f"{number}.tar.gz", order), ALL))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.tar.gz", "1.tar.gz"]  # nothing was extracted


def test_a_folder_is_read_from_inside_and_from_above(kind, tmp_path):
    folder = tmp_path / RELEASES[kind].folder
    folder.mkdir()
    for name, data in FILES[kind].items():
        (folder / name).write_bytes(data)
    check(*read_folder(folder, ALL))
    check(*read_folder(tmp_path, ALL))
    (folder / RELEASES[kind].batches[2]).unlink()
    refused(lambda: read_folder(folder, ALL), "lacks data_batch_3")


def test_load_finds_archive_and_folder_by_name_and_by_path(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "RELEASES", ALL)
    archive = tar_gz(tmp_path / RELEASES[kind].archive, entries(kind))
    check(*load("cifar10", cache=tmp_path, download=False))
    check(*load(archive))
    monkeypatch.setenv("SOFTNLL_DATA", str(tmp_path))
    check(*load("CIFAR-10", download=False))


def test_checksums_are_checked_by_default(kind, tmp_path):
    release = RELEASES[kind]
    official = {"binary": BINARY, "python": PYTHON}[kind]
    lenient = dataclasses.replace(release, md5=official.md5)
    refused(
        lambda: read_archive(tar_gz(tmp_path / "a.tar.gz", entries(kind)), [lenient]),
        release.folder,
        "not the official",
    )
    # load() uses the official table, whatever the sizes.
    refused(lambda: load(tmp_path / "a.tar.gz"), "expected exactly" if kind == "binary" else "not the official")


def test_one_changed_pixel_is_seen(kind, tmp_path):
    name = RELEASES[kind].batches[4]
    changed = dict(FILES[kind])
    data = bytearray(changed[name])
    data[-200] ^= 1
    changed[name] = bytes(data)
    archive = tar_gz(tmp_path / "a.tar.gz", archive_entries(RELEASES[kind], changed))
    refused(lambda: read_archive(archive, ALL), f"{name}: md5", "damaged")


def member(name, *, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


BIN = BINARY.folder


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ((member(f"{BIN}/../../escape"), b"x"), "not allowed"),
        ((member("/etc/passwd"), b"x"), "not allowed"),
        ((member("../escape"), b"x"), "not allowed"),
        ((member(f"{BIN}//data_batch_1.bin"), b"x"), "not allowed"),
        ((member(f"./{BIN}/test_batch.bin"), b"x"), "not allowed"),
        ((member(f"{BIN}/data_batch_6.bin"), b"x"), "not allowed"),
        ((member(f"{BIN}/data_batch_1.bin/x"), b"x"), "not allowed"),
        ((member(f"{BIN}/test\x1b[2J\n\u202e"), b"x"), "not allowed"),
        ((member(f"{BIN}/test_batch.bin", kind=tarfile.SYMTYPE, link="/etc/passwd"), b""), "damaged"),
        ((member(f"{BIN}/test_batch.bin", kind=tarfile.LNKTYPE, link=f"{BIN}/data_batch_1.bin"), b""), "damaged"),
        ((member(f"{BIN}/test_batch.bin", kind=tarfile.FIFOTYPE), b""), "damaged"),
        ((member(f"{BIN}/test_batch.bin", kind=tarfile.CHRTYPE), b""), "damaged"),
        ((member(f"{BIN}/test_batch.bin", kind=tarfile.GNUTYPE_SPARSE), b""), "damaged"),
        ((member(f"{BIN}/test_batch.bin", kind=tarfile.DIRTYPE), b""), "not allowed"),
        ((member(BIN, kind=tarfile.DIRTYPE), b""), "not allowed"),
        ((member(f"{BIN}/data_batch_1.bin"), FILES["binary"]["data_batch_1.bin"]), "not allowed"),
        ((member(f"{BIN}/" + "n" * 300), b""), "damaged"),  # a GNU long name is a header of its own
    ],
)
def test_foreign_doubled_and_linked_members_are_refused(entry, part, tmp_path):
    order = [*entries("binary")[:6], entry, *entries("binary")[6:]]
    refused(lambda: read_archive(tar_gz(tmp_path / "a.tar.gz", order), ALL), "a.tar.gz", part)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_member_of_another_folder_does_not_stand_for_the_official_one(kind, tmp_path):
    order = entries(kind)
    name, data = order[3]
    order[3] = (f"elsewhere/{name.split('/')[1]}", data)
    refused(lambda: read_archive(tar_gz(tmp_path / "a.tar.gz", order), ALL), "elsewhere/", "not allowed")


def test_extended_headers_are_refused_before_they_are_parsed(tmp_path):
    info = member(f"{BIN}/test_batch.bin")
    info.pax_headers = {"path": "elsewhere", "comment": "x" * 10_000}
    archive = tar_gz(tmp_path / "a.tar.gz", [(info, b"x")], form=tarfile.PAX_FORMAT)
    refused(lambda: read_archive(archive, ALL), "files and folders only")


def test_a_negative_size_is_refused(tmp_path):
    block = bytearray(member(f"{BIN}/test_batch.bin").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 12
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(bytes(block) + bytes(1024))
    refused(lambda: read_archive(tmp_path / "a.tar.gz", ALL), "size -1")


@pytest.mark.parametrize("size", [0, RECORDS * 3073 - 1, RECORDS * 3073 + 1, 5 << 30])
def test_another_size_is_refused_from_the_header(size, tmp_path):
    block = member(f"{BIN}/test_batch.bin", size=size).tobuf(tarfile.GNU_FORMAT)
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(block + bytes(1024))
    refused(lambda: read_archive(tmp_path / "a.tar.gz", ALL), f"{size} bytes, expected exactly {RECORDS * 3073}")


def test_a_missing_member_is_named(kind, tmp_path):
    order = entries(kind)
    lost = order.pop(3)[0]
    archive = tar_gz(tmp_path / "a.tar.gz", order)
    refused(lambda: read_archive(archive, ALL), "lacks", lost.split("/")[1])


def test_an_archive_made_to_explode_stops_at_the_limit(tmp_path):
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(member(BIN, kind=tarfile.DIRTYPE).tobuf(tarfile.GNU_FORMAT))
        for _ in range(16):
            file.write(bytes(1 << 20))  # after the end of the archive, where nothing looks at it but the limit
    assert archive.stat().st_size < 200_000
    refused(lambda: read_archive(archive, [RELEASES["binary"]]), "decompresses to more than")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_headers_the_answer_is_images_or_a_refusal(tmp_path, data):
    name, contents = "readme.html", b"<html></html>"
    blocks = bytearray()
    for info in (member(BIN, kind=tarfile.DIRTYPE), member(f"{BIN}/{name}", size=len(contents))):
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(data.draw(st.integers(0, 3))):
            block[data.draw(st.integers(100, 511))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        blocks += block
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(blocks) + contents.ljust(512, b"\0") + bytes(1024), 0))
    answers(lambda: read_archive(tmp_path / "a.tar.gz", ALL), tuple)


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 1000, 30_000, -1, -8])
def test_a_truncated_archive_is_refused(kind, keep, tmp_path):
    whole = tar_gz(tmp_path / "a.tar.gz", entries(kind)).read_bytes()
    (tmp_path / "b.tar.gz").write_bytes(whole[:keep])
    refused(lambda: read_archive(tmp_path / "b.tar.gz", ALL), "b.tar.gz")


def test_damage_anywhere_is_refused(kind, tmp_path):
    whole = tar_gz(tmp_path / "a.tar.gz", entries(kind)).read_bytes()
    damaged = tmp_path / "b.tar.gz"
    for position in np.random.default_rng(1).integers(10, len(whole) - 8, 20):
        data = bytearray(whole)
        data[position] ^= 0x55
        damaged.write_bytes(data)
        refused(lambda: read_archive(damaged, ALL), "b.tar.gz")


# gzip writes the time of day by default: pytest's workers, a second apart, would collect different test ids.
PACKED = [gzip.compress(data, mtime=0) for data in (b"", b"x" * 2000)]


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"not gzip", *PACKED])
def test_what_is_no_archive_is_refused(data, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(data)
    refused(lambda: read_archive(tmp_path / "a.tar.gz", ALL), "a.tar.gz")


def altered(kind, name, data):
    files = FILES[kind] | {name: data}
    return archive_entries(RELEASES[kind], files), [small(RELEASES[kind], files)]


GENEROUS = np.zeros((RECORDS, 3072), np.uint8)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (pickled_batch(b"t", [0, 1, 2, 10], GENEROUS), "label 10 is not one of the 10 classes"),
        (pickled_batch(b"t", [0, 1, 2, -1], GENEROUS), "label -1 is not one of the 10 classes"),
        (pickled_batch(b"t", [0, 1, 2], GENEROUS), "'labels' is not a list of 4"),
        (pickled_batch(b"t", [0, 1, 2, 3], GENEROUS[:3]), "'data' is not a (4, 3072) array"),
        (pickled_batch(b"t", [0, 1, 2, 3], GENEROUS.reshape(4 * 3, 1024)), "'data' is not"),
        (pickled_batch(b"t", [0, 1, 2, 3], GENEROUS).replace(b"(K\x00K\x01K\x02K\x03e", b"(K\x00K\x01NK\x03e"), "else"),
        (pickled_meta(), "'data' is not"),
    ],
)
def test_pickles_with_other_contents_are_refused(data, part, tmp_path):
    order, releases = altered("python", "data_batch_2", data)
    refused(lambda: read_archive(tar_gz(tmp_path / "a.tar.gz", order), releases), "data_batch_2", part)


def test_binary_labels_beyond_the_classes_are_refused(tmp_path):
    data = b"\x0a" + FILES["binary"]["test_batch.bin"][1:]
    order, releases = altered("binary", "test_batch.bin", data)
    refused(lambda: read_archive(tar_gz(tmp_path / "a.tar.gz", order), releases), "test_batch.bin: label 10")


@pytest.mark.parametrize("names", [CLASS_NAMES[::-1], CLASS_NAMES[:9], ("\x1b[31m",) * 10])
def test_other_class_names_are_refused(kind, names, tmp_path):
    meta = pickled_meta(names) if kind == "python" else "\n".join(names).encode()
    order, releases = altered(kind, RELEASES[kind].meta, meta)
    refused(lambda: read_archive(tar_gz(tmp_path / "a.tar.gz", order), releases), "does not hold the ten class names")


def test_the_real_images_have_the_published_statistics():
    folder = os.environ.get("SOFTNLL_DATA")
    if folder is None or not any(
        (Path(folder) / name).exists() for r in (BINARY, PYTHON) for name in (r.folder, r.archive)
    ):
        pytest.skip("CIFAR-10 is not in the folder that SOFTNLL_DATA names")
    train, test = load("cifar10", download=False)
    assert train.inputs.shape == (50_000, 32, 32, 3)
    assert test.inputs.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(train.labels), [5000] * 10)
    counts = [np.bincount(train.inputs[..., channel].reshape(-1), minlength=256) for channel in range(3)]
    means = [count @ np.arange(256) / count.sum() / 255 for count in counts]
    np.testing.assert_allclose(means, [0.49140, 0.48216, 0.44653], atol=5e-6)
