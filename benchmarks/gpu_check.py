"""Every case of the CUDA kernels against float64 on the device, many at a time: most of the time, Triton compiles."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any, NamedTuple

import torch

import softnll.torch as snt

__all__ = ["TYPES", "Case", "cases", "outcomes", "reason"]

TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "z_loss": {"z_loss": 1e-2},
    "softcap": {"softcap": 30.0},
    "temperature": {"temperature": 2.0},
}
SHAPES = ((33, 1000), (8, 5001), (4, 50_257), (400, 40_000), (64, 3), (64, 10), (3, 128_256))
WITH_OPTIONS = ((33, 1000), (400, 40_000))  # in one block, and in several
SMALL, SMALL_WITH_OPTIONS = ((4, 3), (3, 40)), ((3, 40),)
ENOUGH_ROWS = 512  # with more of them, the same kernels are launched


class Case(NamedTuple):
    """What is run.

    Attributes
    ----------
    option
        A name among the options.
    shape
        Rows and classes.
    dtype
        A type's name.
    compared
        Whether the results are of interest; otherwise only that the kernels are compiled.
    """

    option: str
    shape: tuple[int, int]
    dtype: str
    compared: bool = True

    @property
    def label(self) -> str:
        """The shape as the table has it."""
        return f"{self.shape[0]}x{self.shape[1]}"


def cases(small: bool, later: tuple[tuple[int, int], ...] = (), later_types: tuple[str, ...] = ()) -> list[Case]:
    """Return what is compared, every type of a shape before the next shape, then what is timed ``later``."""
    shapes, with_options = (SMALL, SMALL_WITH_OPTIONS) if small else (SHAPES, WITH_OPTIONS)
    chosen = [("", shape) for shape in shapes]
    chosen += [(option, shape) for shape in with_options for option in OPTIONS if option]
    compared = [Case(option, shape, dtype) for option, shape in chosen for dtype in TYPES]
    known = {case for case in compared if not case.option}
    prepared = [Case("", (min(N, ENOUGH_ROWS), C), dtype) for N, C in later for dtype in later_types]
    return compared + [case._replace(compared=False) for case in prepared if case not in known]


def outcomes(chosen: list[Case], device: str, seconds: float, workers: int) -> Iterator[tuple[Case, str, str]]:
    """Yield each case with its errors, and what there is to note; nothing stops the others."""
    end = time.monotonic() + seconds
    if not workers:
        for case in chosen:
            yield (case, *_here(case, device, end))
        return
    left = chosen
    while left:
        done = 0
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,))
        try:
            futures = [pool.submit(examine, case, device) for case in left]
            for case, future in zip(left, futures, strict=True):
                told = _there(future, end)
                done += 1
                yield (case, *told)
        except BrokenExecutor:  # the first that is not done is as good a guess as any; the others are begun anew
            yield left[done], "", "a process died"
            done += 1
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.kill()  # what is not done by now must not disturb what is timed
                process.join(10)
        left = left[done:]


def _here(case: Case, device: str, end: float) -> tuple[str, str]:
    """Return what ``examine`` says, if there is time."""
    if time.monotonic() > end:
        return "", "no time left"
    try:
        return examine(case, device)
    except Exception as error:  # noqa: BLE001 - whatever it is, the table tells
        return "", reason(error)


def _there(future: Future[tuple[str, str]], end: float) -> tuple[str, str]:
    """Return what another process says in time."""
    try:
        return future.result(max(0.0, end - time.monotonic()))
    except TimeoutError:
        return "", "no time left"
    except BrokenExecutor:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return "", reason(error)


def reason(error: Exception) -> str:
    """Return one line about an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def examine(case: Case, device: str) -> tuple[str, str]:
    """Run a case; return its errors, and a note if what should be the same is not."""
    dtype, options = TYPES[case.dtype], OPTIONS[case.option]
    N, C = case.shape
    y = (torch.arange(N) % 2 * (C - 1)).to(device)
    if not case.compared:
        _all_that_is_timed(torch.zeros(case.shape, dtype=dtype, device=device, requires_grad=True), y)
        return "", ""
    x = torch.randn(case.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    x[:, 0] += torch.linspace(0, 60 if dtype != torch.float16 else 12, N, dtype=torch.float64)  # undecided to certain
    x = x.to(dtype).to(device).requires_grad_()
    loss = snt.cross_entropy(x, y, reduction="none", **options)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    one, both = exact(x.detach(), y, options)
    errors = [ulps(loss.detach(), one, torch.float64 if dtype == torch.float64 else torch.float32)]
    if "label_smoothing" in options:  # differences: in units of 1
        errors.append((grad.double() - both).abs().max().item() / torch.finfo(dtype).eps)
    else:
        errors.append(ulps(grad, both, dtype))
    (again,) = torch.autograd.grad(snt.cross_entropy(x, y, reduction="sum", **options), x)
    note = "" if torch.equal(again, grad) else "one pass and two differ"
    return f"loss {errors[0]:.2f}, gradient {errors[1]:.2f} ulp", note


def _all_that_is_timed(x: torch.Tensor, y: torch.Tensor) -> None:
    """Call what the other sections call, so that Triton has it on disk."""
    with torch.no_grad():
        snt.cross_entropy(x, y)
        snt.softmax(x, 1)
    torch.autograd.grad(snt.cross_entropy(x, y), x)


def ulps(got: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the largest error in units in the last place of a type, absolute below its normal numbers."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(exact)[1].clamp(min=torch.frexp(torch.tensor(info.tiny, dtype=torch.float64))[1].item())
    unit = torch.ldexp(torch.ones_like(exact), exponent - 1) * info.eps
    off = ((got.double() - exact).abs() / unit)[torch.isfinite(exact)]
    return off.max().item() if off.numel() else 0.0


def exact(x: torch.Tensor, y: torch.Tensor, options: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses and the gradient of their sum in float64, of which nothing cancels."""
    cap, tau = options.get("softcap"), options.get("temperature", 1.0)
    eps, zeta = options.get("label_smoothing", 0.0), options.get("z_loss", 0.0)
    u = x.double()
    slope = torch.ones_like(u)
    if cap:
        slope = 1 / torch.cosh(u / cap) ** 2
        u = cap * torch.tanh(u / cap)
    m, a = u.max(1, keepdim=True)
    d = u - m
    part = d - u
    lost = ((u - (d - part)) - (m + part)) / tau  # of the difference (Knuth): an error of the exponent
    d = d / tau
    e = torch.exp(d) * (1 + lost)
    rest = e.scatter(1, a, 0.0).sum(1, keepdim=True)
    log_r = torch.log1p(rest)
    log_p = d - log_r
    p = e / (1 + rest)
    complement = (1 - p).scatter(1, a, rest / (1 + rest))
    t = torch.full_like(p, eps / x.shape[1]).scatter_add(1, y[:, None], torch.full_like(log_r, 1 - eps))
    lse = m / tau + log_r
    loss = -(t * log_p).sum(1) + zeta * lse[:, 0] ** 2
    grad = ((1 - t) * p - t * complement + 2 * zeta * lse * p) * slope / tau
    return loss, grad
