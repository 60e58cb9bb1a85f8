"""The instructions of kernels for other CPUs, and their values without AVX and FMA."""

from __future__ import annotations

import json

import pytest
from other_cpus import CPUS, run, run_chosen, x86_only

pytestmark = x86_only

LOOK = """
import json
import numpy as np
from softnll._kernels.cpu import by_row, jit
from softnll._kernels.cpu.parameters import logsumexp_types
from softnll._kernels.cpu.processor import converts_half, fuses
from softnll._kernels.cpu.signature import INTP

text = ""

class Library(jit._Library):
    def code(self, symbol):
        global text
        result = super().code(symbol)
        text = self.codegen._tm.emit_assembly(self._final_module)
        return result

jit._Codegen._library_class = Library
jit.compile_function(by_row.logsumexp, INTP, logsumexp_types(np.dtype("float32"), masked=False), "entry")
words = {each: text.count(each) for each in ("%xmm", "%ymm", "%zmm", "vfmadd")}
print(json.dumps({"fuses": fuses(), "converts": converts_half(), **words}))
"""


@pytest.mark.parametrize("name", list(CPUS))
def test_instructions(name, tmp_path):
    """Compiled and read, never called."""
    done = run(name, tmp_path, "-c", LOOK)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    modern = name != "x86-64"
    assert found["fuses"] == found["converts"] == modern
    assert (found["vfmadd"] > 0) == modern
    assert found["%xmm"] > 0
    assert (found["%ymm"] > 0) == modern
    assert (found["%zmm"] > 0) == (name == "skylake-avx512")


@pytest.mark.slow
def test_without_avx(tmp_path):
    run_chosen("x86-64", tmp_path)
