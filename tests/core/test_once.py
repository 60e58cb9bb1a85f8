"""What is looked up and not worked out again (options, layouts), and the short ways through the checks."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest

import softnll as sn
from softnll._core.layout import Layout
from softnll._core.options import CrossEntropy, checked, with_defaults
from softnll._core.problem import Problem, prepare, prepare_targets

X, Y = np.zeros((2, 3)), np.array([0, 1])


def test_equal_options_are_the_same_object():
    assert checked(0.1, 0.0, None, 2.0)[0] is checked(0.1, 0.0, None, 2.0)[0]
    assert checked()[0] == CrossEntropy()
    assert checked(0.1)[0] is not checked(0.2)[0]


@pytest.mark.parametrize("number", [1, 1.0, np.float64(1), np.float32(1), np.float16(1), np.int8(1), Fraction(1)])
def test_one_of_any_type_is_one_and_true_is_none(number):
    """True == 1 == 1.0, with the same hash: what was checked for one of them says nothing about the others."""
    for name in ("label_smoothing", "z_loss", "softcap", "temperature"):
        sn.cross_entropy(X, Y, **{name: number})
        for bad in (True, np.True_):
            with pytest.raises(TypeError, match=f"{name} is (np.)?True"):
                sn.cross_entropy(X, Y, **{name: bad})
    objective, _ = checked(*with_defaults(temperature=number))
    assert type(objective.temperature) is float
    assert objective == CrossEntropy()


def test_an_integral_float_is_no_index():
    for index in (0, np.int8(0), np.uint64(0)):
        assert checked(*with_defaults(ignore_index=index))[0].ignore_index == 0
        for bad in (0.0, False, np.float64(0), np.False_):
            with pytest.raises(TypeError, match="ignore_index is"):
                checked(*with_defaults(ignore_index=bad))


def test_nan_is_told_of_each_time():
    nan = float("nan")
    for _ in range(2):
        with pytest.raises(ValueError, match="z_loss is nan"):
            checked(0.0, nan)


@pytest.mark.parametrize("value", [[], [0.1], {}, set(), bytearray(b"1"), slice(3), np.zeros(2), np.array(0.1)])
@pytest.mark.parametrize("name", ["label_smoothing", "z_loss", "softcap", "ignore_index"])
def test_what_has_no_hash_is_told_of(name, value):
    with pytest.raises(TypeError, match=f"{name} is .*; allowed") as caught:
        sn.cross_entropy(X, Y, **{name: value})
    assert caught.value.__context__ is None  # not "unhashable type"


@pytest.mark.parametrize("value", [None, {}, "1", 1j, np.True_, (), b"1", np.array("1")])
def test_a_temperature_is_numbers(value):
    for function in (sn.softmax, lambda x, **options: sn.cross_entropy(x, Y, **options)):
        with pytest.raises((TypeError, ValueError), match="temperature"):
            function(X, temperature=value)


@pytest.mark.parametrize("value", [2.0, 2, np.float32(2), np.array(2.0), [2.0, 2.0], (2.0, 2.0), np.array([2, 2])])
def test_a_temperature_may_be_one_or_one_a_row(value):
    x = np.arange(6.0).reshape(2, 3)
    assert (sn.softmax(x, temperature=value) == sn.softmax(x / 2)).all()
    assert sn.cross_entropy(x, Y, temperature=value) == sn.cross_entropy(x / 2, Y)


def test_minus_zero_is_zero():
    for first, second in ((-0.0, 0.0), (0.0, -0.0)):
        for value in (first, second):
            objective, _ = checked(value, value, 7.0 + second)
            assert str(objective.label_smoothing) == str(objective.z_loss) == "0.0"


def test_layouts_are_told_apart():
    assert Layout.of((2, 3), -1) is Layout.of((2, 3), -1)
    assert Layout.of((2, 3), 1) == Layout.of((2, 3), np.int8(-1)) == Layout.of((2, 3), [1], several=True)
    assert Layout.of((2, 3), True) == Layout.of((2, 3), 1)
    for _ in range(2):
        for bad in (1.0, np.float64(1), "1", [1], (1,), None):
            with pytest.raises(TypeError, match=r"axis is .*; allowed: an int$"):
                Layout.of((2, 3), bad)
        for bad in (2, -3):
            with pytest.raises(np.exceptions.AxisError, match=f"axis {bad} is out of bounds"):
                Layout.of((2, 3), bad)
        with pytest.raises(TypeError, match="float"):
            Layout.of((2, 3), (0, 1.0), several=True)
        with pytest.raises(ValueError, match=r"axis is \[0, -2\]; allowed: each axis once"):
            Layout.of((2, 3), [0, -2], several=True)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (0, 3), (2, 0, 3)])
def test_rows_and_back(shape):
    x = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    ndim = max(len(shape), 1)
    for axis in [*range(-ndim, ndim), None, (0,), (0, -1)[:ndim], (-1, 0)[:ndim], ()]:
        layout = Layout.of(shape, axis, several=True)
        for each in (x, x.T.copy().T):
            rows = layout.rows(each)
            assert rows.shape == (layout.n_rows, layout.n_classes)
            assert np.array_equal(layout.restore(rows), x)
            assert layout.restore(rows).shape == shape
            last = np.moveaxis(x, layout.axes, range(-len(layout.axes), 0)) if shape else x
            assert np.array_equal(rows.ravel(), last.ravel())


SIGNED = [np.int8, np.int16, np.int32, np.int64, np.dtype(">i8"), np.dtype(">i2")]
UNSIGNED = [np.uint8, np.uint16, np.uint32, np.uint64, np.dtype(">u8")]


@pytest.mark.parametrize("dtype", SIGNED + UNSIGNED, ids=str)
@pytest.mark.parametrize("C", [3, 100, 200, 300, 70_000])
def test_targets_of_any_type_up_to_the_last_class(dtype, C):
    """Also where C is beyond what the type holds, and a negative number read as unsigned would be a class."""
    x, y = np.zeros((2, C), np.float32), np.zeros(2, dtype)
    most = min(C - 1, int(np.iinfo(dtype).max))
    y[1] = most
    problem, layout = prepare(x)
    checked_y = prepare_targets(problem, layout, y).y
    assert checked_y.dtype == np.int64
    assert checked_y.dtype.isnative
    assert checked_y.tolist() == [0, most]
    bad = [-1] if np.dtype(dtype).kind == "i" else []
    for value in bad + ([C] if np.iinfo(dtype).max >= C else []):
        y[1] = value
        with pytest.raises(ValueError, match=rf"targets\[1\] is {value}; allowed: 0 <= target < {C} classes"):
            prepare_targets(problem, layout, y)
        assert prepare_targets(problem, layout, y, check=False).s is None
        ignoring = prepare(x, objective=CrossEntropy(ignore_index=value))[0]
        assert prepare_targets(ignoring, layout, y).s.tolist() == [1, 0]


def test_what_is_ignored_is_found_wherever_it_lies():
    """Nothing is looked for only where neither the targets nor the index to ignore allow it."""
    logits = np.zeros((3, 4))
    for index, y in ((-100, [0, -100, 3]), (2, [0, 2, 3]), (0, [3, 0, 1]), (4, [0, 4, 3])):
        expected = [float(each != index) for each in y]
        problem, layout = prepare(logits, objective=CrossEntropy(ignore_index=index))
        for check in (True, False):
            got = prepare_targets(problem, layout, np.array(y), check=check)
            assert (got.s is None and all(expected)) or got.s.tolist() == expected
            assert got.divisor == sum(expected)


def test_targets_are_not_written_to():
    y = np.array([0, -100, 2])
    y.flags.writeable = False
    sn.cross_entropy(np.zeros((3, 4)), y, where=np.ones((3, 4), bool))
    assert y.tolist() == [0, -100, 2]


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("bad", [-1.0, -np.inf, np.inf, np.nan])
def test_a_bad_weight_is_found_wherever_it_stands(at, bad):
    weight = np.array([0.0, 2.0, 1.0])
    weight[at] = bad
    for each in (weight, weight[::-1].copy()[::-1], weight.astype(np.float32)):
        with pytest.raises(ValueError, match=rf"class_weight\[{at}\] is {bad}; allowed: finite numbers >= 0"):
            sn.cross_entropy(X, Y, class_weight=each)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e30, 3e38, 3.4028235e38, 3.4028235677973366e38, 1e39, 1e300])
def test_a_loss_is_rounded_to_float32_without_a_warning(scale):
    weight = np.array([scale])
    log_probs = np.array([[-1.0, 0.0]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for reduction in ("sum", "none"):
            loss = sn.nll_loss(log_probs, [0], sample_weight=weight, reduction=reduction)
            assert loss.dtype == np.float32
            with np.errstate(over="ignore"):
                assert (loss == np.float32(scale)).all()
        assert isinstance(sn.nll_loss(log_probs, [0]), np.float32)
        assert np.isnan(sn.nll_loss(np.full((1, 2), np.nan, np.float32), [0]))


def test_a_problem_takes_its_rows():
    x = np.arange(6.0).reshape(3, 2)
    full = Problem(x, checked(0.1)[0], Y, x + 1, x[0], x[:, 0], x > 1, x[:, 1], 7.0)
    part = full.take(slice(1, 2), x[1:2])
    assert part.objective is full.objective
    assert part.w is full.w
    assert part.divisor == 7
    assert part.x.tolist() == [[2, 3]]
    assert (part.y.tolist(), part.q.tolist(), part.s.tolist()) == ([1], [[3, 4]], [2])
    assert (part.where.tolist(), part.tau.tolist()) == ([[True, True]], [3])
