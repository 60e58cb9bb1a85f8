"""Functions and modules in torch.jit.trace, torch.jit.script, torch.export and both ONNX exporters."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
import torch

import softnll.torch as snt

# A TracerWarning, which is a UserWarning, is no error here: test_no_warning_of_the_tracer looks at them.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{each}") for each in ("DeprecationWarning", "FutureWarning", "UserWarning")
]

WEIGHT = torch.tensor([1.0, 2.0, 0.5])
HEAD, BIAS = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.3, 0.0, 1.0]]), torch.tensor([0.1, 0.0, -0.2])
LOGITS = torch.tensor([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [17.0, 0.0, 0.0], [0.0, 0.0, 17.0]])
OTHERS = torch.tensor([[1.0, -3.0, 2.5], [4.0, 22.0, 1.0], [0.0, 0.0, 19.0]])  # also another number of rows
TARGETS, OTHER_TARGETS = torch.tensor([0, 2, 0, -100]), torch.tensor([2, 1, -100])
FUNCTIONS = {
    "softmax": lambda x, _: snt.softmax(x, 1),
    "log_softmax": lambda x, _: snt.log_softmax(x, 1),
    "logsumexp": lambda x, _: snt.logsumexp(x, 1),
    "cross_entropy": snt.cross_entropy,
    "options": lambda x, y: snt.cross_entropy(
        x, y, WEIGHT, label_smoothing=0.1, z_loss=1e-3, softcap=10.0, temperature=2.0
    ),
    "soft": lambda x, _: snt.cross_entropy(x, torch.full_like(x, 1 / 3), reduction="none"),
    "nll_loss": lambda x, y: snt.nll_loss(snt.log_softmax(x, 1), y, WEIGHT),
    "linear_cross_entropy": lambda x, y: snt.linear_cross_entropy(x, HEAD, y, linear_bias=BIAS, softcap=30.0),
    "token_stats": lambda x, y: tuple(snt.token_stats(x, HEAD, y, temperature=0.5)),
}


class Calls(torch.nn.Module):
    """A module that calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, y):
        return self.function(x, y)


@pytest.fixture(params=FUNCTIONS, name="function")
def _function(request):
    return FUNCTIONS[request.param]


def same(got, want):
    """Compare one result or several, float32 to a few units in the last place of the largest."""
    got, want = (each if isinstance(each, (tuple, list)) else (each,) for each in (got, want))
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(one), other.detach().numpy(), rtol=1e-6, atol=2e-14)


def test_a_traced_function_follows_its_input_and_needs_no_softnll(function):
    traced = torch.jit.trace(Calls(function).eval(), (LOGITS, TARGETS))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    assert not any("softnll" in each.kind() for each in traced.inlined_graph.nodes())
    same(torch.jit.load(io.BytesIO(file.getvalue()))(OTHERS, OTHER_TARGETS), function(OTHERS, OTHER_TARGETS))


def test_a_traced_loss_has_its_gradient():
    x = torch.tensor([[17.0, 0.0, 0.0], [1.0, 2.0, 3.0]], requires_grad=True)
    y = torch.tensor([0, 1])
    traced = torch.jit.trace(snt.cross_entropy, (x.detach().clone().requires_grad_(), y))
    (got,) = torch.autograd.grad(traced(x, y), x)
    (want,) = torch.autograd.grad(snt.cross_entropy(x, y), x)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    assert got[0, 0] < 0


def test_traced_rows_with_infinities_and_ruled_out_classes():
    x = torch.tensor([[-torch.inf, 1.0, 2.0], [-torch.inf] * 3, [torch.nan, 0.0, 0.0]])
    for name in ("softmax", "log_softmax", "logsumexp"):
        traced = torch.jit.trace(lambda x, name=name: getattr(snt, name)(x, 1), (torch.zeros(3, 3),))
        torch.testing.assert_close(traced(x), getattr(snt, name)(x, 1), equal_nan=True)
    traced = torch.jit.trace(lambda x, y: snt.cross_entropy(x, y, reduction="none"), (torch.zeros(3, 3), TARGETS[:3]))
    torch.testing.assert_close(
        traced(x[:1], torch.tensor([2])), snt.cross_entropy(x[:1], torch.tensor([2]), reduction="none")
    )
    assert traced(OTHERS, torch.tensor([3, 1, 2]))[0].isnan()  # out of range: a graph cannot raise


def test_traced_linear_losses_keep_what_takes_no_part_out_of_the_gradient():
    f, W = LOGITS.clone(), HEAD.clone().requires_grad_()
    f[3] = torch.nan  # ignored
    bias = torch.tensor([0.0, -torch.inf, 0.0])
    for function in (
        lambda f, W: snt.linear_cross_entropy(f, W, TARGETS),
        lambda f, W: snt.token_stats(f, W, TARGETS, linear_bias=bias).entropy.sum(),
    ):
        traced = torch.jit.trace(function, (LOGITS, W))
        got, want = (torch.autograd.grad(each(f, W), W)[0] for each in (traced, function))
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["traced", "dynamo"])
def test_an_exported_onnx_model_computes_the_same(function, dynamo):
    pytest.importorskip("onnxscript", reason="the exporters need onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="an exported model is run by onnxruntime")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    file, rows = io.BytesIO(), {0: torch.export.Dim("rows")} if dynamo else {0: "rows"}
    if dynamo:
        shapes = {"x": rows, "y": rows}
        torch.onnx.export(
            Calls(function).eval(), (LOGITS, TARGETS), dynamo=True, dynamic_shapes=shapes, verbose=False
        ).save(file)
    else:
        names = {"input_names": ["x", "y"], "dynamic_axes": {"x": rows, "y": rows}}
        torch.onnx.export(Calls(function).eval(), (LOGITS, TARGETS), file, dynamo=False, opset_version=17, **names)
    session = runtime.InferenceSession(file.getvalue())
    given = dict(zip("xy", (OTHERS.numpy(), OTHER_TARGETS.numpy()), strict=True))
    known = {each.name: given[each.name] for each in session.get_inputs()}
    same(session.run(None, known), function(OTHERS, OTHER_TARGETS))


@pytest.mark.slow
def test_a_network_exported_by_torch_export_is_decomposed_on_request(function):
    program = torch.export.export(Calls(function).eval(), (LOGITS, TARGETS))
    same(program.module()(LOGITS, TARGETS), function(LOGITS, TARGETS))
    from torch._decomp import decomposition_table  # noqa: PLC0415 - filled by the export

    ours = {op: rule for op, rule in decomposition_table.items() if "softnll" in str(op)}
    decomposed = program.run_decompositions(ours)
    assert "softnll" not in decomposed.graph_module.code
    same(decomposed.module()(LOGITS, TARGETS), function(LOGITS, TARGETS))


@pytest.mark.slow
def test_the_gradients_that_a_linear_loss_keeps_are_decomposed_too():
    module = snt.LinearCrossEntropyLoss(3, 4, bias=True)
    program = torch.export.export(module, (LOGITS.clone().requires_grad_(), TARGETS))
    from torch._decomp import decomposition_table  # noqa: PLC0415 - filled by the export

    ours = {op: rule for op, rule in decomposition_table.items() if "softnll" in str(op)}
    decomposed = program.run_decompositions(ours)
    assert "softnll" not in decomposed.graph_module.code
    same(decomposed.module()(LOGITS, TARGETS).detach(), module(LOGITS, TARGETS))


class Network(torch.nn.Module):
    """A network whose last layer and loss are softnll's."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.loss = snt.CrossEntropyLoss(weight=WEIGHT, z_loss=1e-3, label_smoothing=0.1)
        self.nll = snt.NLLLoss(reduction="sum")

    def forward(self, x, y):
        z = self.linear(x)
        log_p = snt.log_softmax(z, 1)
        stats = snt.token_stats(x, self.linear.weight, y)
        return (
            snt.softmax(z, dim=-1),
            log_p,
            snt.logsumexp(z, [0, 1], keepdim=True),
            snt.cross_entropy(z, y, reduction="none", softcap=20.0),
            snt.nll_loss(log_p, y),
            snt.linear_cross_entropy(x, self.linear.weight, y),
            stats[1],
            self.loss(z, y),
            self.nll(log_p, y),
        )


def test_a_scripted_network_computes_the_same_and_can_be_saved():
    torch.manual_seed(0)
    network = Network()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    loaded = torch.jit.load(io.BytesIO(file.getvalue()))
    for got, want in zip(loaded(LOGITS, TARGETS), network(LOGITS, TARGETS), strict=True):
        assert torch.equal(got, want)
    (got,), (want,) = (
        torch.autograd.grad(each(LOGITS, TARGETS)[7], list(each.parameters())[:1]) for each in (loaded, network)
    )
    assert torch.equal(got, want)


@pytest.mark.parametrize("options", [{}, {"bias": True, "softcap": 5}, {"out_features": (2,), "bias": True}])
def test_a_scripted_linear_loss(options):
    module = snt.LinearCrossEntropyLoss(3, 4, **options)
    y = torch.tensor([0, 1, 2, 3])
    y = torch.stack([y, y.flip(0)], 1) if "out_features" in options else y
    scripted = torch.jit.script(module)
    assert torch.equal(scripted(LOGITS, y), module(LOGITS, y))


def test_a_scripted_module_refuses_a_temperature_a_row_in_one_line():
    with pytest.raises(NotImplementedError, match=r"^temperature is a tensor; allowed in TorchScript: a number$"):
        torch.jit.script(snt.CrossEntropyLoss(temperature=torch.ones(4)))


@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_no_warning_of_the_tracer(function):
    torch.jit.trace(Calls(function).eval(), (LOGITS, TARGETS), check_trace=False)
