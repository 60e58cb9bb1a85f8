"""How exact: the worst errors of softnll and its peers against mpmath, on the rows of the tests and on confident ones.

    python benchmarks/accuracy.py

Writes ``benchmarks/results/accuracy.md`` and ``.csv``. Errors are in units in the last place of the type; the loss and
the gradient at the target are given relative to the truth, which is what a vanishing gradient needs.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import ml_dtypes  # noqa: E402
import scipy.special  # noqa: E402
import torch  # noqa: E402
from sklearn._loss.loss import HalfMultinomialLoss  # noqa: E402

import oracle  # noqa: E402
import softnll as sn  # noqa: E402
from cases import hard_rows  # noqa: E402
from machine import describe  # noqa: E402
from page import table_first  # noqa: E402

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def ours(x, y):
    loss, grad = sn.cross_entropy_and_grad(x, y, reduction="none")
    return {"softmax": sn.softmax(x), "log_softmax": sn.log_softmax(x), "loss": loss, "gradient": grad}


def torch_eager(x, y):
    z = torch.from_numpy(x.astype(np.float64)).to(getattr(torch, x.dtype.name)).requires_grad_()
    loss = torch.nn.functional.cross_entropy(z, torch.from_numpy(y), reduction="none")
    loss.sum().backward()
    with torch.no_grad():
        values = (z.softmax(1), z.log_softmax(1), loss, z.grad)
    return dict(
        zip(("softmax", "log_softmax", "loss", "gradient"), (v.detach().double().numpy() for v in values), strict=True)
    )


def scipy_special(x, y):
    log_p = scipy.special.log_softmax(x, axis=1)
    p = scipy.special.softmax(x, axis=1)
    grad = p.copy()
    grad[np.arange(len(y)), y] -= 1
    return {"softmax": p, "log_softmax": log_p, "loss": -log_p[np.arange(len(y)), y], "gradient": grad}


def scikit_learn(x, y):
    loss, grad = HalfMultinomialLoss(n_classes=x.shape[1]).loss_gradient(y.astype(x.dtype), x)
    return {"loss": loss, "gradient": grad}


def worst(got, exact, kind, dtype):
    """Return the largest error in units in the last place."""
    errors = []
    for i, row in enumerate(exact):
        if kind == "loss":
            pairs = [(got[i], row.loss)]
        else:
            truths = {"softmax": row.p, "log_softmax": row.log_p, "gradient": row.grad}[kind]
            pairs = zip(got[i], truths, strict=True)
        bound = 4.0 if dtype.itemsize > 2 else 0.51
        errors.append(max(oracle.ulps(float(g), t, dtype, bound) for g, t in pairs))
    return max(errors)


def confident(dtype):
    """Return rows whose target is 1 to 40 ahead of two others."""
    gaps = np.arange(1, 41, dtype=np.float64)
    return np.stack([gaps, 0 * gaps, 0 * gaps], axis=1).astype(dtype)


def main():
    table = []
    for name, dtype in DTYPES.items():
        x = hard_rows(dtype)
        y = np.arange(len(x)) % 4
        exact = [oracle.row(x[i], int(y[i])) for i in range(len(x))]
        sure = confident(dtype)
        sure_exact = [oracle.row(row, 0) for row in sure]
        peers = {"softnll": ours, "torch": torch_eager}
        if name in ("float32", "float64"):
            peers |= {"SciPy": scipy_special, "scikit-learn": scikit_learn}
        for peer, function in peers.items():
            with np.errstate(all="ignore"):
                got, certain = function(x, y), function(sure, np.zeros(len(sure), np.int64))
            line = {"type": name, "library": peer}
            for kind in ("softmax", "log_softmax", "loss", "gradient"):
                wide = np.dtype(np.float32) if kind == "loss" and np.dtype(dtype).itemsize == 2 else np.dtype(dtype)
                line[kind] = f"{worst(got[kind], exact, kind, wide):.3g}" if kind in got else "-"
            lost = [i for i in range(len(sure)) if float(certain["loss"][i]) == 0]
            flat = [i for i in range(len(sure)) if float(certain["gradient"][i][0]) == 0]
            line["loss is 0 from"] = f"{lost[0] + 1} ahead" if lost else "never"
            line["target gradient is 0 from"] = f"{flat[0] + 1} ahead" if flat else "never"
            errors = [abs(float(1 - float(certain["loss"][i]) / e.loss)) for i, e in enumerate(sure_exact)]
            line["worst relative error of a loss, 1 to 40 ahead"] = f"{max(errors):.1e}"
            table.append(line)
    write(table)


def write(table):
    folder = ROOT / "benchmarks" / "results"
    with (folder / "accuracy.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    heads = list(table[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(row.values()) + " |" for row in table]
    text = (
        f"# Accuracy\n\n{describe()}\n\n"
        "Worst error in units in the last place (of float32 for the losses of half types) over the rows of\n"
        "`tests/cases.py`: gap sweeps, ties, offsets to ±1e6, subnormal results. Below the normal range 2 smallest\n"
        "subnormals count as the bound (4, half types 0.51). Written by `benchmarks/accuracy.py`.\n\n"
    )
    (folder / "accuracy.md").write_text(table_first(text + "\n".join(lines)), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
