"""The example of docs/jax.md."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


@pytest.mark.slow
def test_digits():
    pytest.importorskip("optax")
    path = Path(__file__).parents[2] / "examples" / "jax_digits.py"
    assert runpy.run_path(str(path))["main"](epochs=10) > 0.93
