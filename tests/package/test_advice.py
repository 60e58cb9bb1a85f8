"""Advice in error messages can be followed: the parameters and options that they name exist where they are raised."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import softnll as sn

SOURCE = Path(sn.__file__).parent
_ADVICE = re.compile(r"(?<![\w.])(?:(--[a-z][a-z-]+)|([a-z_]+)=(?!=)|unless ([a-z_]+) is )")

LOSSES = ("cross_entropy", "cross_entropy_and_grad", "cross_entropy_hvp", "nll_loss", "fit_temperature")
LINEAR = ("linear_cross_entropy", "linear_cross_entropy_and_grad")
READERS = ("diagnose", "explain", "report")

#: Who can raise what a module says about a parameter (functions of softnll by name) or an option (commands).
RAISED_BY = {
    ("_classifier/examples.py", "--labels"): ("train",),
    ("_classifier/prepare.py", "--mirror"): ("train",),
    ("_cli/explain.py", "--derivation"): ("explain",),
    ("_cli/explain.py", "--figure"): ("explain",),
    ("_cli/explain.py", "--target"): ("explain",),
    ("_cli/predict.py", "--out"): ("predict",),
    ("_cli/report.py", "--out"): ("report",),
    ("_cli/score_arguments.py", "--classes"): READERS,
    ("_cli/train.py", "--mirror"): ("train",),
    ("_core/targets.py", "check"): (*LOSSES, *LINEAR, "SoftmaxClassifier.fit", "SoftmaxClassifier.partial_fit"),
    ("_core/targets.py", "ignore_index"): (*LOSSES, *LINEAR),
    ("_core/targets.py", "where"): ("cross_entropy", "cross_entropy_and_grad", "cross_entropy_hvp", "fit_temperature"),
    ("dask/_train.py", "--labels"): ("train",),
    ("data/columns.py", "--label-column"): (*READERS, "train"),
    ("data/load.py", "--labels"): ("train",),
    ("data/load.py", "labels"): ("data.load",),
    ("data/mnist.py", "labels"): ("data.load",),
    ("data/npz.py", "labels"): ("data.load",),
    ("data/pairs.py", "--label-column"): READERS,
    ("data/tables.py", "labels"): ("data.load",),
    ("torch/_base/autograd_base.py", "reduction"): ("torch.cross_entropy", "torch.nll_loss"),
    ("torch/_base/checks.py", "check"): ("torch.cross_entropy", "torch.linear_cross_entropy"),
    ("torch/_base/inputs.py", "reduction"): ("torch.cross_entropy", "torch.nll_loss"),
}


def advice_of(tree):
    """Return the parameters and options that the messages of raise statements and warnings name."""
    found = set()
    for node in ast.walk(tree):
        warns = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "warn"
        if not (isinstance(node, ast.Raise) or warns):
            continue
        for each in ast.walk(node):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                found |= {next(filter(None, match)) for match in _ADVICE.findall(each.value)}
    return found


def collected():
    """Return (module, name) of all advice in the package."""
    modules = sorted(SOURCE.rglob("*.py"))
    named = {path: advice_of(ast.parse(path.read_text(encoding="utf-8"))) for path in modules}
    return {(path.relative_to(SOURCE).as_posix(), name) for path, names in named.items() for name in names}


def test_all_advice_is_listed():
    found = collected()
    unlisted = sorted(found - RAISED_BY.keys())
    assert not unlisted, f"new advice: say in RAISED_BY who raises it: {unlisted}"
    assert RAISED_BY.keys() <= found


def test_the_collection_can_find_something():
    tree = ast.parse("raise ValueError(f'{x} is bad; pass it as mask=~m, or --flag; 1 unless loud is True')")
    assert advice_of(tree) == {"mask", "--flag", "loud"}


@pytest.mark.parametrize(("place", "name"), [key for key in RAISED_BY if not key[1].startswith("--")])
def test_named_parameters_exist(place, name):
    options = sn._core.options.LossOptions.__annotations__
    for function in RAISED_BY[place, name]:
        if function.startswith("torch."):
            pytest.importorskip("softnll.torch")
        found = sn
        for part in function.split("."):
            found = getattr(found, part)
        parameters = inspect.signature(found).parameters
        if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            assert name in {*parameters, *options}, function
        else:
            assert name in parameters, function


@pytest.mark.parametrize(("place", "name"), [key for key in RAISED_BY if key[1].startswith("--")])
def test_named_options_exist(place, name):
    typer = pytest.importorskip("typer")
    commands = typer.main.get_command(import_module("softnll._cli.commands").app).commands
    for command in RAISED_BY[place, name]:
        assert any(name in parameter.opts for parameter in commands[command].params), command


SHORT = np.full((3, 3), 0.3)
EYE = np.eye(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda **check: sn.cross_entropy(EYE, SHORT, **check),
        lambda **check: sn.cross_entropy_and_grad(EYE, SHORT, **check),
        lambda **check: sn.cross_entropy_hvp(EYE, SHORT, EYE, **check),
        lambda **check: sn.nll_loss(-EYE, SHORT, **check),
        lambda **check: sn.linear_cross_entropy(EYE, EYE, SHORT, **check),
        lambda **check: sn.linear_cross_entropy_and_grad(EYE, EYE, SHORT, **check),
        lambda **check: sn.fit_temperature(5 * EYE, 0.8 * EYE + 0.05, **check),
        lambda **check: sn.SoftmaxClassifier().fit(EYE, SHORT, **check),
        lambda **check: sn.SoftmaxClassifier().partial_fit(EYE, SHORT, **check),
    ],
)
def test_check_that_is_false_takes_other_masses(call):
    with pytest.raises(ValueError, match=r"sums to 0\.[89]\d*; allowed: 1 within 1e-06 unless check is False"):
        call()
    call(check=False)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("logits", lambda masked: sn.softmax(masked((2, 3)))),
        ("logits", lambda masked: sn.softmax_jacobian(masked((2, 3)))),
        ("log_probs", lambda masked: sn.nll_loss(masked((2, 3)), [0, 1])),
        ("features", lambda masked: sn.linear_cross_entropy(masked((2, 4)), np.ones((3, 4)), [0, 1])),
        ("class_weight", lambda masked: sn.cross_entropy(np.zeros((2, 3)), [0, 1], class_weight=masked(3))),
        ("sample_weight", lambda masked: sn.cross_entropy(np.zeros((2, 3)), [0, 1], sample_weight=masked(2))),
        ("temperature", lambda masked: sn.softmax(np.zeros((2, 3)), temperature=masked(2))),
    ],
)
def test_masked_arrays_get_advice_that_every_function_allows(name, call):
    with pytest.raises(TypeError, match=f"^{name} is a masked array; allowed: a plain one") as caught:
        call(lambda shape: np.ma.array(np.ones(shape), mask=np.zeros(shape, bool)))
    assert "=" not in str(caught.value)


@pytest.mark.parametrize("C", [3, 50_257, 256_000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_softmax_of_another_library_is_a_distribution(C, dtype):
    scores = (np.random.default_rng(0).normal(size=(2, C)) * 3).astype(np.float32)
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    in_a_row = exponentials / exponentials.cumsum(axis=1)[:, -1:]  # added up one by one, in float32
    teacher = in_a_row.astype(dtype)
    assert np.isfinite(sn.cross_entropy(scores, teacher))
    assert np.isfinite(
        sn.cross_entropy(scores, teacher.astype(np.float64) if C > 3 and dtype == np.float32 else teacher)
    )
    with pytest.raises(ValueError, match="sums to"):
        sn.cross_entropy(scores, (in_a_row * np.float32(1.05 if dtype == np.float16 else 1.002)).astype(dtype))
