"""softnll.jax beside optax and jax.nn, under jit on the CPU: time, compiled memory, errors.

    python benchmarks/jax_losses.py [--samples 5] [--only logits|linear|errors] [--out DIR]

Ways take turns in one process; a time is the shortest of the turns. (Not named jax.py, which would hide the library.)
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import softnll as sn
import softnll.jax as snj
from machine import describe
from page import table_first

RESULTS = Path(__file__).parent / "results"
SHAPES = [(128, 10), (8192, 1000), (100_000, 100), (4096, 32_000)]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--only", choices=["logits", "linear", "errors"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of jax-*.csv and .md")
    return parser.parse_args()


def peer(x, y):
    return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()


def ours(x, y):
    return snj.cross_entropy(x, y)


def in_turn(calls, arguments, samples):
    """Return the fewest milliseconds of each call; a short one is repeated to 20 ms."""
    repeats = {}
    for name, call in calls.items():
        jax.block_until_ready(call(*arguments))
        start = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        repeats[name] = max(1, int(0.02 / (time.perf_counter() - start)))
    taken = {name: [] for name in calls}
    for _ in range(samples):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                jax.block_until_ready(call(*arguments))
            taken[name].append((time.perf_counter() - start) / repeats[name] * 1e3)
    return {name: min(values) for name, values in taken.items()}


def logits(samples):
    """Yield rows: shape, measure, optax or jax.nn, ours, ratio."""
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = jnp.asarray(3 * rng.standard_normal(shape, np.float32))
        y = jnp.asarray(rng.integers(0, shape[1], shape[0]))
        pairs = {
            "loss": (peer, ours),
            "loss and gradient": (jax.value_and_grad(peer), jax.value_and_grad(ours)),
            "softmax": (lambda x, _: jax.nn.softmax(x), lambda x, _: snj.softmax(x)),
            "log_softmax": (lambda x, _: jax.nn.log_softmax(x), lambda x, _: snj.log_softmax(x)),
        }
        for measure, pair in pairs.items():
            calls = dict(zip(("peer", "ours"), map(jax.jit, pair), strict=True))
            found = in_turn(calls, (x, y), samples)
            ratio = found["ours"] / found["peer"]
            yield [str(list(shape)), measure, f"{found['peer']:.3g}", f"{found['ours']:.3g}", f"{ratio:.2f}"]


def linear(samples):
    """Yield rows: measure, logits + optax, ours, ratio."""
    N, H, C = 4096, 1024, 32_000
    rng = np.random.default_rng(0)
    f, W = (jnp.asarray(rng.standard_normal(s, np.float32) * H**-0.25) for s in ((N, H), (C, H)))
    y = jnp.asarray(rng.integers(0, C, N))
    functions = {"peer": lambda f, W, y: peer(f @ W.T, y), "ours": snj.linear_cross_entropy}
    calls = {
        name: jax.jit(jax.value_and_grad(each, (0, 1))).lower(f, W, y).compile() for name, each in functions.items()
    }
    memory = {name: each.memory_analysis().temp_size_in_bytes / 2**20 for name, each in calls.items()}
    found = in_turn(calls, (f, W, y), samples)
    for name, (a, b) in {
        "milliseconds": (found["peer"], found["ours"]),
        "temporary MiB": (memory["peer"], memory["ours"]),
    }.items():
        yield ["[4096, 1024, 32000]", name, f"{a:.0f}", f"{b:.0f}", f"{b / a:.3f}"]


def errors():
    """Yield rows: logits, measure, largest error in ulp of the peer and ours, both against float64 NumPy."""
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal((512, 1000), np.float32)
    y = rng.integers(0, 1000, 512)
    confident = np.zeros((60, 3), np.float32)
    confident[:, 0] = np.linspace(1, 60, 60)
    for name, (z, t) in {
        "random": (x, y),
        "confident": (confident, np.zeros(60, int)),
        "offset by 1e6": (x + np.float32(1e6), y),
    }.items():
        exact, grad = sn.cross_entropy_and_grad(z.astype(float), t, reduction="none")

        def rows(function):
            loss, back = jax.jit(lambda z: jax.vjp(function, z))(jnp.asarray(z))  # noqa: B023
            return loss, jax.jit(back)(jnp.ones_like(loss))[0]

        per_row = (
            lambda z: optax.softmax_cross_entropy_with_integer_labels(z, t),  # noqa: B023
            lambda z: snj.cross_entropy(z, t, reduction="none"),  # noqa: B023
        )
        for measure, at, want in (("loss", 0, exact), ("gradient", 1, grad)):
            unit = np.spacing(np.abs(want).astype(np.float32)).astype(float)
            found = [float(np.max(np.abs(np.asarray(rows(each)[at], float) - want) / unit)) for each in per_row]
            yield [name, measure, *(f"{each:.3g}" for each in found), ""]


def main():
    arguments = parse()
    parts = {
        "logits": lambda: logits(arguments.samples),
        "linear": lambda: linear(arguments.samples),
        "errors": errors,
    }
    heads = {
        "logits": ["logits", "measure", "optax or jax.nn, ms", "softnll.jax, ms", "ratio"],
        "linear": ["shape", "loss and gradients", "logits + optax", "linear_cross_entropy", "ratio"],
        "errors": ["float32 logits", "largest error", "optax, ulp", "softnll.jax, ulp", ""],
    }
    titles = {
        "logits": "Losses on JAX arrays beside optax",
        "linear": "Linear losses on JAX arrays beside optax",
        "errors": "Errors of losses on JAX arrays beside optax",
    }
    method = "Float32, under jit, ways in turn in one process; shortest of {} turns, on cores that other work shared."
    notes = {
        "logits": method.format(arguments.samples),
        "linear": method.format(arguments.samples)
        + " Temporary: what the compiled program takes beside inputs and results.",
        "errors": "Beside float64 NumPy functions of this library.",
    }
    for part, rows in parts.items():
        if arguments.only in (None, part):
            found = list(rows())
            with (arguments.out / f"jax-{part}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([heads[part], *found])
            table = [heads[part], ["---"] * 5, *found]
            text = "\n".join("| " + " | ".join(row) + " |" for row in table)
            about = describe("numpy", "jax", "jaxlib", "optax")
            (arguments.out / f"jax-{part}.md").write_text(
                table_first(f"# {titles[part]}\n\n{about}\n\n{notes[part]}\n\n{text}"), encoding="utf-8"
            )
            print(text)


if __name__ == "__main__":
    main()
