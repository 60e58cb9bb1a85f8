"""NUMERICS §4: what every odd input gets. The numbers are the table's."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import softnll as sn

INF, NAN = np.inf, np.nan
pytestmark = pytest.mark.usefixtures("backend")


def both(logits, targets, **options):
    """Return per-row losses and the gradient of their sum."""
    loss, grad = sn.cross_entropy_and_grad(logits, targets, reduction="none", **options)
    assert np.array_equal(loss, sn.cross_entropy(logits, targets, reduction="none", **options), equal_nan=True)
    return loss, grad


def test_01_all_minus_inf(real):
    x = np.full((1, 3), -INF, real)
    assert sn.logsumexp(x)[0] == -INF
    assert np.isnan(sn.softmax(x)).all()
    assert np.isnan(sn.log_softmax(x)).all()
    loss, grad = both(x, [0])
    assert np.isnan(loss).all()
    assert np.isnan(grad).all()


@pytest.mark.needs("masks")
def test_02_masked_out_whole(dtype):
    x = np.array([[1, 2, 3], [NAN, INF, 3]], dtype)
    mask = np.array([[True, True, False], [False, False, False]])
    assert (sn.softmax(x, where=mask)[1] == 0).all()
    assert (sn.log_softmax(x, where=mask)[1] == -INF).all()
    assert sn.logsumexp(x, where=mask)[1] == -INF
    loss, grad = both(x, [0, -100], where=mask)
    assert loss[1] == 0
    assert (grad[1] == 0).all()
    loss, grad = both(x, [0, 0], where=mask, check=False)
    assert loss[1] == 0
    assert (grad[1] == 0).all()


def test_03_one_plus_inf(dtype):
    x = np.array([[1, INF, 3]], dtype)
    assert sn.softmax(x).tolist() == [[0, 1, 0]]
    assert sn.log_softmax(x).tolist() == [[-INF, 0, -INF]]
    assert sn.logsumexp(x)[0] == INF
    loss, grad = both(np.repeat(x, 3, axis=0), [0, 1, 2])
    assert loss.tolist() == [INF, 0, INF]
    assert grad.tolist() == [[-1, 1, 0], [0, 0, 0], [0, 1, -1]]
    loss, grad = both(x, [1], z_loss=0.1)
    assert np.isnan(loss).all()
    assert np.isnan(grad).any()


def test_04_two_plus_inf(dtype):
    x = np.array([[INF, INF, 3], [0, 0, 0]], dtype)
    for value in (sn.softmax(x), sn.log_softmax(x), both(x, [2, 0])[1]):
        assert np.isnan(value[0]).all()
        assert np.isfinite(value[1]).all()
    assert np.isnan(sn.logsumexp(x)[0])
    assert np.isnan(both(x, [0, 0])[0][0])


@pytest.mark.parametrize("at", range(5))
def test_05_nan_anywhere(dtype, at):
    x = np.zeros((3, 5), dtype)
    x[1, at] = NAN
    clean = np.zeros((3, 5), dtype)
    for got, want in (
        (sn.softmax(x), sn.softmax(clean)),
        (sn.log_softmax(x), sn.log_softmax(clean)),
        (sn.logsumexp(x), sn.logsumexp(clean)),
        *zip(both(x, [0, 1, 2]), both(clean, [0, 1, 2]), strict=True),
    ):
        assert np.isnan(got[1]).all()
        assert (got[[0, 2]] == want[[0, 2]]).all()


@pytest.mark.needs("masks")
@pytest.mark.parametrize("bad", [NAN, INF, -INF, 3e38])
def test_06_masked_values_never_leak(real, bad):
    x = np.array([[1, 2, 3, bad]], real)
    mask = np.array([True, True, True, False])
    clean = x[:, :3].copy()
    assert (sn.softmax(x, where=mask)[:, :3] == sn.softmax(clean)).all()
    assert (sn.log_softmax(x, where=mask)[:, :3] == sn.log_softmax(clean)).all()
    assert sn.logsumexp(x, where=mask) == sn.logsumexp(clean)
    for options in ({}, {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 5.0, "temperature": 2.0}):
        loss, grad = both(x, [1], where=mask, **options)
        want, want_grad = both(clean, [1], **options)
        units = 64 if options else 0  # with them, masked rows and others may be done by different loops
        assert np.allclose(loss, want, rtol=units * np.finfo(real).eps, atol=0)
        assert np.allclose(grad[:, :3], want_grad, rtol=units * np.finfo(real).eps, atol=0)
        assert grad[0, 3] == 0


def test_07_minus_inf_entries(dtype):
    x = np.array([[1, -INF, 3, -INF]], dtype)
    loss, grad = both(x, [0])
    assert loss[0] == pytest.approx(2 + np.log1p(np.exp(-2)), rel=1e-6)
    assert (grad[0, [1, 3]] == 0).all()
    assert np.isfinite(grad).all()


def test_08_target_at_minus_inf(dtype):
    x = np.array([[1, -INF, 1]], dtype)
    loss, grad = both(x, [1])
    assert loss[0] == INF
    assert grad.tolist() == [[0.5, -1, 0.5]]


def test_09_one_class(dtype):
    x = np.array([[3], [-70]], dtype)
    assert (sn.softmax(x) == 1).all()
    assert (sn.log_softmax(x) == 0).all()
    loss, grad = both(x, [0, 0])
    assert (loss == 0).all()
    assert (grad == 0).all()


def test_10_zero_classes(dtype):
    x = np.zeros((2, 0), dtype)
    for function in (sn.softmax, sn.log_softmax):
        with pytest.raises(ValueError, match="no classes"):
            function(x)
    with pytest.raises(ValueError, match="no classes"):
        sn.cross_entropy(x, [0, 0])
    assert (sn.logsumexp(x) == -INF).all()


def test_11_zero_rows(dtype):
    x = np.zeros((0, 3), dtype)
    for function in (sn.softmax, sn.log_softmax):
        assert function(x).shape == (0, 3)
        assert function(x).dtype == dtype
    assert sn.logsumexp(x).shape == (0,)
    y = np.zeros(0, int)
    assert np.isnan(sn.cross_entropy(x, y))
    assert sn.cross_entropy(x, y, reduction="sum") == 0
    loss, grad = sn.cross_entropy_and_grad(x, [])
    assert np.isnan(loss)
    assert grad.shape == (0, 3)
    assert sn.cross_entropy(x, y, reduction="none").shape == (0,)


def test_11_everything_ignored(dtype):
    loss, grad = sn.cross_entropy_and_grad(np.full((2, 3), NAN, dtype), [-100, -100])
    assert np.isnan(loss)
    assert (grad == 0).all()


def test_12_largest_finite(real):
    big = np.finfo(real).max
    x = np.array([[big, -big, 0], [big, big, big], [-big, -big, -big]], real)
    assert not np.isnan(sn.softmax(x)).any()
    log_p = sn.log_softmax(x)
    assert not np.isnan(log_p).any()
    assert (log_p[0] == [0, -INF, -big]).all()  # −2·max overflows
    assert np.isfinite(sn.logsumexp(x[0]))
    loss, grad = both(x, [2, 0, 0])
    assert not np.isnan(loss).any()
    assert not np.isnan(grad).any()


@pytest.mark.needs("temperatures of softmax")
def test_12_largest_finite_with_a_temperature(real):
    big = np.finfo(real).max
    assert sn.log_softmax(np.array([big, -big, 0], real), temperature=4.0)[1] == -big / 2


def test_12_extreme_weights_of_a_mean():
    """A mean does not depend on the unit of its weights, though their sum may leave the range."""
    x = np.array([[40.0, 0, 0], [1, 2, 3]])
    for kind, size in (("sample_weight", 2), ("class_weight", 3)):
        want = sn.cross_entropy_and_grad(x, [0, 1], **{kind: [1.0] * size})
        for weight in (1e-300, 1e300, 1.7e308):
            got = sn.cross_entropy_and_grad(x, [0, 1], **{kind: [weight] * size})
            assert got[0] == pytest.approx(want[0], rel=1e-15)
            assert np.allclose(got[1], want[1], rtol=1e-14, atol=0)


def test_13_rows_that_take_no_part(dtype):
    x = np.array([[1, 2, 3], [NAN, 0, 0], [INF, -INF, INF]], dtype)
    for y, s in (([0, -100, -100], None), ([0, 1, 1], [1.0, 0.0, 0.0])):
        loss, grad = sn.cross_entropy_and_grad(x, y, sample_weight=s)
        assert loss == sn.cross_entropy(x[:1], [0])
        assert (grad[1:] == 0).all()
        assert (grad[0] == sn.cross_entropy_and_grad(x[:1], [0])[1][0]).all()


def test_14_nothing_times_infinity(real):
    x = np.array([[1, 2, -INF]], real)
    q = np.array([[0.5, 0.5, 0.0]], real)
    loss, grad = both(x, q)
    assert np.isfinite(loss).all()
    assert np.isfinite(grad).all()
    loss, grad = both(x, [2], class_weight=[1.0, 1.0, 0.0])
    assert loss[0] == 0
    assert (grad == 0).all()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_14_a_row_whose_target_has_no_mass_is_dropped(real, bad):
    """As with sample weight 0: docs/decisions/0002."""
    x = np.array([[1, 2, 3], [bad, bad, 0]], real)
    loss, grad = sn.cross_entropy_and_grad(x, [0, 2], class_weight=[1.0, 1.0, 0.0], label_smoothing=0.0)
    want, want_grad = sn.cross_entropy_and_grad(x[:1], [0])
    assert loss == want
    assert (grad == [want_grad[0], [0, 0, 0]]).all()


def test_15_smoothing_with_minus_inf(dtype):
    x = np.array([[1, 2, -INF]], dtype)
    assert both(x, [0], label_smoothing=0.1)[0][0] == INF


@pytest.mark.needs("masks")
def test_15_smoothing_with_minus_inf_masked(dtype):
    x = np.array([[1, 2, -INF]], dtype)
    assert np.isfinite(both(x, [0], label_smoothing=0.1, where=np.isfinite(x))[0][0])


def test_16_float16_many_classes_and_rows():
    x = np.zeros((1, 70_000), np.float16)
    assert sn.cross_entropy(x, [0]) == pytest.approx(np.log(70_000), rel=1e-6)
    assert sn.softmax(x)[0, 0] == np.float16(1 / 70_000)
    rows = np.zeros((70_000, 2), np.float16)
    assert sn.cross_entropy(rows, np.zeros(70_000, int)) == pytest.approx(np.log(2), rel=1e-6)
    assert sn.cross_entropy(rows, np.zeros(70_000, int), reduction="sum") == pytest.approx(70_000 * np.log(2), rel=1e-6)


def test_17_bfloat16_many_classes():
    n = 65_504
    x = np.zeros((1, n), ml_dtypes.bfloat16)
    assert sn.softmax(x).astype(float).sum() == pytest.approx(1, rel=2**-9)
    assert sn.log_softmax(x)[0, 0] == ml_dtypes.bfloat16(-np.log(n))


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_18_integers(kind):
    x = np.array([[100, 28, 3]], kind)
    assert sn.softmax(x).dtype == np.float64
    assert np.allclose(sn.softmax(x), [[1, np.exp(-72.0), np.exp(-97.0)]], rtol=1e-14)
    loss, grad = both(x, [1])
    assert loss.dtype == grad.dtype == np.float64
    assert loss[0] == 72


def test_18_int8_does_not_wrap():
    assert sn.softmax(np.array([100, -100, 3], np.int8)).round(6).tolist() == [1, 0, 0]


@pytest.mark.parametrize("bad", [[True, False], [1j, 2], ["a", "b"], [None, 1], np.longdouble([1, 2])])
def test_18_types_without_meaning(bad):
    for function in (sn.softmax, sn.log_softmax, sn.logsumexp, sn.softmax_jacobian):
        with pytest.raises(TypeError, match="dtype"):
            function(np.array(bad))
    with pytest.raises(TypeError, match="dtype"):
        sn.cross_entropy(np.array([bad]), [0])


def layouts(x):
    """Yield the same numbers in every way that memory can hold them."""
    yield "reversed", x[::-1, ::-1].copy()[::-1, ::-1]
    yield "fortran", np.asfortranarray(x)
    if x.dtype.name != "bfloat16":
        yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    locked = x.copy()
    locked.flags.writeable = False
    yield "read-only", locked
    wide = np.zeros((x.shape[0] * 2, x.shape[1] * 3), x.dtype)
    wide[::2, ::3] = x
    yield "strided", wide[::2, ::3]
    yield "transposed", x.T.copy().T
    shifted = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    shifted[...] = x
    yield "unaligned", shifted


def test_19_layouts(dtype, tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(dtype)
    y, q = np.arange(4), sn.softmax(x.astype(np.float64))
    want = [sn.softmax(x), sn.log_softmax(x), sn.logsumexp(x), *both(x, y), *both(x, q)]
    arrays = list(layouts(x))
    if dtype.name != "bfloat16":
        np.save(tmp_path / "x.npy", x)
        arrays.append(("mapped", np.load(tmp_path / "x.npy", mmap_mode="r")))
    for name, each in arrays:
        before = each.copy()
        got = [sn.softmax(each), sn.log_softmax(each), sn.logsumexp(each), *both(each, y), *both(each, q)]
        for value, wanted in zip(got, want, strict=True):
            assert (value == wanted).all(), name
            assert value.dtype.isnative, name
        assert (each == before).all(), name


def test_19_layouts_of_targets_and_weights():
    x = np.random.default_rng(0).normal(size=(4, 5))
    y = np.arange(4)
    q = sn.softmax(x * 2)
    w, s = np.arange(1.0, 6), np.arange(1.0, 5)
    want = both(x, y, class_weight=w, sample_weight=s), both(x, q, class_weight=w, sample_weight=s)
    for each in (y.astype(">i2"), y[::-1].copy()[::-1], y.astype(np.uint64), y.tolist()):
        got = both(x, each, class_weight=w[::-1].copy()[::-1], sample_weight=s.astype(">f8"))
        assert all((a == b).all() for a, b in zip(got, want[0], strict=True))
    for _, each in layouts(q):
        got = both(x, each, class_weight=w.tolist(), sample_weight=s.astype(int))
        assert all((a == b).all() for a, b in zip(got, want[1], strict=True))


@pytest.mark.needs("masks")
def test_19_layouts_of_masks():
    x = np.random.default_rng(0).normal(size=(4, 5))
    want = both(x, [0, 1, 2, 3], where=x > -0.5, check=False)
    for _, mask in layouts(x > -0.5):
        got = both(x, [0, 1, 2, 3], where=mask, check=False)
        assert all((a == b).all() for a, b in zip(got, want, strict=True))


def test_19_zero_dimensional():
    assert sn.softmax(np.array(3.0)) == 1
    assert sn.log_softmax(3.0, axis=-1) == 0
    assert sn.logsumexp(3.0) == 3
    assert sn.cross_entropy(3.0, 0) == 0


def test_21_hard_targets_of_other_types():
    x = np.zeros((2, 3))
    for bad in ([0.0, 1.0], [NAN, 1.0], [True, False], ["a", "b"], [None, 1]):
        with pytest.raises(TypeError, match="target"):
            sn.cross_entropy(x, np.array(bad))


def test_20_shapes():
    x = np.zeros((2, 3))
    for bad in ([0, 1, 2], [[0], [1]], 0, np.zeros((2, 3), int), np.zeros((3, 2)), np.zeros((2, 3, 1))):
        with pytest.raises(ValueError, match=r"shape.*\(2, 3\)"):
            sn.cross_entropy(x, bad)


@pytest.mark.parametrize("bad", [3, -1, -101, 2**40])
def test_22_out_of_range(bad, dtype):
    x = np.zeros((2, 2, 3), dtype)
    y = np.zeros((2, 2), np.int64)
    y[1, 0] = bad
    with pytest.raises(ValueError, match=rf"targets\[1, 0\] is {bad}.*3 classes"):
        sn.cross_entropy(x, y)
    loss, grad = both(x, y, check=False)
    assert np.isnan(loss[1, 0])
    assert np.isnan(grad[1, 0]).all()
    assert np.isfinite(np.delete(loss.ravel(), 2)).all()
    assert np.isnan(sn.cross_entropy(x, y, check=False, class_weight=[1.0, 2.0, 3.0], label_smoothing=0.1))


def test_22_unsigned_targets():
    x = np.zeros((2, 3))
    bad = np.array([2**64 - 100, 0], np.uint64)  # −100 if it wrapped around
    with pytest.raises(ValueError, match=r"targets\[0\] is 18446744073709551516"):
        sn.cross_entropy(x, bad)
    assert np.isnan(sn.cross_entropy(x, bad, check=False))
    assert sn.cross_entropy(x, np.array([255, 0], np.uint8), ignore_index=255) == pytest.approx(np.log(3))


def test_22_large_unsigned_targets_and_ignore_index():
    x = np.zeros((2, 3))
    loss = sn.cross_entropy(x, np.array([999, 0], np.uint64), ignore_index=3, check=False, reduction="none")
    assert np.isnan(loss[0])
    most = 2**64 - 1
    loss = sn.cross_entropy(x, np.array([most, 0], np.uint64), ignore_index=most, reduction="none")
    assert loss[0] == 0


def test_22_ignored_inside_the_range():
    x = np.array([[1.0, 2.0], [3.0, 5.0]])
    assert sn.cross_entropy(x, [0, 1], ignore_index=0) == sn.cross_entropy(x[1:], [1])


def test_23_soft_targets_that_are_no_distribution(real):
    x = np.zeros((2, 3), real)
    for row, message in (
        ([0.5, 0.6, -0.1], "holds -0.1"),
        ([0.5, NAN, 0.5], "nan"),
        ([0.5, 0.5, 0.1], "sums to 1.1"),
        ([0.0, 0.0, 0.0], "sums to 0.0"),
        ([INF, 0.0, 0.0], "sums to inf"),
        ([INF, -INF, 0.0], "holds -inf"),
    ):
        q = np.array([[1, 0, 0], row], real)
        with pytest.raises(ValueError, match=rf"targets\[1\].*{message}"):
            sn.cross_entropy(x, q)
        sn.cross_entropy(x, q, check=False)
        assert sn.cross_entropy(x, q, sample_weight=[1, 0]) == pytest.approx(np.log(3))
    within = np.array([[1, 0, 0], [0.5, 0.5 + 5e-7, 0]], real)
    sn.cross_entropy(x, within)


def test_23_half_soft_targets_are_rounded(dtype):
    q = sn.softmax(np.random.default_rng(0).normal(size=(50, 7))).astype(dtype)
    sn.cross_entropy(np.zeros((50, 7)), q)


@pytest.mark.needs("masks")
def test_25_mass_on_a_masked_class():
    x = np.array([[1.0, 2.0, 3.0]])
    mask = [True, False, True]
    with pytest.raises(ValueError, match=r"targets\[0\] is 1.*where"):
        sn.cross_entropy(x, [1], where=mask)
    with pytest.raises(ValueError, match=r"targets\[0\].*where"):
        sn.cross_entropy(x, [[0.5, 0.5, 0.0]], where=mask)
    loss, grad = both(x, [1], where=mask, check=False)
    assert loss[0] == INF
    assert np.allclose(grad[0, [0, 2]], sn.softmax(x[:, [0, 2]])[0], rtol=1e-15, atol=0)
    assert grad[0, 1] == 0
    assert sn.cross_entropy(x, [-100], where=mask, reduction="sum") == 0


def test_26_softcap_bounds_minus_inf(real):
    x = np.array([[-INF, 0, INF]], real)
    loss, grad = both(x, [0], softcap=5.0)
    capped = np.array([[-5.0, 0, 5.0]])
    assert loss == pytest.approx(sn.cross_entropy(capped, [0]))
    assert (grad[0, [0, 2]] == 0).all()
