"""torch's own samples (OpInfo, ModuleInfo) of the functions and modules that ours stand for, from the installed torch.

Everything must be as torch has it: values, gradients, second order, forward mode, vmap and errors. Deliberate
differences are in docs/torch.md; none of these samples meets one, so that nothing is left out here.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

import softnll.torch as snt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
OURS = {
    "softmax": snt.softmax,
    "log_softmax": snt.log_softmax,
    "logsumexp": snt.logsumexp,
    "nn.functional.cross_entropy": snt.cross_entropy,
    "nn.functional.nll_loss": snt.nll_loss,
    "nn.functional.linear_cross_entropy": snt.linear_cross_entropy,
}
MODULES = ("CrossEntropyLoss", "NLLLoss", "LinearCrossEntropyLoss")
TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def infos(name):
    from torch.testing._internal.common_methods_invocations import op_db  # noqa: PLC0415 - 10 s

    found = [each for each in op_db if each.name == name]
    if not found:
        pytest.skip(f"this torch has no samples of {name}")
    return found


def samples(name, dtype=torch.float64, *, once=False):
    """Return torch's function, and the arguments of its samples, contiguous and not; ``once``: in turn one or other."""
    for info in infos(name):
        contiguous = list(info.sample_inputs("cpu", dtype, requires_grad=True))
        strided = [each.noncontiguous() for each in contiguous]
        for each in (*contiguous[::2], *strided[1::2]) if once else (*contiguous, *strided):
            yield info.op, (each.input, *each.args), each.kwargs


def over_tensors(function, args, options):
    """Return a function of the tensors that require a gradient, and these tensors."""
    leaves, form = tree_flatten((args, options))
    at = [i for i, each in enumerate(leaves) if isinstance(each, torch.Tensor) and each.requires_grad]

    def of(*given):
        here = list(leaves)
        for i, each in zip(at, given, strict=True):
            here[i] = each
        args, options = tree_unflatten(here, form)
        return function(*args, **options)

    return of, tuple(leaves[i].detach().requires_grad_() for i in at)


def along(*tensors, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(each.shape, generator=generator, dtype=torch.float64).to(each.dtype) for each in tensors)


def first_order(of, given):
    value = of(*given)
    return value, *torch.autograd.grad(value, given, along(value)[0], allow_unused=True)


def second_order(of, given):
    value = of(*given)
    found = torch.autograd.grad(value, given, along(value)[0], create_graph=True)
    moved = [(each, way) for each, way in zip(found, along(*found, seed=1), strict=True) if each.requires_grad]
    if not moved:  # a gradient that no input changes: that of a linear function
        return tuple(torch.zeros_like(each) for each in given)
    return torch.autograd.grad([each for each, _ in moved], given, [way for _, way in moved], materialize_grads=True)


def forward_mode(of, given):
    return torch.func.jvp(of, given, along(*given, seed=2))


def per_example(of, given):
    """Return values and gradients of a batch of two examples: the sample, and another."""
    pairs = tuple(torch.stack([each.detach(), each.detach() * 0.5]) for each in given)
    return torch.func.vmap(torch.func.grad(lambda *x: of(*x).sum(), tuple(range(len(given)))))(*pairs)


@pytest.mark.parametrize("mode", [first_order, second_order, forward_mode, per_example])
@pytest.mark.parametrize("name", OURS)
def test_samples_in_float64(name, mode):
    checked = 0
    for torchs, args, options in samples(name, once=mode is not first_order):
        if mode is not first_order and "options" in options and getattr(options["options"], "chunking_method", None):
            continue  # the same computation as without chunks
        results = []
        for function in (OURS[name], torchs):
            of, given = over_tensors(function, args, options)
            try:
                results.append(mode(of, given) if given else of())
            except (RuntimeError, NotImplementedError) as error:
                results.append(error)
        got, want = results
        if isinstance(want, Exception):
            continue  # torch's chunked loss has no second order; softnll's has
        if isinstance(got, Exception):
            raise got
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, equal_nan=True)
        checked += 1
    assert checked, name


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", OURS)
def test_samples_in_narrower_types_are_those_of_float64(name, dtype):
    tolerance = TOLERANCES[dtype]
    for torchs, args, options in samples(name, dtype):
        of, given = over_tensors(OURS[name], args, options)
        wide_args, wide_options = (_wide(each) for each in (args, options))
        if "options" in wide_options:  # torch's own choice of chunks and types
            del wide_options["options"]
        wide, wide_given = over_tensors(torchs, wide_args, wide_options)
        got, want = first_order(of, given), first_order(wide, wide_given)
        for each, exact in zip(got, want, strict=True):
            if exact is not None:
                limit = tolerance * max(
                    1.0, exact.detach().abs().nan_to_num(0, 0, 0).amax().item() if exact.numel() else 0
                )
                torch.testing.assert_close(each.double(), exact.double(), rtol=tolerance, atol=limit, equal_nan=True)


def _wide(values):
    leaves, form = tree_flatten(values)
    double = (
        each.detach().double().requires_grad_(each.requires_grad)
        if isinstance(each, torch.Tensor) and each.is_floating_point()
        else torch.float64
        if isinstance(each, torch.dtype) and each.is_floating_point
        else each
        for each in leaves
    )
    return tree_unflatten([*double], form)


@pytest.mark.parametrize("name", OURS)
def test_what_torch_refuses_is_refused_with_its_type(name):
    for info in infos(name):
        for each in info.error_inputs("cpu") if info.error_inputs_func else ():
            sample = each.sample_input
            with pytest.raises(each.error_type):
                OURS[name](sample.input, *sample.args, **sample.kwargs)


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    from torch.testing._internal.common_modules import module_db  # noqa: PLC0415 - slow

    found = [each for each in module_db if each.module_cls.__name__ == name]
    if not found:
        pytest.skip(f"this torch has no {name}")
    (info,) = found
    inputs = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=True)
    for each in inputs:
        made, forward = each.constructor_input, each.forward_input
        theirs = info.module_cls(*made.args, **made.kwargs)
        ours = getattr(snt, name)(*made.args, **made.kwargs)
        ours.load_state_dict(theirs.state_dict())
        results = []
        for module in (ours, theirs):
            of, given = over_tensors(module.to(torch.float64), forward.args, forward.kwargs)
            results.append((*first_order(of, given), *(p.shape for p in module.parameters())))
        torch.testing.assert_close(
            results[0][: len(given) + 1], results[1][: len(given) + 1], rtol=1e-9, atol=1e-11, equal_nan=True
        )
        assert results[0][len(given) + 1 :] == results[1][len(given) + 1 :]
        assert isinstance(ours, info.module_cls)
