"""Bad options and arrays: the message names what, where and what is allowed. And out=, which is never surprised."""

from __future__ import annotations

import numpy as np
import pytest

import softnll as sn
from softnll._core.options import CrossEntropy

X, Y = np.zeros((2, 3)), np.array([0, 1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing is -0.1; allowed: a number in \[0, 1\]"),
        ({"label_smoothing": 1.1}, ValueError, "label_smoothing"),
        ({"label_smoothing": np.nan}, ValueError, "label_smoothing is nan"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing is '0.1'"),
        ({"z_loss": -1}, ValueError, "z_loss"),
        ({"z_loss": np.nan}, ValueError, "z_loss"),
        ({"z_loss": np.inf}, ValueError, "z_loss"),
        ({"softcap": 0.0}, ValueError, "softcap"),
        ({"softcap": np.nan}, ValueError, "softcap"),
        ({"temperature": 0}, ValueError, "temperature"),
        ({"temperature": -1.0}, ValueError, "temperature"),
        ({"temperature": np.inf}, ValueError, "temperature"),
        ({"temperature": "1"}, TypeError, "temperature"),
        ({"temperature": [1.0, 0.0]}, ValueError, r"temperature\[1\] is 0.0"),
        ({"temperature": [1.0, 2.0, 3.0]}, ValueError, r"temperature has shape \(3,\).*\(2,\)"),
        ({"temperature": True}, TypeError, "temperature"),
        ({"ignore_index": 1.5}, TypeError, "ignore_index"),
        ({"reduction": "average"}, ValueError, "reduction is 'average'; allowed: 'mean', 'sum', 'none'"),
        ({"class_weight": [1.0, 2.0]}, ValueError, r"class_weight has shape \(2,\); allowed: \(3,\)"),
        ({"class_weight": [1.0, -2.0, 1.0]}, ValueError, r"class_weight\[1\] is -2.0"),
        ({"class_weight": [1.0, np.nan, 1.0]}, ValueError, r"class_weight\[1\] is nan"),
        ({"class_weight": [1.0, np.inf, 1.0]}, ValueError, r"class_weight\[1\] is inf"),
        ({"class_weight": [True, False, True]}, TypeError, "class_weight has dtype bool"),
        ({"sample_weight": [1.0]}, ValueError, r"sample_weight has shape \(1,\)"),
        ({"sample_weight": [1.0, -1.0]}, ValueError, r"sample_weight\[1\]"),
        ({"sample_weight": ["a", "b"]}, TypeError, "sample_weight"),
        ({"where": [1, 0, 1]}, TypeError, "where has dtype int64; allowed: bool"),
        ({"where": [True, False]}, ValueError, r"where has shape \(2,\).*\(2, 3\)"),
        ({"axis": 2}, np.exceptions.AxisError, "axis 2"),
        ({"axis": "1"}, TypeError, "axis"),
        ({"axis": (0, 0)}, ValueError, "axis"),
        ({"axis": 0.5}, TypeError, "axis"),
        ({"unknown": 1}, TypeError, "unknown"),
    ],
)
def test_options(options, error, message):
    for function in (sn.cross_entropy, sn.cross_entropy_and_grad, lambda *a, **k: sn.cross_entropy_hvp(*a, X, **k)):
        with pytest.raises(error, match=message):
            function(X, Y, **options)
    if not {"where", "axis"} & options.keys():
        for function in (sn.linear_cross_entropy, sn.linear_cross_entropy_and_grad):
            with pytest.raises(error, match=message):
                function(np.zeros((2, 4)), np.zeros((3, 4)), Y, **options)


@pytest.mark.parametrize(
    ("axis", "error"), [((0, 0), ValueError), ((0, -2), ValueError), (5, ValueError), ("0", TypeError)]
)
def test_axes_of_softmax(axis, error):
    with pytest.raises(error, match="axis"):
        sn.softmax(X, axis=axis)


def test_masked_arrays_are_not_unmasked_silently():
    for function in (sn.softmax, sn.logsumexp):
        with pytest.raises(TypeError, match="is a masked array; allowed: a plain one"):
            function(np.ma.masked_array([1.0, 2.0], [False, True]))
    with pytest.raises(TypeError, match="masked"):
        sn.cross_entropy(X, np.ma.masked_array([0, 1], [False, True]))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4), (3, 5), (2,), None), r"features has shape \(2, 4\), weight \(3, 5\)"),
        (((2, 4), (4,), (2,), None), "weight"),
        (((), (3, 4), (), None), "features"),
        (((2, 4), (0, 4), (2,), None), "no classes"),
        (((2, 4), (3, 4), (3,), None), r"targets has shape \(3,\)"),
        (((2, 4), (3, 4), (2,), (4,)), r"bias has shape \(4,\)"),
    ],
)
def test_linear_shapes(shapes, message):
    features, weight, y, bias = shapes
    with pytest.raises(ValueError, match=message):
        sn.linear_cross_entropy(
            np.zeros(features), np.zeros(weight), np.zeros(y, int), bias=None if bias is None else np.zeros(bias)
        )


@pytest.mark.parametrize("bad", [1e9, "1", np.nan, True])
def test_max_bytes_is_an_integer(bad):
    with pytest.raises(TypeError, match="max_bytes is"):
        sn.linear_cross_entropy(np.zeros((2, 4)), np.zeros((3, 4)), Y, max_bytes=bad)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("function", [sn.linear_cross_entropy, sn.linear_cross_entropy_and_grad])
def test_what_max_bytes_is_said_to_need_is_enough(dtype, function):
    arrays = np.ones((50, 64), dtype), np.ones((3000, 64), dtype), np.zeros(50, int)
    with pytest.raises(ValueError, match="at least") as caught:
        function(*arrays, max_bytes=1)
    least = int(str(caught.value).split("at least ")[1].split(",")[0])
    function(*arrays, max_bytes=least)
    with pytest.raises(ValueError, match="at least"):
        function(*arrays, max_bytes=least - 1)


def test_max_bytes_too_small_for_a_row():
    with pytest.raises(ValueError, match=r"max_bytes is 10; allowed: at least \d+"):
        sn.linear_cross_entropy(np.zeros((2, 4)), np.zeros((3, 4)), Y, max_bytes=10)


def test_v_has_the_shape_of_the_logits():
    for function in (sn.softmax_vjp, sn.softmax_jvp, lambda x, v: sn.cross_entropy_hvp(x, Y, v)):
        with pytest.raises(ValueError, match=r"v has shape \(3,\).*\(2, 3\)"):
            function(X, np.zeros(3))


@pytest.mark.usefixtures("backend")
class TestOut:
    x = np.random.default_rng(0).normal(size=(4, 5))
    y = np.arange(4)

    def functions(self):
        yield lambda x, out: sn.softmax(x, out=out)
        yield lambda x, out: sn.log_softmax(x, out=out)
        yield lambda x, out: sn.cross_entropy_and_grad(x, self.y, out=out)[1]
        yield lambda x, out: sn.cross_entropy_and_grad(x, self.y, out=out, softcap=2.0, label_smoothing=0.1)[1]

    def test_filled_and_returned(self, dtype):
        x = self.x.astype(dtype)
        for function in self.functions():
            want = function(x, None)
            for out in (np.empty_like(x), np.empty((8, 10), dtype)[::2, ::-2], np.empty((5, 4), dtype).T):
                assert function(x, out) is out
                assert (out == want).all()

    def test_in_place(self, dtype):
        for function in self.functions():
            x = self.x.astype(dtype)
            want = function(x.copy(), None)
            assert function(x, x) is x
            assert (x == want).all()

    def test_other_axis_and_byte_order(self):
        x = np.random.default_rng(0).normal(size=(3, 4, 5))
        for each in (x.copy(), x.astype(">f8")):
            want = sn.softmax(each, axis=1)
            assert sn.softmax(each, axis=1, out=each) is each
            assert (each == want).all()

    def test_overlap(self):
        for function in self.functions():
            memory = np.zeros(40)
            x, out = memory[:20].reshape(4, 5), memory[3:23].reshape(4, 5)
            x[...] = self.x
            want = function(self.x, None)
            assert (function(x, out) == want).all()

    def test_overlap_with_targets(self):
        q = sn.softmax(self.x * 3)
        want = sn.cross_entropy_and_grad(self.x, q)[1]
        assert (sn.cross_entropy_and_grad(self.x, q, out=q)[1] == want).all()

    def test_overlap_with_weights(self):
        memory = np.ones((4, 5))
        s = memory.ravel()[1:5]
        want = sn.cross_entropy_and_grad(self.x, self.y, sample_weight=s.copy())[1]
        assert (sn.cross_entropy_and_grad(self.x, self.y, sample_weight=s, out=memory)[1] == want).all()

    @pytest.mark.needs("temperatures of softmax")
    def test_overlap_with_temperatures(self):
        memory = np.ones((4, 5))
        tau = memory.ravel()[1:5]
        assert np.allclose(sn.softmax(self.x, temperature=tau, out=memory), sn.softmax(self.x), rtol=1e-15, atol=0)

    @pytest.mark.parametrize(
        ("out", "error", "message"),
        [
            (np.empty((5, 4)), ValueError, r"out has shape \(5, 4\); allowed: the logits' shape \(4, 5\)"),
            (np.empty((4, 5), np.float32), TypeError, "out has dtype float32; allowed: float64"),
            ([[0.0] * 5] * 4, TypeError, "out is a list"),
            (np.broadcast_to(0.0, (4, 5)), ValueError, "read-only"),
        ],
    )
    def test_unfit(self, out, error, message):
        for function in self.functions():
            with pytest.raises(error, match=message):
                function(self.x, out)


def test_equal_options_are_equal_and_hashable():
    assert CrossEntropy(z_loss=1, ignore_index=np.int64(3)) == CrossEntropy(z_loss=1.0, ignore_index=3)
    assert hash(CrossEntropy(softcap=np.float32(2))) == hash(CrossEntropy(softcap=2.0))
    with pytest.raises(AttributeError):
        CrossEntropy().z_loss = 1.0
