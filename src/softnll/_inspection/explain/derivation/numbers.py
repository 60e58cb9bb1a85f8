"""The numbers of a derivation, apart from how they are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TOO_SMALL = 1e-290  # below, a product has lost digits or is 0


@dataclass(frozen=True, eq=False, repr=False)
class DerivationNumbers:
    """The numbers of a `Derivation`, whose documentation describes the attributes."""

    row: int
    target: int
    classes: tuple[int, ...]
    names: tuple[str, ...]
    place: int
    n_rest: int
    scores: NDArray[np.float64]
    largest: float
    rest: float
    total: float
    differences: NDArray[np.float64]
    exponentials: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    complements: NDArray[np.float64]
    ahead: float
    log_total: float
    nll: float
    loss_by_probability: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    gradient: NDArray[np.float64]

    @property
    def whole(self) -> bool:
        """Whether step 7 has numbers: False where p_y is 0 or its products are too small for float64."""
        p_y = self.probabilities[self.place]
        least = self.probabilities.min(initial=1.0, where=self.probabilities > 0)
        return bool(p_y > 0 and p_y * least >= _TOO_SMALL)
