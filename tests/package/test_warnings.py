"""Each warning shows the line of the user's code that caused it, whatever calls softnll in between."""

import inspect
import os
import subprocess
import sys
import warnings

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import softnll as sn
import softnll.torch as snt

DIGITS, LABELS = (each[:200] for each in load_digits(return_X_y=True))


def line_of(call):
    """Return the last line of a function, whose warnings the test wants to see there."""
    lines, start = inspect.getsourcelines(call)
    return start + len(lines) - 1


def shown(call, category=UserWarning):
    """Call a function and return the places of its warnings of a category."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return {(each.filename, each.lineno) for each in caught if each.category is category}


def test_fit_and_what_calls_it():
    few = sn.SoftmaxClassifier(max_iter=1)

    def alone():
        few.fit(DIGITS, LABELS)

    def in_a_pipeline():
        make_pipeline(StandardScaler(), few).fit(DIGITS, LABELS)

    def in_a_search():
        GridSearchCV(few, {"C": [0.1, 1.0]}, cv=2).fit(DIGITS, LABELS)

    for call in (alone, in_a_pipeline, in_a_search):
        assert shown(call, ConvergenceWarning) == {(__file__, line_of(call))}


def test_fuse_of_what_cannot_be_fused():
    block = torch.nn.Sequential(torch.nn.ReLU())

    def call():
        snt.fuse(torch.nn.Sequential(block), head="0")

    assert shown(call) == {(__file__, line_of(call))}


def test_a_fused_head_that_gets_a_hook():
    model = snt.fuse(torch.nn.Sequential(torch.nn.Linear(3, 4)), head="0")
    model[0].register_forward_hook(lambda *_: None)

    def call():
        model(torch.zeros(2, 3))

    assert shown(call) == {(__file__, line_of(call))}


@pytest.mark.parametrize("read", [torch.Tensor.softmax, torch.nn.functional.softmax, torch.nn.Softmax(1).__call__])
def test_logits_of_a_fused_head_that_are_read(read):
    logits = snt.fuse(torch.nn.Linear(3, 4), head="")(torch.zeros(2, 3))

    def call():
        read(logits, dim=1) if read.__name__ == "softmax" else read(logits)

    assert shown(call) == {(__file__, line_of(call))}


@pytest.mark.parametrize("function", [snt.softmax, snt.log_softmax])
def test_an_implied_dimension(function):
    def call():
        function(torch.zeros(2, 3))

    assert shown(call) == {(__file__, line_of(call))}


@pytest.mark.parametrize(
    "code",
    [
        "sn.softmax(x)",
        "sn.cross_entropy(x, y)",
        "sn.cross_entropy_and_grad(x, y)",
        "sn.linear_cross_entropy(x, x, y)",
        "sn.logsumexp(x)",
        "sn.nll_loss(x, y)",
        "snt.cross_entropy(torch.tensor(x), torch.tensor(y))",
        "snt.CrossEntropyLoss()(torch.tensor(x, requires_grad=True), torch.tensor(y))",
        "sn.fit_temperature(x, [0, 1, 1])",
        "sn.diagnose(x, y)",
        "sn.SoftmaxClassifier().fit(x, y)",
    ],
)
def test_a_computation_without_numba(code, tmp_path):
    lines = "import numpy as np, softnll as sn", "x, y = np.eye(3), np.arange(3)", "", code
    program = tmp_path / "program.py"
    program.write_text("\n".join(("import torch, softnll.torch as snt" * code.startswith("snt"), *lines)))
    done = subprocess.run(
        [sys.executable, "-W", "always", program], env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"{program}:5: RuntimeWarning: Numba cannot be used" in done.stderr


def test_kernels_that_cannot_be_cached(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import errno, os, numpy as np, softnll as sn\n"
        "\n"
        "def full(*_, **__): raise OSError(errno.ENOSPC, 'full')\n"
        "os.replace = os.rename = os.link = full  # how a file is put in its place\n"
        "sn.logsumexp(np.eye(3))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", program], env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"{program}:5: RuntimeWarning: compiled kernels cannot be written" in done.stderr
