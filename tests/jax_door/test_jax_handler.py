"""What XLA calls: errors, interruptions, several threads, and the end of the process."""

from __future__ import annotations

import ctypes as ct
import os
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softnll.jax as snj
from softnll._kernels.cpu.call_frame import Api, Call, CreateError
from softnll.jax import _handler
from softnll.jax._entry import entry

X, Y = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32), np.array([0, 4, 2, -100, 1, 3])


def run(code, *given):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:])
    return done


@pytest.mark.parametrize(("written", "want"), [(None, (77, 0)), ((0, 0), (0, 0)), ((5, 0), (5, 0)), ((5, 1), (5, 1))])
def test_a_call_that_python_does_not_finish_is_an_error(written, want, monkeypatch):
    interruptions = []
    interrupt = ct.CFUNCTYPE(None)(lambda: interruptions.append(1))
    api = Api(create_error=CreateError(lambda _: 77))
    call = Call(api=ct.pointer(api))
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)

    def python(_, words):
        if written is None:
            raise RecursionError
        (ct.c_int64 * 2).from_address(words)[:] = written

    callback = ct.CFUNCTYPE(None, ct.c_void_p, ct.c_void_p)(python)
    python_at, interrupt_at = (ct.cast(each, ct.c_void_p).value for each in (callback, interrupt))
    error = ct.addressof(_handler._UNFINISHED)
    address = entry(python_at, error, Call.api.offset, Api.create_error.offset, interrupt_at)
    found = ct.CFUNCTYPE(ct.c_int64, ct.c_void_p)(address)(ct.addressof(call))
    assert (found, len(interruptions)) == want


def test_without_jit():
    want = snj.cross_entropy(X, Y)
    with jax.disable_jit():
        assert np.allclose(snj.cross_entropy(X, Y), want, rtol=1e-6)


def test_a_batch_without_elements():
    assert jax.vmap(jax.grad(snj.cross_entropy), (0, None))(jnp.zeros((0, 6, 5)), Y).shape == (0, 6, 5)


def test_threads_register_a_name_once(monkeypatch):
    register, found = jax.ffi.register_ffi_target, []

    def slow(*given, **named):
        time.sleep(0.05)
        register(*given, **named)

    monkeypatch.setattr(jax.ffi, "register_ffi_target", slow)
    asked = [
        threading.Thread(target=lambda: found.append(_handler.register("softnll_test", lambda *_: None)))
        for _ in range(3)
    ]
    for each in asked:
        each.start()
    for each in asked:
        each.join()
    assert found == [True] * 3


def test_an_interface_that_xla_does_not_ask_about_is_not_used(monkeypatch):
    monkeypatch.setattr(jax.ffi, "register_ffi_target", lambda *_, **__: None)
    assert not _handler.register("softnll_unasked", lambda *_: None)


START = """
import os, signal, sys, threading, time
import jax, jax.numpy as jnp, numpy as np, softnll.jax as snj
from softnll.jax import _kernels
if sys.argv[1:]:
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # programs run in Python's main thread
x, y = jnp.ones((2048, 2000)), np.arange(2048) % 2000
step = jax.jit(jax.value_and_grad(lambda x: snj.cross_entropy(x, y)))
jax.block_until_ready(step(x))
"""
EXIT = {
    "dropped by a thread": "t = threading.Thread(target=lambda: [step(x) for _ in range(40)]); t.start(); t.join()",
    "failed": "_kernels.kernels = lambda: None; bad = step(x)",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", EXIT)
def test_a_process_ends(case):
    assert not run(START + EXIT[case]).stderr


INTERRUPTED = """
kernels = _kernels.kernels
def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    return kernels()
_kernels.kernels = interrupted
try:
    try:
        step(x)
    except Exception:
        time.sleep(0.1)
except KeyboardInterrupt:
    sys.exit()
sys.exit("no interruption")
"""

BETWEEN = """
def raises(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, raises)
def products(w, x):
    for _ in range(8):
        w = jnp.tanh(w @ w)
    return step(x + 0 * w[0, 0])
w, later = jnp.ones((700, 700)), jax.jit(products)
jax.block_until_ready(later(w, x))
begin = time.perf_counter()
jax.block_until_ready(later(w, x))
took = time.perf_counter() - begin
for _ in range(12):  # XLA calls some kernels in threads of its own, where nothing is raised
    signal.setitimer(signal.ITIMER_REAL, 0.4 * took)
    try:
        found = later(w, x)
        time.sleep(took)
    except (KeyboardInterrupt, Exception):
        continue
    sys.exit("a program whose kernel was not called returned")
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [INTERRUPTED, BETWEEN], ids=["in the kernel", "before the kernel"])
def test_an_interruption_ends_the_program(code):
    run(START + code, "inline")
