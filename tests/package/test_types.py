"""Functions return the types that their overloads promise; tests/typing/client.py says which, to mypy and pyright."""

import inspect
from typing import get_overloads

import numpy as np
import pytest

import softnll as sn
from softnll._core import options

X, Y = [[5.0, 4.0, 2.0], [4.0, 2.0, 8.0]], [0, 2]
LOSSES = {
    "cross_entropy": lambda x, **given: sn.cross_entropy(x, Y, **given),
    "nll_loss": lambda x, **given: sn.nll_loss(sn.log_softmax(x), Y, **given),
    "cross_entropy_and_grad": lambda x, **given: sn.cross_entropy_and_grad(x, Y, **given)[0],
    "linear_cross_entropy": lambda x, **given: sn.linear_cross_entropy(x, np.eye(3, dtype=x.dtype), Y, **given),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_a_reduced_loss_is_a_number_of_the_logits_type_and_others_are_an_array_of_it(name, dtype):
    x = np.array(X, dtype)
    assert type(LOSSES[name](x)) is dtype
    assert type(LOSSES[name](x, reduction="sum")) is dtype
    losses = LOSSES[name](x, reduction="none")
    assert type(losses) is np.ndarray
    assert losses.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_softmax_returns_the_type_and_the_shape_of_the_logits(dtype):
    x = np.array(X, dtype)
    for result in (sn.softmax(x), sn.log_softmax(x), sn.cross_entropy_and_grad(x, Y)[1]):
        assert type(result) is np.ndarray
        assert (result.dtype, result.shape) == (dtype, x.shape)
    assert sn.logsumexp(x).dtype == dtype
    assert isinstance(sn.logsumexp(x, axis=None), np.floating)
    assert isinstance(sn.logsumexp(x, return_sign=True), tuple)


@pytest.mark.parametrize("function", [each for name in sn.__all__ if get_overloads(each := getattr(sn, name))])
def test_each_overload_has_the_parameters_of_its_function(function):
    wanted = _names(inspect.signature(function))
    for each in get_overloads(function):
        assert _names(inspect.signature(each)) == wanted


def test_the_functions_whose_types_depend_on_their_arguments_have_overloads():
    found = {name for name in sn.__all__ if get_overloads(getattr(sn, name))}
    assert found == {"softmax", "log_softmax", "logsumexp", "linear_cross_entropy_and_grad", *LOSSES}


def _names(signature):
    """Return the parameters' names, with those of ``**options`` from the table that its annotation names."""
    found = set()
    for each in signature.parameters.values():
        if each.kind is inspect.Parameter.VAR_KEYWORD:
            table = each.annotation.removeprefix("Unpack[").removesuffix("]")
            found |= set(getattr(options, table).__annotations__)
        else:
            found.add(each.name)
    return found


def test_a_name_that_the_package_has_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'crossentropy'"):
        sn.crossentropy  # noqa: B018
