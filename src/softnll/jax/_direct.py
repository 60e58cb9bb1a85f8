"""Which rows compiled programs compute by a kernel that they call without Python: of usual options, in one thread."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from softnll._core.options import CrossEntropy
from softnll._kernels.cpu.memory import FEW
from softnll._kernels.cpu.signature import NONE, Type, array, output
from softnll._kernels.cpu.threads import in_one_go

_X, _D = 0, 7  # places among a Problem's arrays
_TARGETS = {"y": 1, "w": 3, "s": 4}  # of one axis


class Signature(NamedTuple):
    """A function of ``in_program`` and the types of its parameters."""

    function: str
    types: dict[str, Type]


def serves(objective: CrossEntropy, present: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Return whether a kernel without Python serves such rows: no soft targets, temperatures or masks, no option."""
    usual = objective.plain and objective.z_loss == 0 and {_X, *_TARGETS.values(), _D}.issuperset(present)
    return usual and in_one_go(*shape)


def signature(name: str, n_classes: int, dtypes: dict[int, str]) -> Signature:
    """Return the function for an operation, given the types of the arrays that are present."""
    by = "by_tile" if n_classes <= FEW else "by_row"
    x = dtypes[_X]
    types = {"x": array(x, 2)}
    if name not in ("losses", "forward_backward", "gradients"):
        return Signature(f"{name}_{by}", {**types, "out": output(x, 2)})
    types.update({key: array(dtypes[at], 1) if at in dtypes else NONE for key, at in _TARGETS.items()})
    types["D"] = Type(dtypes[_D]) if _D in dtypes else NONE
    types["loss"] = NONE if name == "gradients" else output(x, 1)
    types["grad"] = NONE if name == "losses" else output(x, 2)
    return Signature(f"losses_{by}", types)


def address(of: Signature) -> int:
    """Return the address of a function; it is compiled if no process has yet."""
    load = import_module("softnll._kernels.cpu.load")  # of llvmlite, which comes with Numba
    found: int = load.program_kernel(of.function, of.types)
    return found
