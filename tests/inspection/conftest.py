"""Fixtures of the tests of explanations."""

from __future__ import annotations

import pytest

import softnll as sn
from cases import SCORES, TRUE


@pytest.fixture
def explained():
    """Return the explanation of three images, of a cat, a horse and a dog."""
    return sn.explain(SCORES, TRUE, class_names=["cat", "dog", "horse"])
