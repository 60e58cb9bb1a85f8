"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil

import ml_dtypes
import numpy as np
import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: this machine need not have a GPU

import backends

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


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
