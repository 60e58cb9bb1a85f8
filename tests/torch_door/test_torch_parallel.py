"""softnll.torch.parallel in real processes: every case equals that of one process, with one result on all ranks."""

from __future__ import annotations

import fcntl

import pytest
import torch

from parallel_cases import CASES, joined, outcome, same_on_all
from parallel_processes import found_by, spawn

WORLDS = [2, pytest.param(3, marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=WORLDS)
def ranks(request, tmp_path_factory, worker_id, testrun_uid):
    """Return what the ranks found, started once for each number of ranks, whichever worker comes first."""
    programs, name = "table,collectives,errors,sharded,placements", f"ranks-{request.param}"
    if worker_id == "master":
        return spawn(programs, request.param, tmp_path_factory.mktemp(name))
    folder = tmp_path_factory.getbasetemp().parent / f"{name}-{testrun_uid}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = found_by(request.param, folder)
        return spawn(programs, request.param, folder) if None in found else found


def bits(tensors):
    return [
        each.contiguous().view(torch.uint8).tolist() if each.numel() else []
        for each in (each.reshape(-1) for each in tensors)
    ]


@pytest.mark.parametrize("name", CASES)
def test_case(ranks, name):
    """A case on the ranks equals the case in one process; all ranks, and two runs, have the same bits."""
    case = CASES[name]
    found = [each["table"][name] for each in ranks]
    assert not any(isinstance(each, str) for each in found), found
    first, second = [each[0] for each in found], [each[1] for each in found]
    same = [bits(each) for each in same_on_all(case, first)]
    assert all(each == same[0] for each in same)
    for one, other in zip(first, second, strict=True):
        assert bits(one[0] + one[1]) == bits(other[0] + other[1])
    results, grads = joined(case, first)
    expected, expected_grads = outcome(case)
    bound = {torch.float64: 2e-14, torch.float32: 2e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
    for got, wanted in zip(results, expected, strict=True):
        assert got.dtype == wanted.dtype
        loss_bound = bound[torch.float64] if got.dtype == torch.float64 else 1e-6
        torch.testing.assert_close(
            got, wanted, rtol=loss_bound, atol=0 if "confident" in name else 1e-14, equal_nan=True
        )
    for got, wanted in zip(grads, expected_grads, strict=True):
        assert got.dtype == wanted.dtype
        rtol = bound[case["dtype"]]
        atol = (
            0.0
            if "confident" in name
            else rtol / 20
            if wanted.numel() == 0
            else rtol / 20 * max(1e-3, min(10.0, float(wanted.nan_to_num(0, 0, 0).abs().max())))
        )
        torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol, equal_nan=True)


def test_collectives(ranks):
    """A call takes two gathers, its backward none for logits, and one sum in float32 for features."""
    for each in ranks:
        found = each["collectives"]
        assert found["logits forward"] == [("all_gather", 2048), ("all_gather", 11 * 3 * 8)]
        assert found["logits backward"] == []
        assert found["linear forward"] == [("all_gather", 2048), ("all_gather", 11 * 3 * 8)]
        assert found["linear backward"] == [("all_reduce", 10 * 3 * 4)]
        assert found["parts forward"][:2] == [("all_gather", 2048), ("all_gather", 10 * 3 * 2)]
        assert found["parts forward"][2:] == found["linear forward"]
        assert found["parts backward"] == [("reduce_scatter", len(ranks) * 10 * 3 * 4)]


MESSAGES = {
    "rows": "the shape of the rows is (4,) on rank {last} and (3,) on rank 0",
    "option": "z_loss is 0.5 on rank {last} and 0.0 on rank 0",
    "reduction": "reduction is 'sum' on rank {last} and 'mean' on rank 0",
    "type": "the type of input is 'torch.float64' on rank {last}",
    "targets": "the checksum of target is",
    "bad option": "rank {last}: label_smoothing is 2.0",
    "not a tensor": "rank {last}: input is a list",
    "out of range": "rank 0: target",
    "weight": "rank {last}: weight has shape (3,)",
    "start": "start is",
    "no classes": "no classes",
    "width": "rank {last}: input has shape (3, 3), linear_weight (4, 2)",
    "function": "function is 'token_stats' on rank {last}",
    "log-probabilities": "rank 0: target",
    "soft log-probabilities": "rank {last}: target has dtype torch.float32",
    "target shape": "rank 0: target has shape (2,)",
    "sequence": "rank {last}: sequence_dim is 1; allowed: a dimension of input, of shape (3, 2), but the last",
    "sequence type": "the type of input is 'torch.float64' on rank {last}",
    "sequence length": "rank 0: target",
    "sample weight": "rank {last}: sample_weight has shape (2,)",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_error(ranks, name):
    """An error of one rank is raised on every rank, names the rank and the value, and the next call works."""
    last = len(ranks) - 1
    for each in ranks:
        kind, message = each["errors"][name]
        assert kind != "value"
        assert MESSAGES[name].format(last=last) in message, (kind, message)
        assert each["errors"]["afterwards"][0] == "value"


def test_slices_in_another_order(ranks):
    """With ``start`` the slices need not lie in rank order."""
    world = len(ranks)
    x = torch.arange(world - 1, -1, -1).repeat_interleave(4).float().expand(3, -1)
    whole = torch.nn.functional.cross_entropy(x, torch.zeros(3, dtype=torch.int64))
    assert {each["errors"]["reversed"] for each in ranks} == {("value", f"{whole.item():.5f}")}


def test_sharded_tensors(ranks):
    """The ordinary losses of DTensors, sharded over classes or rows, are those of the whole tensors."""
    for each in ranks:
        found = dict(each["sharded"])
        assert "Shard(0), its rows" in found.pop("refused")
        for name, pairs in found.items():
            for got, wanted in pairs:
                torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-14, msg=lambda m, n=name: f"{n}: {m}")


REFUSED = {
    "partial": "Partial",
    "partial loss": "Partial",
    "and_stats": "linear_cross_entropy and token_stats do",
    "features": "input is a DTensor with placements",
    "bias": "linear_bias is a plain tensor",
}


def test_placements(ranks):
    """Functions of DTensors with every placement have the values and gradients of the whole tensors."""
    for each in ranks:
        found = dict(each["placements"][0])
        refused = found.pop("refused")
        assert {name: message for name, message in refused.items() if REFUSED[name] not in message} == {}
        for name, pairs in found.items():
            for got, wanted in pairs:
                torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-14, msg=lambda m, n=name: f"{n}: {m}")


def test_features_in_parts(ranks):
    """Losses and statistics of features in parts have the same bits on every rank, and each rank its gradient."""
    for name in ranks[0]["placements"][1]:
        found = [each["placements"][1][name] for each in ranks]
        results = [bits([got for got, _ in each[:-3]]) for each in found]
        assert all(each == results[0] for each in results), name
        bound = 1e-13 if "float64" in name else 1.6e-2
        for pairs in found:
            for got, wanted in pairs:
                assert got.dtype == wanted.dtype
                torch.testing.assert_close(got, wanted, rtol=bound, atol=bound / 10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_killed_rank(tmp_path):
    """When a rank is killed, the others get torch's error within the group's timeout."""
    found = spawn("killed", 3, tmp_path, seconds=60)
    assert found[2] is None
    assert all(each is not None and each["killed"] != "no error" for each in found[:2])
