"""Files that could take gigabytes or end in a traceback: one line, and memory in proportion to the file."""

from __future__ import annotations

import gzip
import json
import re
import struct
import sys
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_files import answers, refused
from softnll._cli.main import main
from softnll.data.frames import FrameTable, series_values
from softnll.data.labels import encode
from softnll.data.score_files import open_labels, open_scores
from softnll.data.text_arrays import is_text, text_array

SCORES = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
LONG = "x" * 131_000


def npy_of_text(code):
    """An array of text whose last character has this code."""
    head = np.lib.format.magic(1, 0) + struct.pack("<H", 118)
    described = b"{'descr': '<U1', 'fortran_order': False, 'shape': (3,), }"
    return head + described.ljust(117) + b"\n" + struct.pack("<3I", 97, 98, code)


def tensors(header):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + b"\0" * 16


def saved(make):
    def write(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # layouts that torch calls beta
            torch.save({"logits": (tensor := make()), "labels": tensor}, path)

    return write


def twice(path):
    pq.write_table(pa.Table.from_arrays([pa.array(column) for column in SCORES.T], names=["a", "a", "b"]), path)


def deflated(path):
    torch.save({"logits": torch.zeros(1000, 3)}, path.with_suffix(".whole"))
    with zipfile.ZipFile(path.with_suffix(".whole")) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))


def bomb(path):
    """2 MiB of zeros that promise to be 2 GiB: deflate could do it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", b"\0" * 100)
    raw = path.read_bytes()
    for size in (struct.pack("<I", 100),):
        raw = raw.replace(size, struct.pack("<I", 1 << 31))
    path.write_bytes(raw)


HOSTILE = {
    "beyond.npy": (npy_of_text(0x110000), "row 2 holds a character beyond Unicode"),
    "far.npy": (npy_of_text(0xFFFFFFFF), "row 2 holds a character beyond Unicode"),
    "long.csv": (f"label\n{LONG}\n" + "a\n" * 6000, "line 2, column 1 (label): a label of 131000 characters"),
    "last.csv": ("label\n" + "a\n" * 6000 + f"{LONG}\n", "line 6002, column 1 (label): a label of 131000"),
    "long.parquet": (
        lambda p: pq.write_table(pa.table({"label": ["a"] * 70_000 + [LONG]}), p),
        "row 70000 (0 first): a",
    ),
    "twice.parquet": (twice, "two columns are called 'a'"),
    "rows.parquet": (
        lambda p: pq.write_table(pa.table({"label": np.zeros(30_000_000, np.int8)}), p),
        "rows a byte",
    ),
    "conjugate.pt": (saved(lambda: torch.zeros(4, 3, dtype=torch.complex64).conj()), "complex"),
    "sparse.pt": (saved(lambda: torch.eye(3).to_sparse()), "torch.sparse_coo"),
    "rows.pt": (saved(lambda: torch.eye(3).to_sparse_csr()), "torch.sparse_csr"),
    "meta.pt": (saved(lambda: torch.zeros(4, 3, device="meta")), "on the device meta"),
    "eight.pt": (saved(lambda: torch.zeros(4, 3).to(torch.float8_e4m3fn)), "torch.float8_e4m3fn"),
    "nested.pt": (saved(lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])), "nested"),
    "repeated.pt": (saved(lambda: torch.zeros(1, 1).expand(10**8, 1000)), "repeats its numbers"),
    "deflated.pt": (deflated, "its members are compressed"),
    "deep.safetensors": (tensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "not that of safetensors"),
    "digits.safetensors": (tensors(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}"), "not that of"),
    "wide.csv": ("0," * 600_000 + "0\n", "columns; allowed: 524288"),
    "bomb.npz": (bomb, "promise 2147483648"),
    "idx.gz": (
        gzip.compress(struct.pack(">HBBI", 0, 8, 1, 1 << 29) + bytes(1 << 20)),
        "more than the file can hold",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(name, tmp_path, capsys):
    content, message = HOSTILE[name]
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert name in refused(lambda: open_labels(path), message)
    np.save(tmp_path / "scores.npy", SCORES)
    assert main(["diagnose", str(tmp_path / "scores.npy"), str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error


def test_text_that_is_no_utf8_and_a_word_that_is_not_in_the_dictionary(tmp_path):
    pq.write_table(pa.table({"label": ["cat", "dog"] * 20}), tmp_path / "y.parquet", compression="none")
    whole = (tmp_path / "y.parquet").read_bytes()
    (tmp_path / "y.parquet").write_bytes(whole.replace(b"cat", b"c\xffa"))
    refused(lambda: open_labels(tmp_path / "y.parquet"), "y.parquet: damaged", "UTF8")
    for at in range(whole.index(b"dog") + 3, whole.index(b"PAR1", 4), 9):
        damaged = whole[:at] + bytes([whole[at] ^ 0x7F]) + whole[at + 1 :]
        (tmp_path / "y.parquet").write_bytes(damaged)
        answers(lambda: open_labels(tmp_path / "y.parquet"), np.ndarray)


def test_negative_bits_are_numbers(tmp_path):
    torch.save({"logits": torch._neg_view(torch.from_numpy(SCORES))}, tmp_path / "negative.pt")
    np.testing.assert_array_equal(open_scores(tmp_path / "negative.pt")[0].rows(slice(None)), -SCORES)


def test_memory_is_that_of_the_words_not_of_the_longest(tmp_path):
    words = ["a"] * 40_000 + ["x" * 1000]
    (tmp_path / "y.csv").write_text("label\n" + "\n".join(words) + "\n")
    pq.write_table(pa.table({"label": words}), tmp_path / "y.parquet")
    for labels in (open_labels(tmp_path / "y.csv"), open_labels(tmp_path / "y.parquet"), text_array(words)):
        assert labels.dtype == object  # of one width they would take 160 MB
        assert is_text(labels)
        assert len({id(word) for word in labels.tolist()}) <= 4
        assert encode(labels, "y")[1] == ("a", "x" * 79 + "…") or encode(labels, "y")[1][0] == "a"
    assert text_array(["a", "bcd"]).dtype == "<U3"


def test_labels_as_objects_are_read_as_those_of_one_width(tmp_path, capsys):
    names = ["cat", "dog", "x" * 1000]
    y = [names[k % 3] for k in range(17_000)]
    np.save(tmp_path / "s.npy", np.eye(3)[np.arange(17_000) % 3] + 1.0)
    (tmp_path / "y.csv").write_text("label\n" + "\n".join(y) + "\n")
    assert open_labels(tmp_path / "y.csv").dtype == object
    assert main(["diagnose", str(tmp_path / "s.npy"), str(tmp_path / "y.csv"), "--json"]) == 0
    assert "labels-unreadable" not in capsys.readouterr().out


def test_frames_of_long_text_and_of_two_columns_of_one_name():
    pandas = pytest.importorskip("pandas")
    values = series_values(pandas.Series(["a"] * 70_000 + [LONG], dtype=object))
    assert values.dtype == object
    table = pa.Table.from_arrays([pa.array([1.0, 2.0]), pa.array([3.0, 4.0])], names=["a", "a"])
    np.testing.assert_array_equal(FrameTable(table).scores([0, 1]).rows(slice(None)), [[1, 3], [2, 4]])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory was used at most")
@pytest.mark.parametrize("name", ["gz", "npz"])
def test_what_is_decompressed_has_a_limit(name, tmp_path, monkeypatch):
    monkeypatch.setattr("softnll.data.streams._SMALL", 1 << 20)
    monkeypatch.setattr("softnll.data.streams._SMALL_TEXT", 1 << 20)
    path = tmp_path / f"zeros.csv.{name}" if name == "gz" else tmp_path / "zeros.npz"
    if name == "gz":
        path.write_bytes(gzip.compress(b"0,1,0\n" * (1 << 20)))
    else:
        np.savez_compressed(path, logits=np.zeros((1 << 20, 3)))
    before = peak(reset=True)
    refused(lambda: open_scores(path), "more than" if name == "gz" else "promise")
    assert peak() - before < 100 << 20


def peak(*, reset=False):
    """Return the most memory that the process used since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


def test_real_files_that_are_damaged_byte_by_byte(tmp_path):
    """A few hundred damaged files of every format: refused in one line, or read."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", SCORES)
    np.savez_compressed(tmp_path / "a.npz", logits=SCORES)
    pq.write_table(pa.table(dict(zip("abc", SCORES.T, strict=True))), tmp_path / "a.parquet")
    torch.save({"logits": torch.from_numpy(SCORES)}, tmp_path / "a.pt")
    (tmp_path / "a.csv").write_text("\n".join(",".join(map(str, row)) for row in SCORES.tolist()))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    raw = json.dumps({"logits": {"dtype": "F32", "shape": [12, 3], "data_offsets": [0, 144]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + SCORES.tobytes())
    for whole in sorted(tmp_path.glob("a.*")):
        content = whole.read_bytes()
        damaged = tmp_path / f"b{whole.name[1:]}"
        for _ in range(40):
            changed = bytearray(content)
            for at in rng.integers(0, len(content), rng.integers(1, 4)):
                changed[at] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
            damaged.write_bytes(bytes(changed[: rng.integers(1, len(content))] if rng.random() < 0.2 else changed))
            for read in (every_score, open_labels):
                answers(partial(read, damaged), object)


def every_score(path):
    return list(open_scores(path)[0].blocks())
