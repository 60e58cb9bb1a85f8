"""The last layer of a classifier: softmax, negative log-likelihood and their derivatives; exact, fast and light.

NumPy arrays in, NumPy arrays out. Importing the package imports NumPy and nothing else of weight: kernels are compiled,
and scikit-learn, matplotlib and the like are imported, when a function that needs them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from softnll._numpy.functional import cross_entropy, cross_entropy_and_grad, log_softmax, nll_loss, softmax
from softnll._numpy.normaliser import logsumexp
from softnll._version import __version__ as __version__

if TYPE_CHECKING:
    from softnll._classifier.estimator import SoftmaxClassifier
    from softnll._inspection.calibration import fit_temperature
    from softnll._inspection.diagnose.checks import diagnose
    from softnll._inspection.diagnose.finding import Finding
    from softnll._inspection.displays import ConfusionDisplay, LossDisplay, ReliabilityDisplay
    from softnll._inspection.explain.derivation.derivation import Derivation
    from softnll._inspection.explain.display import ExplanationDisplay
    from softnll._inspection.explain.explanation import Explanation, explain
    from softnll._numpy.derivatives import cross_entropy_hvp, softmax_jacobian, softmax_jvp, softmax_vjp
    from softnll._numpy.linear import LinearGradients, linear_cross_entropy, linear_cross_entropy_and_grad

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
    "ConfusionDisplay": "softnll._inspection.displays",
    "Derivation": "softnll._inspection.explain.derivation.derivation",
    "Explanation": "softnll._inspection.explain.explanation",
    "ExplanationDisplay": "softnll._inspection.explain.display",
    "Finding": "softnll._inspection.diagnose.finding",
    "LinearGradients": "softnll._numpy.linear",
    "LossDisplay": "softnll._inspection.displays",
    "ReliabilityDisplay": "softnll._inspection.displays",
    "SoftmaxClassifier": "softnll._classifier.estimator",
    "cross_entropy_hvp": "softnll._numpy.derivatives",
    "diagnose": "softnll._inspection.diagnose.checks",
    "explain": "softnll._inspection.explain.explanation",
    "fit_temperature": "softnll._inspection.calibration",
    "linear_cross_entropy": "softnll._numpy.linear",
    "linear_cross_entropy_and_grad": "softnll._numpy.linear",
    "softmax_jacobian": "softnll._numpy.derivatives",
    "softmax_jvp": "softnll._numpy.derivatives",
    "softmax_vjp": "softnll._numpy.derivatives",
}


if not TYPE_CHECKING:  # to a type checker, a name that is not imported above is an error

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'softnll' has no attribute {name!r}")
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value  # a submodule of the same name ('explain') would otherwise take its place
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
