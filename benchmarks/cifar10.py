"""How far a linear softmax classifier on pixels gets: options chosen on 5000 held-out training images, one test.

    python benchmarks/cifar10.py --data cifar10 [--source FOLDER] [--quick]
    python benchmarks/cifar10.py --data fashion-mnist

The features are the pixels, centred; optionally divided by their standard deviation, and optionally with each training
image's mirror image as a second row (the classifier stays linear in the pixels). The penalty is scanned as
λ = 1/(C·rows), so that numbers of rows compare. The test images are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

import softnll as sn
from machine import describe
from page import table_first
from softnll.data import load

HELD_OUT = 5000
RESULTS = Path(__file__).parent / "results"
PENALTIES = {  # λ from strong to weak; each fit starts where the one before it ended
    "cifar10": (0.1, 0.03, 0.01),
    "fashion-mnist": (3e-3, 1e-3, 3e-4, 1e-4, 3e-5),
}


@dataclass(frozen=True)
class Choice:
    """What is chosen on the held-out images."""

    penalty: float
    scaled: bool
    mirrored: bool
    smoothing: float


def prepare(images, choice: Choice, *others):
    """Return the rows of the images and of others, centred (and scaled) by the mean and deviation of the former."""
    pixels = np.concatenate([images, images[:, :, ::-1]]) if choice.mirrored else images
    X = pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255)
    mean = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    X -= mean
    # The square root of the mean square, row by row: X**2 whole would be a second X.
    deviation = np.sqrt(np.einsum("nh,nh->h", X, X, dtype=np.float64) / len(X)).astype(np.float32)
    scale = deviation + np.float32(0.01) if choice.scaled else np.float32(deviation.mean())
    X /= scale
    return X, [(each.reshape(len(each), -1).astype(np.float32) / np.float32(255) - mean) / scale for each in others]


def labels(y, choice: Choice):
    return np.concatenate([y, y]) if choice.mirrored else y


def judge(model, X, y) -> tuple[float, float]:
    """Return accuracy and mean NLL."""
    logits = model.decision_function(X)
    return float((logits.argmax(axis=1) == y).mean()), float(sn.cross_entropy(logits, y))


def fit(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are in the table
        return model.fit(X, y)


def scan(data: str, images, y, quick: bool):
    """Yield each choice with its accuracy, NLL and iterations on the held-out images."""
    order = np.random.default_rng(0).permutation(len(y))
    held, kept = order[:HELD_OUT], order[HELD_OUT : 5 * HELD_OUT if quick else None]
    flips = (False, True) if data == "cifar10" else (False,)
    variants = [(scaled, flip) for flip in flips for scaled in (False, True)]
    for scaled, flip in variants:
        base = Choice(1.0, scaled, flip, 0.0)
        X, (V,) = prepare(images[kept], base, images[held])
        target = labels(y[kept], base)
        for smoothing in (0.0,) if flip else (0.0, 0.1):  # no better without mirror images, at half the time
            model = sn.SoftmaxClassifier(
                warm_start=True, tol=1e-4, max_iter=60 if quick else 200, label_smoothing=smoothing
            )
            for penalty in PENALTIES[data]:
                fit(model.set_params(C=1 / (penalty * len(X))), X, target)
                accuracy, nll = judge(model, V, y[held])
                yield replace(base, penalty=penalty, smoothing=smoothing), accuracy, nll, model.n_iter_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=sorted(PENALTIES), default="cifar10")
    parser.add_argument("--source", help="folder of the data's files (default: where softnll.data.load finds them)")
    parser.add_argument("--quick", action="store_true", help="scan on 20 000 images, 60 iterations each")
    arguments = parser.parse_args()
    train, test = load(arguments.source or arguments.data)
    images, y = train.inputs, train.labels
    lines = []
    best = None
    for choice, accuracy, nll, iterations in scan(arguments.data, images, y, arguments.quick):
        row = (
            f"| {choice.penalty:g} | {'pixel' if choice.scaled else 'one'} | {'yes' if choice.mirrored else 'no'} "
            f"| {choice.smoothing:g} | {accuracy:.4f} | {nll:.4f} | {iterations} |"
        )
        print(row, flush=True)
        lines.append(row)
        if best is None or accuracy > best[1]:
            best = (choice, accuracy)
    choice, held = best
    X, (T,) = prepare(images, choice, test.inputs)
    begin = time.perf_counter()
    model = sn.SoftmaxClassifier(
        C=1 / (choice.penalty * len(X)), tol=1e-4, max_iter=1000, label_smoothing=choice.smoothing
    )
    fit(model, X, labels(y, choice))
    seconds = time.perf_counter() - begin
    accuracy, nll = judge(model, T, test.labels)
    text = f"""# A linear softmax classifier on the pixels of {train.name}

All {len(y)} training images, {len(test.labels)} test images. Options were chosen by accuracy on {HELD_OUT} training
images held out (the highest of {len(lines)}); then the classifier was fitted to all training images, and the test
images were looked at once.

| | |
|---|---|
| test accuracy | **{accuracy:.4f}** |
| test NLL (nats) | {nll:.4f} |
| held-out accuracy of the choice | {held:.4f} |
| λ = 1/(C·rows) | {choice.penalty:g} |
| pixels divided by | {"their own deviation + 0.01" if choice.scaled else "their mean deviation"} |
| mirror images as further rows | {"yes" if choice.mirrored else "no"} |
| label smoothing | {choice.smoothing:g} |
| final fit | {len(X)} rows of {X.shape[1]} {X.dtype}, {model.n_iter_} iterations, {seconds:.1f} s |
| machine | {describe("numpy", "scipy", "numba")} |

## The scan

| λ | divided by | mirrored | smoothing | held-out accuracy | held-out NLL | iterations |
|---|---|---|---|---|---|---|
"""
    path = RESULTS / f"classifier-{arguments.data}.md"
    path.write_text(table_first(text + "\n".join(lines)), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
