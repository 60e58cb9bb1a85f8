"""Scores and labels from files of every kind: what was written comes back, what is broken or hostile is one line."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from softnll._cli.main import main
from softnll.data.dataset import DataError
from softnll.data.score_files import open_labels, open_scores

SCORES = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)
LABELS = np.arange(23) % 4


def tables(path, array, names="abcd"):
    pq.write_table(pa.table(dict(zip(names, array.T, strict=True))), path, row_group_size=7)


WRITERS = {
    "scores.npy": lambda path: np.save(path, SCORES),
    "one.npz": lambda path: np.savez(path, anything=SCORES),
    "named.npz": lambda path: np.savez_compressed(path, other=LABELS, Logits=SCORES),
    "scores.csv": lambda path: path.write_text("\n".join(",".join(map(repr, row)) for row in SCORES.tolist())),
    "header.tsv": lambda path: path.write_text(
        "a\tb\tc\td\n" + "\n".join("\t".join(map(repr, row)) for row in SCORES.tolist())
    ),
    "scores.parquet": lambda path: tables(path, SCORES),
    "scores.safetensors": lambda path: save_file({"logits": SCORES, "other": LABELS}, path),
    "scores.pt": lambda path: torch.save(torch.from_numpy(SCORES), path),
    "dict.pth": lambda path: torch.save({"scores": torch.from_numpy(SCORES), "epoch": 3}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_scores_come_back(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    scores, names = open_scores(path)
    assert scores.shape == (23, 4)
    np.testing.assert_array_equal(np.concatenate([block for _, block in scores.blocks()]), SCORES)
    np.testing.assert_array_equal(scores.rows(np.array([5, 22, 0, 5])), SCORES[[5, 22, 0, 5]])
    np.testing.assert_array_equal(scores.rows(slice(3, 9)), SCORES[3:9])
    assert names == (tuple("abcd") if name in ("header.tsv", "scores.parquet") else None)


def test_a_header_is_read_as_cells_and_a_fault_has_its_line(tmp_path):
    (tmp_path / "x.csv").write_text('"a, b",c\n1,2\n\n3,4\n')
    assert open_scores(tmp_path / "x.csv")[1] == ("a, b", "c")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n\n3,x\n")
    with pytest.raises(DataError, match=r"line 4, column 2 \(b\): 'x' is not a number"):
        open_scores(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("y.npy", lambda path: np.save(path, LABELS)),
        ("y.npz", lambda path: np.savez(path, scores=SCORES, targets=LABELS)),
        ("y.csv", lambda path: path.write_text("\n".join(map(str, LABELS)))),
        ("y.parquet", lambda path: pq.write_table(pa.table({"x": SCORES[:, 0], "label": LABELS}), path)),
        ("text.parquet", lambda path: pq.write_table(pa.table({"anything": LABELS.astype(str)}), path)),
        ("y.safetensors", lambda path: save_file({"labels": LABELS}, path)),
        ("y.pt", lambda path: torch.save({"labels": torch.from_numpy(LABELS)}, path)),
    ],
)
def test_labels_come_back(name, write, tmp_path):
    write(tmp_path / name)
    assert open_labels(tmp_path / name).astype(int).tolist() == LABELS.tolist()


def test_bfloat16_comes_back(tmp_path):
    half = torch.from_numpy(SCORES).bfloat16()
    save_tensors({"scores": half}, tmp_path / "x.safetensors")
    torch.save(half, tmp_path / "x.pt")
    for name in ("x.safetensors", "x.pt"):
        scores, _ = open_scores(tmp_path / name)
        assert scores.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(scores.rows(slice(None)).astype(np.float32), half.float().numpy())


def test_large_arrays_stay_on_the_disk(tmp_path):
    big = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (20_000, 1000))
    big[123, 4] = 7
    save_file({"scores": np.zeros((10, 3))}, tmp_path / "s.safetensors")
    for name in ("big.npy", "s.safetensors"):
        scores, _ = open_scores(tmp_path / name)
        assert isinstance(scores._array, np.memmap)
    assert open_scores(tmp_path / "big.npy")[0].rows(np.array([123]))[0, 4] == 7


class Shell:
    def __reduce__(self):
        return os.system, ("touch /tmp/softnll-was-here",)


def header(text, body=b""):
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return len(raw).to_bytes(8, "little") + raw + body


def extension(path):
    storage = pa.array([b"0123456789abcdef"] * 3, pa.binary(16))
    kind = pa.uuid() if hasattr(pa, "uuid") else pa.binary(16)
    column = pa.ExtensionArray.from_storage(kind, storage) if hasattr(pa, "uuid") else storage
    pq.write_table(pa.table({"a": column}), path)


def cut(path):
    tables(path, np.random.default_rng(0).normal(size=(20_000, 4)))
    raw = bytearray(path.read_bytes())
    raw[100:60_000] = bytes(60_000 - 100)
    path.write_bytes(bytes(raw))


BROKEN = {
    "missing.npy": (lambda _: None, "no such file"),
    "x.xlsx": (lambda path: path.write_bytes(b""), r"\.xlsx; read are \.npy"),
    "cut.npy": (lambda path: path.write_bytes(WRITE_NPY[:-8]), "bytes after the header"),
    "object.npy": (lambda path: np.save(path, np.array([[Shell()]], object), allow_pickle=True), "no objects"),
    "text.npy": (lambda path: np.save(path, np.array([["a"]])), "expected real numbers"),
    "empty.npy": (lambda path: np.save(path, np.empty((0, 3))), "expected real numbers"),
    "cube.npy": (lambda path: np.save(path, np.zeros((2, 3, 4))), r"\(rows, classes\)"),
    "zip.npz": (lambda path: path.write_bytes(b"PK\x03\x04nothing"), "damaged"),
    "two.npz": (lambda path: np.savez(path, a=SCORES, b=SCORES), "holds a, b; expected one array"),
    "none.npz": (lambda path: zipfile.ZipFile(path, "w").close(), "holds nothing"),
    "short.safetensors": (lambda path: path.write_bytes(b"\x01"), "a header of"),
    "huge.safetensors": (lambda path: path.write_bytes((1 << 60).to_bytes(8, "little")), "a header of"),
    "json.safetensors": (lambda path: path.write_bytes(header(b"[1")), "not that of safetensors"),
    "list.safetensors": (lambda path: path.write_bytes(header([1])), "not that of safetensors"),
    "deep.safetensors": (lambda path: path.write_bytes(header(b"[" * 100_000)), "not that of safetensors"),
    "type.safetensors": (
        lambda path: path.write_bytes(
            header({"x": {"dtype": "F8_E4M3", "shape": [1, 1], "data_offsets": [0, 1]}}, b"0")
        ),
        "has type F8_E4M3",
    ),
    "lies.safetensors": (
        lambda path: path.write_bytes(
            header({"x": {"dtype": "F32", "shape": [1 << 30, 1 << 20], "data_offsets": [0, 4]}}, b"0000")
        ),
        "does not fit",
    ),
    "past.safetensors": (
        lambda path: path.write_bytes(header({"x": {"dtype": "F32", "shape": [1, 9], "data_offsets": [0, 36]}}, b"0")),
        "does not fit",
    ),
    "odd.safetensors": (
        lambda path: path.write_bytes(header({"x": {"dtype": "F32", "shape": [-1, 1], "data_offsets": [0, 4]}}, b"0")),
        "not described as a tensor",
    ),
    "shell.pt": (lambda path: path.write_bytes(pickle.dumps(Shell())), "not a file of tensors"),
    "zip.pt": (lambda path: torch.save({"scores": Shell()}, path), "not a file of tensors"),
    "number.pt": (lambda path: torch.save(3, path), "expected a dense tensor"),
    "sparse.pt": (lambda path: torch.save(torch.eye(3).to_sparse(), path), "not a file of tensors|expected a dense"),
    "complex.pt": (lambda path: torch.save(torch.zeros(2, 2, dtype=torch.complex64), path), "expected a dense tensor"),
    "not.parquet": (lambda path: path.write_bytes(b"PAR1nothing"), r"not a readable \.parquet"),
    "cut.parquet": (cut, "damaged|not a readable"),
    "text.parquet": (lambda path: pq.write_table(pa.table({"a": ["x"]}), path), "has type string"),
    "uuid.parquet": (extension, "has type"),
    "rows.parquet": (lambda path: tables(path, np.empty((0, 4), np.float32)), "no scores"),
}
WRITE_NPY = b""


@pytest.mark.parametrize("name", BROKEN)
def test_broken_and_hostile_files_are_one_line(name, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "whole.npy", SCORES)
    monkeypatch.setitem(globals(), "WRITE_NPY", (tmp_path / "whole.npy").read_bytes())
    write, message = BROKEN[name]
    path = tmp_path / name
    write(path)
    with pytest.raises(DataError, match=message):
        list(open_scores(path)[0].blocks())
    np.save(tmp_path / "y.npy", LABELS)
    code = main(["diagnose", str(path), str(tmp_path / "y.npy")])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not os.path.exists("/tmp/softnll-was-here")  # noqa: PTH110, S108


def test_labels_that_are_none(tmp_path):
    for name, table in (
        ("null.parquet", pa.table({"y": pa.array([1, None])})),
        ("list.parquet", pa.table({"y": pa.array([[1], [2]])})),
    ):
        pq.write_table(table, tmp_path / name)
        with pytest.raises(DataError, match=r"empty cells|expected labels"):
            open_labels(tmp_path / name)
    np.save(tmp_path / "y.npy", np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="expected"):
        open_labels(tmp_path / "y.npy")


@pytest.mark.parametrize("name", WRITERS)
def test_explain_reads_them_too(name, tmp_path, capsys):
    WRITERS[name](tmp_path / name)
    torch.save(torch.from_numpy(LABELS), tmp_path / "y.pt")
    assert main(["explain", "--scores", str(tmp_path / name), "--target", str(tmp_path / "y.pt"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(content["scores"], SCORES, rtol=1e-6)
    assert content["targets"] == LABELS.tolist()
