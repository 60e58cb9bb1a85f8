"""Logits divided among 8 devices of the host, by rows, by classes, or both: the same results, and no gather of all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import re, jax, jax.numpy as jnp, numpy as np, softnll.jax as snj
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("rows", "classes"))
N, C = 64, 512
x = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
y = np.arange(N, dtype=np.int32) * 7
step = jax.jit(jax.value_and_grad(lambda x, y: snj.cross_entropy(x, y, check=False)))
want = step(x, y)
for spec in (P("rows"), P(None, "classes"), P("rows", "classes"), P(None, ("rows", "classes"))):
    placed = NamedSharding(mesh, spec)
    given = jax.device_put(x, placed), jax.device_put(y, NamedSharding(mesh, P(spec[0])))
    got = step(*given)
    assert np.allclose(got[0], want[0], rtol=1e-6), spec
    assert np.allclose(got[1], want[1], rtol=1e-5, atol=1e-9), spec
    text = step.lower(*given).compile().as_text()
    for line in text.splitlines():
        if re.search(r"= .*(all-gather|all-to-all|collective-permute)", line):
            sizes = [np.prod([int(n) for n in each.split(",")]) for each in re.findall(r"f32\\[([0-9,]+)\\]", line)]
            assert max(sizes, default=0) < N * C // 8, (spec, line)
from functools import partial
local = partial(snj.cross_entropy, reduction="none", check=False)
rows = jax.shard_map(local, mesh=mesh, in_specs=(P("rows"), P("rows")), out_specs=P("rows"))
assert np.allclose(jax.jit(rows)(x, y).mean(), want[0], rtol=1e-6)
"""


@pytest.mark.slow
def test_sharded_logits():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
