"""The inputs of a linear loss cut into pieces of a few rows, products with its layer, and sums over the pieces.

Where autograd or a transform records the operations, each makes a new tensor. Elsewhere they write to buffers, so that
the memory does not grow with the number of pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.options import unreduced
from softnll._core.plan import default_max_bytes
from softnll._core.targets import rows_without_part
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossInputs, LossSettings
from softnll.torch._base.autograd_base import in_batch, records
from softnll.torch._losses import formulas

OF_ROWS = ("input", "target")  # the differentiable inputs that have one entry a row
_ENTRY_BYTES = 24 * 8  # memory for each entry of a block of logits: two dozen arrays of float64
_CHUNK_ARRAYS = 4  # arrays of a piece's logits, their tangents and gradients, in the type of the products

Named = dict[str, Any]
Upstreams = Sequence[Tensor | None]  # one upstream gradient for each result of a function; None means 0


class Piece(NamedTuple):
    """A slice of rows, and the inputs of these rows; the features of rows that take no part are 0.

    Attributes
    ----------
    rows
        The slice.
    inputs
        The inputs of these rows.
    without_part
        ``(n, 1)`` bool, True for rows that take no part.
    """

    rows: slice
    inputs: LinearInputs
    without_part: Tensor


class Pieces:
    """A loss whose inputs are flattened to rows and cut into pieces of a few rows.

    ``tensors`` are the other tensors of the computation, such as upstream gradients.
    """

    def __init__(self, inputs: LinearInputs, settings: LinearSettings, *tensors: Tensor | None) -> None:
        self.dtype = inputs.loss_type
        n = inputs.input.dim() - 1
        target = inputs.target
        rows: Named = {
            "input": inputs.input.reshape(-1, inputs.input.shape[-1]),
            "target": target.reshape(-1, target.shape[-1]) if target.dim() > n else target.reshape(-1),
            "temperatures": None if inputs.temperatures is None else inputs.temperatures.reshape(-1),
            "indices": None if inputs.indices is None else inputs.indices.reshape(-1, inputs.indices.shape[-1]),
        }
        self.given, flat = inputs, inputs._replace(**rows)
        objective = settings.loss.objective
        s = None if inputs.sample_weight is None else inputs.sample_weight.reshape(-1)
        of_rows = LossInputs(flat.input, flat.target, inputs.weight, s)
        self.s, D = formulas.row_weights(of_rows, LossSettings(objective, 1))
        self.flat = flat._replace(sample_weight=self.s)
        hard = None if target.is_floating_point() else flat.target
        smoothing = objective.label_smoothing
        self.without_part = rows_without_part(torch, hard, inputs.weight, self.s, None, smoothing).unsqueeze(1)
        self.settings = LossSettings(unreduced(objective), 1, check=False)
        self.reduction = objective.reduction
        one = torch.ones_like(D)
        self.factor = formulas.share(one, D) if self.reduction == "mean" else one
        self.in_place = not records() and not any(each is not None and in_batch(each) for each in (*tensors, *inputs))
        self._plan(settings)

    def _plan(self, settings: LinearSettings) -> None:
        """Set the rows of a piece, of its blocks, and the weight rows that are converted at a time."""
        (C, H), N, item = self.flat.linear_weight.shape, self.flat.input.shape[0], self.dtype.itemsize
        allowed = default_max_bytes(4 * H * (N + C), N, C, 4) if settings.max_bytes is None else settings.max_bytes
        row, most = _ENTRY_BYTES * max(1, C), settings.at_most or max(1, N)
        self.step = self.block = min(most, max(1, allowed // row))
        self.classes = max(1, C)
        if self.in_place:
            self.block = min(most, max(1, allowed // 2 // row))
            rest = max(0, allowed - self.block * row)
            if self.given.linear_weight.dtype != self.dtype:
                self.classes = max(1, min(C, rest // 2 // (4 * H * item + 1)))
                rest //= 2
            self.step = min(most, max(self.block, rest // (item * (_CHUNK_ARRAYS * C + 8 * H))))

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces; without rows, a single empty one, so that sums over pieces have a shape."""
        n = self.flat.input.shape[0]
        for start in range(0, max(1, n), self.step):
            rows = slice(start, start + self.step)
            of_rows = ("input", "target", "sample_weight", "temperatures", "indices")
            cut = {name: getattr(self.flat, name) for name in of_rows}
            cut = {name: each[rows] for name, each in cut.items() if each is not None}
            without_part = self.without_part[rows]
            cut["input"] = torch.where(without_part, 0.0, cut["input"].to(self.dtype))
            yield Piece(rows, self.flat._replace(**cut), without_part)

    def spread(self, upstream: Upstreams) -> tuple[Tensor, ...]:
        """Return the upstream gradients of the rows' results from those of the reduced results."""
        return tuple(torch.zeros_like(self.s) if each is None else self._spread(each) for each in upstream)

    def _spread(self, upstream: Tensor) -> Tensor:
        upstream = upstream.to(self.s.dtype)
        if self.reduction == "none":
            return upstream.reshape(-1)
        return (upstream * self.factor).expand(self.s.shape[0])

    def reduce(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Return the derivative of a reduced result from the derivatives of the rows' results."""
        return rows.reshape(shape) if self.reduction == "none" else rows.sum() * self.factor

    def flatten(self, tensors: Named) -> Named:
        """Return tensors of the inputs' shapes, such as tangents, as rows."""
        return {name: each.reshape(getattr(self.flat, name).shape) for name, each in tensors.items()}

    # -- products with the layer, in the type of the computation

    def _blocks(self, matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield blocks of the rows of a ``(C, H)`` matrix in the type of the computation."""
        for start in range(0, len(matrix), self.classes):
            classes = slice(start, start + self.classes)
            yield classes, matrix[classes].to(self.dtype)

    def logits(self, x: Tensor, matrix: Tensor, to: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Return ``x @ matrix.T + bias`` of ``(n, H)`` and ``(C, H)``, plus ``to``, which may be overwritten."""
        z = self._product(x, matrix, to)
        if bias is None:
            return z
        return z.add_(bias) if self.in_place else z + bias.to(z.dtype)

    def _product(self, x: Tensor, matrix: Tensor, to: Tensor | None) -> Tensor:
        """Return ``x @ matrix.T`` plus ``to``, which may be overwritten."""
        if not self.in_place or len(matrix) <= self.classes:
            z = x @ matrix.to(self.dtype).t()
            return z if to is None else to + z
        add = to is not None
        z = x.new_empty(len(x), len(matrix)) if to is None else to
        for classes, each in self._blocks(matrix):
            torch.addmm(z[:, classes], x, each.t(), beta=int(add), out=z[:, classes])
        return z

    def features(self, dz: Tensor, matrix: Tensor) -> Tensor:
        """Return ``dz @ matrix`` of ``(n, C)`` and ``(C, H)``."""
        if not self.in_place or len(matrix) <= self.classes:
            return dz @ matrix.to(self.dtype)
        parts = [dz[:, classes] @ each for classes, each in self._blocks(matrix)]
        return sum(parts[1:], parts[0])


class Sums:
    """Gradients with respect to inputs of some names: of inputs by row, joined; of other inputs, summed."""

    def __init__(self, pieces: Pieces, names: Sequence[str]) -> None:
        self.pieces, self.names = pieces, names
        self._parts: dict[str, Any] = {name: [] if name in OF_ROWS else None for name in names}
        if pieces.in_place:
            for name in names:
                like = getattr(pieces.flat, name)
                dtype = like.dtype if name in OF_ROWS else pieces.dtype
                self._parts[name] = torch.zeros(like.shape, dtype=dtype, device=like.device)

    def put(self, name: str, rows: slice, value: Any) -> None:
        """Set the gradient of rows."""
        if self.pieces.in_place:
            self._parts[name][rows] = value
        else:
            self._parts[name].append(value)

    def add_product(self, name: str, dz: Tensor, x: Tensor) -> None:
        """Add ``dz.T @ x`` to a gradient."""
        total = self._parts[name]
        if self.pieces.in_place:
            total.addmm_(dz.t(), x)
        else:
            self._parts[name] = dz.t() @ x if total is None else total + dz.t() @ x

    def add_rows(self, name: str, dz: Tensor) -> None:
        """Add the sum of rows to a gradient."""
        total, value = self._parts[name], dz.sum(0)
        self._parts[name] = value if total is None else total + value

    def gradients(self) -> tuple[Tensor, ...]:
        """Return the gradients in the order of the names, each in its input's shape and type."""
        found = []
        for name in self.names:
            whole, like = self._parts[name], getattr(self.pieces.given, name)
            whole = torch.cat(whole) if isinstance(whole, list) else whole
            found.append(whole.reshape(like.shape).to(like.dtype))
        return tuple(found)
