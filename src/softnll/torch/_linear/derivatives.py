"""Derivatives of functions of a linear layer's logits, a few rows at a time.

With the logits z = f·Wᵀ + b and the gradient dz of a function of each row, the gradients are dz·W, dzᵀ·f and Σ dz.
Along tangents f', W', b', the logits move by z' = f'·Wᵀ + f·W'ᵀ + b', and with the derivative dz' of dz along z', the
gradients move by dz'·W + dz·W', dz'ᵀ·f + dzᵀ·f' and Σ dz'. The second derivatives of a reverse pass are the same
products, as the Hessian is symmetric. So torch differentiates the function of a row's logits alone, and no C × H matrix
but the results is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from softnll.torch._base.arguments import LinearInputs, LossSettings
from softnll.torch._linear.pieces import OF_ROWS, Named, Piece, Pieces, Sums

Rows = tuple[Tensor, ...]  # one number a row for each result of a row function
# Of logits, tangents, the rows' inputs and upstream gradients: the derivatives of the rows along the tangents, the
# gradients of the logits, and their derivatives along the tangents.
ClosedForm = Callable[[Tensor, Tensor, LinearInputs, LossSettings, Rows], tuple[Rows, Tensor, Tensor]]


class RowFunction(NamedTuple):
    """A function of the logits of rows with some results a row.

    Attributes
    ----------
    values
        The results, of the logits and the rows' inputs.
    results
        Their number.
    closed
        Derivatives in closed form, for where nothing records them; None without one.
    """

    values: Callable[[Tensor, LinearInputs, LossSettings], Rows]
    results: int
    closed: ClosedForm | None = None


class _Found(NamedTuple):
    """The derivatives of some rows: of the function along tangents; its gradients, and theirs along the tangents."""

    along: Rows
    dz: Tensor
    moved_dz: Tensor | None = None
    dq: Tensor | None = None
    moved_dq: Tensor | None = None


def first(function: RowFunction, pieces: Pieces, upstream: Rows, names: Sequence[str]) -> tuple[Tensor, ...]:
    """Return the gradients with respect to the inputs of these names."""
    _, found = second(function, pieces, upstream, None, names)
    return found


def along(function: RowFunction, pieces: Pieces, tangents: Named) -> Rows:
    """Return the derivatives of the function along tangents."""
    moved, _ = second(function, pieces, (torch.zeros_like(pieces.s),) * function.results, tangents, ())
    return moved


def second(
    function: RowFunction,
    pieces: Pieces,
    upstream: Rows,
    tangents: Named | None,
    names: Sequence[str],
    upstream_tangents: Rows | None = None,
) -> tuple[Rows, tuple[Tensor, ...]]:
    """Return the derivatives along tangents of the function, and of its gradients with respect to these names.

    Without tangents, return nothing of the function, and the gradients themselves.
    """
    sums, moved = Sums(pieces, names), []
    closed, by_target = function.closed, "target" in names or (tangents is not None and "target" in tangents)
    if by_target or upstream_tangents is not None or not pieces.in_place or not names:
        closed = None
    for piece in pieces:
        part = piece.inputs
        z = pieces.logits(part.input, part.linear_weight, bias=part.linear_bias)
        cut = None if tangents is None else _cut(tangents, piece, pieces.dtype)
        v = None if cut is None else _moved_logits(pieces, part, cut, z)
        found = _Found((), z)
        for rows in _blocks(len(z), pieces.block):
            at = slice(piece.rows.start + rows.start, piece.rows.start + rows.stop)
            up, up_t = (None if all_rows is None else _at(all_rows, at) for all_rows in (upstream, upstream_tangents))
            here = _rows_of(part, rows)
            if closed is not None and v is not None:
                found = _Found(*closed(z[rows], v[rows], here, pieces.settings, up or ()))
            else:
                given = _Block(function.values, here, pieces.settings, by_target)
                t = None if v is None or cut is None else given.tangents(v[rows], cut, rows)
                found = given.derivatives(z[rows], up or (), t, up_t, bool(names))
            moved.append(found.along)
            if "target" in names:
                sums.put("target", at, found.dq if v is None else found.moved_dq)
            if pieces.in_place and names:  # the logits and their tangents are not read again
                z[rows] = found.dz
                if v is not None and found.moved_dz is not None:
                    v[rows] = found.moved_dz
                found = found._replace(dz=z, moved_dz=v)
        if names:
            _add(sums, pieces, piece, found, cut)
    joined = tuple(torch.cat(each) for each in zip(*moved, strict=True)) if tangents is not None else ()
    return joined, sums.gradients()


def _at(rows: Rows, at: slice) -> Rows:
    """Return some of the rows."""
    return tuple(each[at] for each in rows)


def _blocks(n: int, step: int) -> list[slice]:
    """Return slices of n rows; without rows, an empty one."""
    return [slice(start, min(start + step, n)) for start in range(0, max(1, n), step)]


def _rows_of(part: LinearInputs, rows: slice) -> LinearInputs:
    """Return the inputs of some rows of a piece."""
    cut = {name: getattr(part, name) for name in ("target", "sample_weight", "temperatures", "indices")}
    return part._replace(**{name: each[rows] for name, each in cut.items() if each is not None})


def _cut(tangents: Named, piece: Piece, dtype: torch.dtype) -> Named:
    """Return the tangents of a piece; those of features are 0 in rows that take no part."""
    cut = {name: each[piece.rows] if name in OF_ROWS else each for name, each in tangents.items()}
    if "input" in cut:
        cut["input"] = torch.where(piece.without_part, 0.0, cut["input"].to(dtype))
    return cut


def _moved_logits(pieces: Pieces, part: LinearInputs, tangents: Named, z: Tensor) -> Tensor:
    """Return f'·Wᵀ + f·W'ᵀ + b', the derivative of the logits along the tangents."""
    v = None
    if "input" in tangents:
        v = pieces.logits(tangents["input"], part.linear_weight)
    if "linear_weight" in tangents:
        v = pieces.logits(part.input, tangents["linear_weight"], v)
    v = torch.zeros_like(z) if v is None else v
    return v + tangents["linear_bias"].to(z.dtype) if "linear_bias" in tangents else v


class _Block(NamedTuple):
    """A row function on the inputs of some rows; ``by_target``: the soft targets are a variable, too."""

    function: Callable[[Tensor, LinearInputs, LossSettings], Rows]
    inputs: LinearInputs
    settings: LossSettings
    by_target: bool

    def tangents(self, v: Tensor, tangents: Named, rows: slice) -> Rows:
        """Return the tangents of the variables, from those of the logits and of the piece's inputs."""
        if not self.by_target:
            return (v,)
        return v, tangents["target"][rows] if "target" in tangents else torch.zeros_like(self.inputs.target)

    def _of(self, z: Tensor, *q: Tensor) -> Rows:
        """Return the function's values."""
        return self.function(z, self.inputs._replace(target=q[0]) if q else self.inputs, self.settings)

    def derivatives(
        self, z: Tensor, upstream: Rows, tangents: Rows | None, upstream_tangents: Rows | None, gradients: bool
    ) -> _Found:
        """Return the gradients, with tangents also the derivatives along them; or only the values' derivatives."""
        values = (z, self.inputs.target) if self.by_target else (z,)

        def pulled(upstream: Rows, *values: Tensor) -> Rows:
            return torch.func.vjp(self._of, *values)[1](upstream)

        if tangents is None:
            dz, *dq = pulled(upstream, *values)
            return _Found((), dz, dq=dq[0] if dq else None)
        if not gradients:
            pull = torch.func.vjp(self._of, *values)[1]
            (moved,) = torch.func.vjp(pull, upstream)[1](tangents)
            return _Found(moved, z)
        (dz, *dq), pull = torch.func.vjp(pulled, upstream, *values)[:2]
        along, *second = pull(tangents)
        if upstream_tangents is not None:
            second = [one + other for one, other in zip(second, pulled(upstream_tangents, *values), strict=True)]
        return _Found(along, dz, second[0], dq[0] if dq else None, second[1] if dq else None)


def _add(sums: Sums, pieces: Pieces, piece: Piece, found: _Found, tangents: Named | None) -> None:
    """Add the products of a piece to the gradients."""
    f, W = piece.inputs.input, piece.inputs.linear_weight
    dz = found.dz if tangents is None else found.moved_dz
    assert dz is not None  # noqa: S101 - computed with the tangents
    moved = {} if tangents is None else tangents
    if "input" in sums.names:
        to_f = pieces.features(dz, W)
        if "linear_weight" in moved:
            to_f = to_f + pieces.features(found.dz, moved["linear_weight"])
        sums.put("input", piece.rows, torch.where(piece.without_part, 0.0, to_f))
    if "linear_weight" in sums.names:
        sums.add_product("linear_weight", dz, f)
        if "input" in moved:
            sums.add_product("linear_weight", found.dz, moved["input"])
    if "linear_bias" in sums.names:
        sums.add_rows("linear_bias", dz)
