"""Calls every function of the base install, and sees that what needs more says so. Run where only that is installed."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import numpy as np

import softnll as sn


def main():
    missing = [name for name in ("sklearn", "typer", "rich", "matplotlib", "torch") if importlib.util.find_spec(name)]
    assert not missing, f"this is no base install: {missing} can be imported"
    x, y = np.array([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]]), np.array([0, 2, 1])
    for dtype in (np.float16, np.float32, np.float64, np.int8):
        logits = x.astype(dtype)
        assert np.allclose(sn.softmax(logits).sum(axis=1), 1, atol=1e-2)
        assert np.allclose(np.exp(sn.log_softmax(logits)), sn.softmax(logits), atol=1e-2)
        assert sn.logsumexp(logits).shape == (3,)
        loss, grad = sn.cross_entropy_and_grad(logits, y)
        assert round(float(loss), 6) == 0.362443
        assert sn.cross_entropy(logits, y) == loss
        assert abs(grad.astype(float).sum()) < 1e-2
    assert np.isclose(sn.nll_loss(sn.log_softmax(x), y), sn.cross_entropy(x, y))
    assert sn.softmax_jacobian(x).shape == (3, 3, 3)
    assert np.allclose(sn.softmax_vjp(x, x), sn.softmax_jvp(x, x))
    assert sn.cross_entropy_hvp(x, y, x).shape == (3, 3)
    loss, grads = sn.linear_cross_entropy_and_grad(x, np.eye(3), y, bias=np.zeros(3))
    assert np.isclose(sn.linear_cross_entropy(x, np.eye(3), y), loss)
    assert grads.weight.shape == (3, 3)
    assert sn.fit_temperature(x, np.array([0, 2, 2])) > 0
    assert "nll" in repr(sn.explain(x, y))
    assert "labels-off-by-one" in repr(sn.diagnose(np.eye(3) * 4, [1, 2, 3]))
    try:
        _ = sn.SoftmaxClassifier
    except ImportError as error:
        assert "softnll[app]" in str(error)  # noqa: PT017 - pytest is not installed here
    else:
        raise AssertionError("SoftmaxClassifier without scikit-learn")
    try:
        importlib.import_module("softnll.torch")
    except ImportError as error:
        assert "softnll[torch]" in str(error)  # noqa: PT017
    else:
        raise AssertionError("softnll.torch without PyTorch")
    done = subprocess.run(
        [sys.executable, "-m", "softnll._cli.main", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done
    assert "softnll[app]" in done.stderr
    print("base install: every function ran")  # noqa: T201 - it is a script


if __name__ == "__main__":
    main()
