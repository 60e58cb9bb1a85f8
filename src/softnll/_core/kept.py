"""Logits that a forward keeps for its backward, where the working memory has room for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from softnll._core.targets import blocks


@dataclass(slots=True)
class KeptLogits:
    """The logits of the rows that a forward multiplied. A backward replaces them with their gradient.

    Attributes
    ----------
    logits
        ``(n, C)``; None once they are freed.
    active
        The indices of these rows, ascending; None for all rows.
    """

    logits: Any
    active: Any

    def free(self) -> None:
        """Give the memory back: callers still hold this object while the logits are computed again."""
        self.logits = None

    def of_rows(self, active: Any, xp: Any) -> Any:
        """Return the logits of these rows, which are some of the kept ones, moved to the front of the same memory."""
        if active is None or len(active) == len(self.logits):
            return self.logits
        at = active if self.active is None else xp.searchsorted(self.active, active)
        for rows in blocks((len(at), self.logits.shape[1])):  # at ascends: no row is overwritten before it is read
            self.logits[rows] = self.logits[at[rows]]
        return self.logits[: len(at)]
