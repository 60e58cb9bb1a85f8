"""The reader of CIFAR-10's pickles: what Python 2 wrote is read, everything else is refused and nothing is run."""

from __future__ import annotations

import builtins
import hashlib
import os
import pickle
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_files import CPickle, answers, pickled_batch, pickled_meta, refused
from softnll.data import unpickle as module
from softnll.data.cifar10 import CLASS_NAMES, PYTHON
from softnll.data.unpickle import read_pickle

LABELS = [3, 8, 8]
PIXELS = np.arange(3 * 3072, dtype=np.uint32).astype(np.uint8).reshape(3, 3072)
GOOD = pickled_batch(b"testing batch 1 of 1", LABELS, PIXELS)


def read(data):
    return read_pickle(data, "file")


def test_the_official_class_names_are_read():
    official = pickled_meta()
    # These 158 bytes are the official file: so the opcodes of the other tests' files are cPickle's own.
    assert hashlib.md5(official, usedforsecurity=False).hexdigest() == PYTHON.md5["batches.meta"]
    names = [name.encode() for name in CLASS_NAMES]
    assert read(official) == {b"num_cases_per_batch": 10_000, b"label_names": names, b"num_vis": 3072}


@pytest.mark.parametrize("core", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_a_batch_reads_as_pickle_reads_it(core):
    data = pickled_batch(b"title", LABELS, PIXELS, numpy_core=core)
    ours = read(data)
    if core != "numpy.core.multiarray":  # NumPy warns of the old name
        theirs = pickle.loads(data, encoding="bytes")  # noqa: S301 - our own bytes
        assert list(ours) == list(theirs)
        np.testing.assert_array_equal(ours[b"data"], theirs[b"data"])
    assert ours[b"labels"] == LABELS
    assert ours[b"batch_label"] == b"title"
    assert len(ours[b"filenames"]) == 3
    np.testing.assert_array_equal(ours[b"data"], PIXELS)
    assert ours[b"data"].dtype == np.uint8
    assert not ours[b"data"].flags.writeable


def test_fortran_order_is_read():
    data = pickled_batch(b"t", LABELS, PIXELS, order=b"\x88", raw=PIXELS.tobytes(order="F"))
    np.testing.assert_array_equal(read(data)[b"data"], PIXELS)


def call(module_name, name, argument=b"echo"):
    """A dictionary whose value is a call, as os.system's exploits look."""
    return CPickle().raw(b"}U\x01k" + f"c{module_name}\n{name}\n".encode()).string(argument).raw(b"\x85Rs").done()


@pytest.mark.parametrize(
    ("module_name", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("importlib", "import_module"),
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy", "ndarray.tofile"),
        ("numpy ", "ndarray"),
        ("numpy", "Ndarray"),
        ("numpy.testing._private.utils", "runstring"),
        ("_codecs", "encode"),
        ("pickle", "loads"),
        ("copyreg", "_reconstructor"),
        ("evil\x1b[2J", "x\x07"),
        ("num\\x70y", "ndarray"),  # an escape is no other spelling
        ("numpy", "dtype\\u"),
    ],
)
def test_a_global_that_is_not_listed_is_refused_by_name(module_name, name):
    refused(lambda: read(call(module_name, name)), "file: the pickle names")


class Exploit:
    """What pickle itself would run."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_exploits_made_by_pickle_do_nothing(protocol, tmp_path):
    witness = tmp_path / "witness"
    for exploit in (
        Exploit(os.mkdir, str(witness)),
        Exploit(builtins.eval, f"__import__('os').mkdir({str(witness)!r})"),
    ):
        refused(lambda: read(pickle.dumps({b"data": exploit}, protocol=protocol)), "file: ")  # noqa: B023
        assert not witness.exists()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps({"x": Exploit(os.mkdir, str(witness / "deep"))}))  # noqa: S301 - the exploit is real


def test_nothing_is_imported():
    before = set(sys.modules)
    for name in ("antigravity", "this", "idlelib.run"):
        refused(lambda: read(call(name, "x")), "names")  # noqa: B023
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("opcodes", "part"),
    [
        (b"}U\x01kPsomething\ns.", "PERSID"),
        (b"}U\x01kU\x01aQs.", "BINPERSID"),
        (b"}U\x01k\x82\x01s.", "EXT1"),
        (b"}U\x01k\x83\x01\x00s.", "EXT2"),
        (b"}U\x01k\x84\x01\x00\x00\x00s.", "EXT4"),
        (b"}U\x01k\x8c\x02os\x8c\x06system\x93s.", "SHORT_BINUNICODE"),
        (b"}U\x01kU\x02osU\x06system\x93s.", "STACK_GLOBAL"),
        (b"}U\x01k(ios\nsystem\ns.", "INST"),
        (b"}U\x01k(cnumpy\nndarray\nos.", "OBJ"),
        (b"}U\x01kcnumpy\nndarray\n)\x81s.", "EMPTY_TUPLE"),
        (b"}U\x01kcnumpy\nndarray\nK\x00\x85\x81s.", "NEWOBJ"),
        (b"}U\x01kcnumpy\nndarray\nK\x00\x85R s.", "calls something else"),
        (b"}U\x01kcnumpy\ndtype\nU\x01OK\x00K\x01\x87Rs.", "calls something else"),
        (b"}U\x01kU\x01aU\x01bbs.", "sets the state"),
        (b"}U\x01kX\x01\x00\x00\x00as.", "BINUNICODE"),
        (b"}U\x01kG\x00\x00\x00\x00\x00\x00\x00\x00s.", "BINFLOAT"),
        (b"}U\x01kL99999999999999999999L\ns.", "LONG"),
        (b"}U\x01k\x8a\x01\x01s.", "LONG1"),
        (b"\x80\x02}.", "PROTO"),
        (b"S'\\u'\n.", "STRING"),
        (b"\xff.", "no opcode ff"),
        (b"}U\x01kh\x07s.", "BINGET with 7"),
        (b"}]U\x01as.", "key"),
        (b"}(U\x01aU\x01bU\x01aU\x01cu.", "twice"),
        (b"}(U\x01au.", "without a value"),
        (b"U\x01aU\x01bs.", "empty stack"),
        (b"]U\x01aU\x01bs.", "not a dictionary"),
        (b"}U\x01aa.", "not a list"),
        (b"s.", "empty stack"),
        (b"e.", "mark"),
        (b".", "unbalanced"),
        (b"}}.", "unbalanced"),
        (b"(}.", "unbalanced"),
        (b"].", "no dictionary"),
        (b"K\x01.", "no dictionary"),
    ],
)
def test_opcodes_that_no_such_file_holds_are_refused(opcodes, part):
    refused(lambda: read(b"\x80\x02" + opcodes), part)


@pytest.mark.parametrize("dtype", [b"O", b"O8", b"|O", b"u2", b"i1", b"S1", b"V1", b"f8", b"u1,O", b"", b"U1", b"m8"])
def test_arrays_of_anything_but_bytes_are_refused(dtype):
    refused(lambda: read(pickled_batch(b"t", LABELS, PIXELS, dtype=dtype)), "u1, the only one allowed")


@pytest.mark.parametrize(
    "shape", [(3, 3073), (3, 3071), (2**31 - 1, 2**31 - 1), (2**31 - 1, 0), (0, 0), (65535, 65535), (1, 1)]
)
def test_shapes_that_do_not_fit_the_bytes_are_refused_without_memory(shape):
    refused(lambda: read(pickled_batch(b"t", LABELS, PIXELS, shape=shape)), "shape does not fit its 9216 bytes")


def test_a_negative_shape_is_refused():
    shape = GOOD.replace(b"K\x03M\x00\x0c\x86", b"J\xfd\xff\xff\xffJ\x00\xf4\xff\xff\x86")
    assert shape != GOOD
    refused(lambda: read(shape), "shape does not fit")


@pytest.mark.parametrize("raw", [b"", PIXELS.tobytes()[:-1], PIXELS.tobytes() + b"\0"])
def test_wrong_lengths_are_refused(raw):
    refused(lambda: read(pickled_batch(b"t", LABELS, PIXELS, raw=raw)), "shape does not fit")


def test_an_array_without_its_state_is_refused():
    start = b"}U\x01kcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    refused(lambda: read(b"\x80\x02" + start + b"s."), "without its contents")


@pytest.mark.parametrize(
    "arguments",
    [
        b"cnumpy\nndarray\nM\xff\xff\x85U\x01b\x87",  # (ndarray, (65535,), b"b")
        b"cnumpy\nndarray\nK\x00\x85U\x01O\x87",
        b"cnumpy\ndtype\nK\x00\x85U\x01b\x87",
        b"cnumpy\nndarray\nK\x00\x85\x86",
        b"]",
    ],
)
def test_an_array_starts_in_one_way_only(arguments):
    start = b"\x80\x02}U\x01kcnumpy.core.multiarray\n_reconstruct\n" + arguments + b"R"
    refused(lambda: read(start + b"s."), "calls something else")


def test_a_dtype_must_have_its_state_first():
    at = GOOD.index(b"(K\x03U\x01|")
    end = GOOD.index(b"b\x89", at) + 1
    refused(lambda: read(GOOD[:at] + GOOD[end:]), "sets the state of something else")
    refused(lambda: read(GOOD.replace(b"NNNJ", b"NN]J")), "sets the state of something else")  # with names of fields
    refused(lambda: read(GOOD.replace(b"NNNJ", b"]NNJ")), "sets the state of something else")  # with a subdtype


def test_every_truncation_is_refused():
    short = pickled_meta()
    for length in range(len(short)):
        refused(lambda: read(short[:length]), "file: ")  # noqa: B023
    for length in (2, 100, 5000, len(GOOD) - 1):
        refused(lambda: read(GOOD[:length]), "file: ")  # noqa: B023


def test_bytes_after_the_end_are_refused():
    refused(lambda: read(GOOD + b"x"), "1 bytes after the end")


@pytest.mark.parametrize("head", [b"", b"}.", b"\x80\x03}.", b"\x80\x05\x95\x02\0\0\0\0\0\0\0}.", b"(dp0\n."])
def test_other_protocols_are_refused(head):
    refused(lambda: read(head), "not a pickle of protocol 2")


def test_large_memo_numbers_cost_nothing():
    # The C unpickler makes room for twice the number; 4 billion here.
    data = b"\x80\x02}r\xff\xff\xff\xff."
    assert read(data) == {}


def test_shared_tuples_cannot_be_used_as_keys():
    # Each level holds the one before twice: its hash takes 2^200 steps.
    levels = b"K\x01" + b"".join(b"q\x01h\x01\x86" for _ in range(200))
    refused(lambda: read(b"\x80\x02}" + levels + b"U\x01vs."), "key")


def test_nesting_is_neither_followed_nor_compared():
    deep = b"\x80\x02}U\x01k" + b"]" * 50_000 + b"a" * 49_999 + b"s."
    assert list(read(deep)) == [b"k"]
    own = b"\x80\x02}U\x01k]q\x01h\x01as."
    assert list(read(own)) == [b"k"]
    tower = b"K\x00" + b"\x85" * 50_000
    refused(lambda: read(b"\x80\x02}U\x01kcnumpy\ndtype\n" + tower + b"Rs."), "calls something else")


def test_the_number_of_opcodes_has_a_limit(monkeypatch):
    monkeypatch.setattr(module, "MAX_OPCODES", 100)
    refused(lambda: read(b"\x80\x02}" + b"N" * 200 + b"."), "more than 100 opcodes")


def test_the_size_has_a_limit(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    refused(lambda: read(GOOD), "at most 10")


def test_a_string_longer_than_the_file_asks_for_no_memory():
    for length in (2**31 - 1, -1):
        refused(lambda: read(b"\x80\x02}U\x01kT" + struct.pack("<i", length) + b"abc"), "not a whole pickle")  # noqa: B023


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_bytes_the_answer_is_a_dictionary_or_a_refusal(data):
    base = bytearray(pickled_batch(b"t", [1], np.zeros((1, 12), np.uint8)))
    for _ in range(data.draw(st.integers(1, 4))):
        base[data.draw(st.integers(2, len(base) - 1))] = data.draw(st.integers(0, 255))
    answers(lambda: read(bytes(base)), dict)
