"""The last layer of a classifier: softmax, negative log-likelihood and their derivatives; exact, fast and light.

NumPy arrays in, NumPy arrays out. Importing the package imports NumPy and nothing else of weight: kernels are compiled,
and scikit-learn, matplotlib and the like are imported, when a function that needs them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from softnll.functional import (
    cross_entropy,
    cross_entropy_and_grad,
    log_softmax,
    logsumexp,
    nll_loss,
    softmax,
)

if TYPE_CHECKING:
    from softnll.calibration import fit_temperature
    from softnll.classifier import SoftmaxClassifier
    from softnll.derivation import Derivation
    from softnll.derivatives import cross_entropy_hvp, softmax_jacobian, softmax_jvp, softmax_vjp
    from softnll.diagnosis import Finding, diagnose
    from softnll.displays import ConfusionDisplay, LossDisplay, ReliabilityDisplay
    from softnll.explanation import Explanation, explain
    from softnll.explanation_display import ExplanationDisplay
    from softnll.linear import LinearGradients, linear_cross_entropy, linear_cross_entropy_and_grad

__version__ = "0.1.0"

__all__ = [
    "ConfusionDisplay",
    "Derivation",
    "Explanation",
    "ExplanationDisplay",
    "Finding",
    "LinearGradients",
    "LossDisplay",
    "ReliabilityDisplay",
    "SoftmaxClassifier",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_hvp",
    "diagnose",
    "explain",
    "fit_temperature",
    "linear_cross_entropy",
    "linear_cross_entropy_and_grad",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
]

# Where the names live whose modules are not imported until they are asked for.
_LAZY = {
    "ConfusionDisplay": "softnll.displays",
    "Derivation": "softnll.derivation",
    "Explanation": "softnll.explanation",
    "ExplanationDisplay": "softnll.explanation_display",
    "Finding": "softnll.diagnosis",
    "LinearGradients": "softnll.linear",
    "LossDisplay": "softnll.displays",
    "ReliabilityDisplay": "softnll.displays",
    "SoftmaxClassifier": "softnll.classifier",
    "cross_entropy_hvp": "softnll.derivatives",
    "diagnose": "softnll.diagnosis",
    "explain": "softnll.explanation",
    "fit_temperature": "softnll.calibration",
    "linear_cross_entropy": "softnll.linear",
    "linear_cross_entropy_and_grad": "softnll.linear",
    "softmax_jacobian": "softnll.derivatives",
    "softmax_jvp": "softnll.derivatives",
    "softmax_vjp": "softnll.derivatives",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'softnll' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value  # a submodule of the same name ('explain') would otherwise take its place
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
