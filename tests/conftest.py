"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil

# Before NumPy and torch are imported: each worker is a process, whose threads would spin beside the other's.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", str(os.cpu_count()))  # ours wait without spinning
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's

import numpy as np
import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: this machine need not have a GPU

import backends
import tiers
from cases import DTYPES
from softnll._core.problem import Problem


def _set_once(problem, name, value):
    """Set an attribute of a Problem that has none of this name yet: nobody writes to a Problem."""
    if hasattr(problem, name):
        raise AttributeError(f"{name} of a Problem is written to")
    object.__setattr__(problem, name, value)


Problem.__setattr__ = _set_once  # for all tests


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their marks
def pytest_collection_modifyitems(items):
    """Mark slow tests, and leave out the backends that lack what a test needs."""
    items[:] = [item for item in items if not lacking(item)]
    tiers.mark_slow(items, pytest.mark.slow)
    tiers.longest_first(items)


def lacking(item):
    """Whether a test runs on a backend that lacks what the test's marks ``needs`` name, or leaves out its type."""
    needed = {each for mark in item.iter_markers("needs") for each in mark.args}
    if unknown := needed - set(backends.LACKS):
        raise pytest.UsageError(
            f"{item.nodeid} needs {sorted(unknown)}; tests/backends.py names {sorted(backends.LACKS)}"
        )
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    on = parameters.get("backend")
    types = {parameters[name] for name in ("dtype", "real") if isinstance(parameters.get(name), str)}
    if on in backends.TYPES and types and types.isdisjoint(backends.TYPES[on]):
        return True
    return any(on in backends.LACKS[each] for each in needed)


@pytest.fixture(params=backends.NAMES)
def backend(request, monkeypatch):
    """Each backend in turn, in use by the public functions."""
    return backends.patch(monkeypatch, request.param)


@pytest.fixture(params=list(DTYPES))
def dtype(request):
    """Each floating-point type in turn."""
    return np.dtype(DTYPES[request.param])


@pytest.fixture(params=["float32", "float64"])
def real(request):
    """The two types that losses have."""
    return np.dtype(DTYPES[request.param])


@pytest.fixture(scope="module")
def browser():
    """Return a real Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine: the page was not opened in a browser")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()
