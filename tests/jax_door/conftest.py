"""The kernels serve the small arrays of these tests too."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def kernels_for_few_entries(monkeypatch):
    from softnll.jax import _kernels  # noqa: PLC0415 - JAX is imported where a test runs

    monkeypatch.setattr(_kernels, "_LEAST", 0)
