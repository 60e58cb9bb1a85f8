"""Fixtures of all tests."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

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
