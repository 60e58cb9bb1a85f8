"""The options of the losses, said once: names and types for every signature that takes them, and what they become."""

from __future__ import annotations

from typing import Any, TypedDict

from softnll.layout import Layout
from softnll.objective import CrossEntropy, Reduction, checked
from softnll.problem import Problem, prepare, prepare_targets

__all__ = ["LinearOptions", "LossOptions", "loss_problem"]


class LinearOptions(TypedDict, total=False):
    """What every cross-entropy takes by keyword; ``softnll.cross_entropy`` describes each."""

    class_weight: Any
    sample_weight: Any
    ignore_index: int
    label_smoothing: float
    z_loss: float
    softcap: float | None
    temperature: Any
    reduction: Reduction
    check: bool | None


class LossOptions(LinearOptions, total=False):
    """What the cross-entropies of given logits take besides."""

    axis: int
    where: Any


def split_options(
    *,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: Any = 1.0,
    reduction: Reduction = "mean",
    check: bool | None = None,
) -> tuple[CrossEntropy, Any, dict[str, Any]]:
    """Return the checked scalars, the per-row temperatures or None, and what ``prepare_targets`` takes."""
    objective, per_row = checked(label_smoothing, z_loss, softcap, temperature, ignore_index, reduction)
    weights = {"class_weight": class_weight, "sample_weight": sample_weight, "check": check is None or check}
    return objective, per_row, weights


def loss_problem(
    logits: Any,
    targets: Any,
    axis: int = -1,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: Any = 1.0,
    where: Any = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
) -> tuple[Problem, Layout]:
    """Check everything a loss is given and return it as a Problem.

    The options are those of ``LossOptions``, each by its name: to hand on ``**options`` takes 1 to 3 µs a level.
    """
    objective, per_row = checked(label_smoothing, z_loss, softcap, temperature, ignore_index, reduction)
    problem, layout = prepare(logits, axis, objective, per_row, where)
    checks = check is None or check
    return prepare_targets(problem, layout, targets, class_weight, sample_weight, checks), layout
