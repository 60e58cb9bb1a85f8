"""Small losses of tensors in torch's own threads: the same bits for any number, and none in a forked process."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import softnll.torch as snt
from softnll._kernels.cpu import threads
from softnll.torch._base import team
from softnll.torch._losses import direct, plain

OPTIONS = {
    "plain": {},
    "none": {"reduction": "none", "ignore_index": 3},
    "weights": {"weight": True},
    "smoothed": {"label_smoothing": 0.1},
    "temperature": {"temperature": 0.5},
    "soft cap": {"softcap": 5.0, "ignore_index": 3},  # in blocks of rows
    "soft cap, smoothed": {"softcap": 5.0, "label_smoothing": 0.1, "temperature": 2.0},
}
TURNED = ("smoothed", "temperature")  # rows of few classes with these are turned into planes, in other threads
SHAPES = [(64, 1000), (401, 60), (6001, 3), (600, 1000)]


def inputs(n, n_classes):
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(n, n_classes, generator=generator)
    return x, torch.randint(0, n_classes, (n,), generator=generator), torch.rand(n_classes, generator=generator) + 0.5


def in_threads(compute, monkeypatch):
    """Return results with one, two and three threads, after seeing that the latter were asked for."""
    found, asked, before = [], [], torch.get_num_threads()
    of = direct.team_of

    def counted(*shape, **rest):
        asked.append(of(*shape, **rest))
        return asked[-1]

    monkeypatch.setattr(direct, "team_of", counted)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            asked.clear()
            found.append(compute())
            assert asked
            assert all(each.threads == threads and (each.parallel != 0) == (threads > 1) for each in asked)
    finally:
        torch.set_num_threads(before)
    return found


def assert_same(found):
    first, *others = found
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


runs_openmp = pytest.mark.skipif(
    not team._openmp()[0], reason="this torch has no runtime of OpenMP that has GOMP_parallel"
)


@runs_openmp
@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name in OPTIONS for shape in SHAPES if shape[1] > 3 or name not in TURNED]
)
def test_losses_have_the_same_bits_for_any_number_of_threads(name, shape, monkeypatch):
    x, y, w = inputs(*shape)
    options = OPTIONS[name] | ({"weight": w} if "weight" in OPTIONS[name] else {})

    def compute():
        leaf = x.clone().requires_grad_()
        loss = snt.cross_entropy(leaf, y, **options)
        loss.sum().backward()
        with torch.no_grad():
            return loss.detach(), leaf.grad, snt.cross_entropy(leaf, y, **options)

    assert_same(in_threads(compute, monkeypatch))


@runs_openmp
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", [snt.softmax, snt.log_softmax])
def test_probabilities_have_the_same_bits_for_any_number_of_threads(function, shape, monkeypatch):
    x, _, _ = inputs(*shape)

    def compute():
        leaf = x.clone().requires_grad_()
        p = function(leaf, -1)
        p.backward(x.cos())
        return p.detach(), leaf.grad

    assert_same(in_threads(compute, monkeypatch))


def test_what_is_not_served_in_threads_is_left_to_the_general_path():
    """A target out of range in one thread's rows is found, and a row that vectors leave is computed."""
    x, y, _ = inputs(64, 1000)
    y[60] = 1000
    with pytest.raises(IndexError, match=r"target\[60\] is 1000"):
        snt.cross_entropy(x, y)
    y[60], x[50, 7] = 0, float("nan")
    losses = snt.cross_entropy(x, y, reduction="none")
    assert losses.isnan().nonzero().tolist() == [[50]]


def test_few_logits_and_one_thread_take_no_team(monkeypatch):
    assert team.team_of(128, 10) == (128, 0, 0, 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert team.team_of(64, 1000) == (64, 0, 0, 1)


def test_another_runtime_takes_no_team(monkeypatch):
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool")
    assert team._openmp.__wrapped__() == (0, 0)


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads, of ours and of torch's."""
    before = torch.get_num_threads()
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@runs_openmp
@pytest.mark.usefixtures("two_threads")
def test_large_losses_run_in_torchs_threads(monkeypatch):
    """Ranges of planes, by two threads, with the bits of one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 21, 64, 64, generator=generator)
    y = torch.randint(0, 21, (4, 64, 64), generator=generator)

    def compute():
        leaf = x.clone().requires_grad_()
        loss = snt.cross_entropy(leaf, y)
        loss.backward()
        return loss.detach(), leaf.grad, snt.softmax(x, 1)

    taken, of = [], team.in_torchs_threads
    monkeypatch.setattr(threads, "_starts", [lambda *given: taken.append(of(*given)) or taken[-1]])
    monkeypatch.setattr(threads, "_in_pool", None)
    monkeypatch.setattr(plain, "form_of", lambda *_: None)  # the general path
    there = compute()
    assert len(taken) == 2
    assert all(taken)
    monkeypatch.undo()
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert_same([there, compute()])


@runs_openmp
@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_range_is_raised_after_all_have_ended(monkeypatch):
    monkeypatch.setattr(threads, "_in_pool", None)
    seen = set()

    def work(first, last):
        seen.update(range(first, last))
        if first <= 1000 < last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threads.for_rows(4000, 10**6, work)
    assert len(seen) >= 2000  # of the other thread, at least


@runs_openmp
@pytest.mark.usefixtures("two_threads")
def test_as_many_threads_as_torch_has_but_no_more_than_are_asked_for(monkeypatch):
    called = []

    def taken(threads):
        called.clear()
        return team.in_torchs_threads(threads, lambda: called.append(threads)), len(called)

    assert taken(2) == taken(5) == (True, 2)
    torch.set_num_threads(4)
    assert taken(3) == (False, 0)
    torch.set_num_threads(1)
    assert taken(3) == (False, 0)
    torch.set_num_threads(2)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(taken, 2).result() == (False, 0)
    monkeypatch.setattr(team, "_forks", [1])
    assert taken(2) == (False, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_computes_alone():
    """Also after the parent has used the threads, which the child has not: the runtime would wait for them."""
    code = """
import os, sys
import torch
import softnll.torch as snt
torch.set_num_threads(2)
x, y = torch.randn(64, 1000), torch.arange(64)
large = torch.randn(600, 1000), torch.arange(600)
here = snt.cross_entropy(x, y), snt.softmax(large[0], 0)
child = os.fork()
if child == 0:
    there = snt.cross_entropy(x, y), snt.softmax(large[0], 0)
    os._exit(0 if all((a.numpy() == b.numpy()).all() for a, b in zip(there, here)) else 3)
print(os.waitpid(child, 0)[1])
"""
    two = os.environ | {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=two)
    assert done.stdout == "0\n"
