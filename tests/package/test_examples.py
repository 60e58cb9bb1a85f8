"""The programs of ``examples/``: they are short, they run, and what they compute is what their formulas say."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
ELSEWHERE = {"dask_classifier", "fsdp_fused", "jax_digits", "tensor_parallel_head"}  # tests of their rooms run them

# What runs of each example, and what must be true of its result: small sizes, which take seconds.
RUNS = {
    "cifar10_convnet": ("main(epochs=2, most=1000)", lambda accuracy: accuracy > 0.2),
    "finetune_trainer": ("main(steps=10), main(fused=False, steps=10)", lambda found: _alike(*found)),
    "finetune_loop": (
        "main(steps=4), main(fused=False, steps=4), main(parts=1, steps=4)",
        lambda found: _alike(*found[:2]) and found[2] == pytest.approx(found[0], rel=1e-3),
    ),
    "lightning_digits": ("main(epochs=5)", lambda accuracy: accuracy > 0.85),
    "distillation": ("main(steps=60)", lambda found: found[0] < 0.05 and found[1] > 0.2),
    "preferences": ("main(steps=20)", lambda found: found[1] < 0.5 < found[0]),
    "calibrate_torch": ("main()", lambda found: found[0] > 1 and found[2] < found[1]),
    "grid_search": ("main()", lambda found: found[2] > 0.95),
}


def _alike(fused, plain):
    """Return whether the losses of a fused model are those of the plain one, and fall."""
    return fused == pytest.approx(plain, rel=1e-3) and fused[-1] < fused[0]


@pytest.fixture(scope="module")
def preferences():
    return runpy.run_path(str(EXAMPLES / "preferences.py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_a_test_runs_it(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert path.stem in {*RUNS, *ELSEWHERE} or f"from {path.stem} import" in (EXAMPLES / "finetune_loop.py").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs_and_learns(name, tmp_path):
    """No data set of this machine is used: the bounds are those of digits."""
    if name == "lightning_digits" and find_spec("lightning") is None:
        pytest.skip("lightning is not installed: its example is untested")
    call, holds = RUNS[name]
    code = f"import json, sys; sys.path.insert(0, {str(EXAMPLES)!r}); from {name} import main; found = {call}; "
    code += "print(); print(json.dumps(found, default=float))"
    own = {**os.environ, "SOFTNLL_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=False, env=own
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert holds(found), found


def test_token_log_probs_are_those_of_all_logits(preferences):
    generator = torch.Generator().manual_seed(0)
    features, head = torch.randn(3, 5, 4, generator=generator), torch.randn(20, 4, generator=generator)
    tokens = torch.randint(20, (3, 5), generator=generator)
    tokens[1, 3:] = -100
    wanted = (features @ head.T).log_softmax(-1).gather(-1, tokens.clamp(min=0)[..., None])[..., 0]
    wanted = torch.where(tokens == -100, 0.0, wanted)
    torch.testing.assert_close(preferences["token_log_probs"](features, head, tokens), wanted)


def test_dpo_is_its_formula(preferences):
    generator = torch.Generator().manual_seed(1)
    chosen, rejected, chosen_before, rejected_before = -torch.rand(4, 6, 7, generator=generator, dtype=torch.float64)
    wanted = 0.0
    for n in range(6):
        ratio = (chosen[n].sum().exp() / chosen_before[n].sum().exp()).log()
        other = (rejected[n].sum().exp() / rejected_before[n].sum().exp()).log()
        wanted -= torch.sigmoid(0.3 * (ratio - other)).log() / 6
    found = preferences["dpo_loss"](chosen, rejected, chosen_before, rejected_before, beta=0.3)
    torch.testing.assert_close(found, wanted)


def test_grpo_is_its_formula(preferences):
    generator = torch.Generator().manual_seed(2)
    now, old, reference = -torch.rand(3, 4, 5, generator=generator, dtype=torch.float64) * 2
    rewards = torch.rand(4, generator=generator, dtype=torch.float64)
    lengths = [5, 2, 4, 1]
    mask = torch.tensor([[float(t < length) for t in range(5)] for length in lengths], dtype=torch.float64)
    wanted = 0.0
    for i, length in enumerate(lengths):
        advantage = (rewards[i] - rewards.mean()) / (rewards.std() + 1e-4)
        for t in range(length):
            ratio = now[i, t].exp() / old[i, t].exp()
            clipped = min(max(float(ratio), 0.8), 1.2)
            quotient = reference[i, t].exp() / now[i, t].exp()
            term = min(ratio * advantage, clipped * advantage) - 0.04 * (quotient - quotient.log() - 1)
            wanted -= term / length / len(lengths)
    torch.testing.assert_close(preferences["grpo_loss"](now, old, reference, rewards, mask), wanted)


def test_distillation_from_all_classes_is_that_of_dense_targets():
    example = runpy.run_path(str(EXAMPLES / "distillation.py"))
    generator = torch.Generator().manual_seed(3)
    features, head = torch.randn(6, 4, generator=generator), torch.randn(20, 4, generator=generator)
    sparse = example["teacher_targets"](features, head, top=20)
    dense = torch.zeros(6, 20).scatter(1, sparse.indices, sparse.probabilities)
    torch.testing.assert_close(dense, (features @ head.T / example["TEMPERATURE"]).softmax(1))
