"""What importing costs, that documentation runs, and what happens where a compiler or a cache is missing."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softnll as sn
import softnll.torch as snt

HEAVY = ("numba", "scipy", "torch", "matplotlib", "sklearn", "rich", "typer", "jinja2", "pandas", "PIL", "ml_dtypes")


def run(code, **environment):
    """Run Python in a new process and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_by(statement):
    return run(f"import sys\n{statement}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}} & set({HEAVY!r})))")


def test_import_loads_numpy_only():
    assert loaded_by("import softnll; dir(softnll)") == ""


def test_the_import_test_can_fail():
    assert "numba" in loaded_by("import softnll.kernels.cpu")


def test_names():
    for name in sn.__all__:
        assert getattr(sn, name) is not None
    with pytest.raises(AttributeError, match=r"softnll.*'nothing'"):
        _ = sn.nothing


def test_explain_stays_the_function_after_its_module_is_imported():
    assert (
        run("import softnll.explanation, softnll as sn; from softnll import explain; print(callable(sn.explain))")
        == "True"
    )


MODULES = [each.name for each in pkgutil.walk_packages(sn.__path__, "softnll.")]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    if name == "softnll.__main__":
        return
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("package", [sn, snt])
def test_public_functions_are_documented(package):
    for name in package.__all__:
        text = getattr(package, name).__doc__
        if callable(getattr(package, name)) and not isinstance(getattr(package, name), type):
            for part in ("Parameters", "Returns", "Raises", "Examples"):
                assert part in text, f"{name} has no section {part}"


def test_without_numba_the_equation_serves():
    code = """
import sys, warnings
sys.modules["numba"] = None
import softnll as sn
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(sn.cross_entropy([[5.0, 4.0, 2.0]], [0]).round(6), sn.softmax([0.0, 0.0])[0])
print(len(caught), caught[0].category.__name__, "Numba" in str(caught[0].message))
"""
    assert run(code).split() == ["0.349012", "0.5", "1", "RuntimeWarning", "True"]


def test_without_a_cache_folder_kernels_still_compile():
    """Neither the package's folder nor the user's can be written to."""
    code = """
import numba.core.caching as caching
def none(*args, **kwargs):
    raise RuntimeError("cannot cache function 'total': no locator available for file")
caching.FunctionCache.__init__ = none
import softnll as sn
print(sn.softmax([0.0, 0.0])[0])
"""
    assert run(code) == "0.5"


def test_kernels_are_cached_on_disk(tmp_path):
    code = "import softnll as sn; sn.softmax([0.0, 0.0]); print('ok')"
    run(code, NUMBA_CACHE_DIR=str(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.nbc")}
    assert files
    run(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.nbc")} == files


def test_types_are_shipped():
    assert (Path(sn.__file__).parent / "py.typed").exists()
    assert np.dtype(np.float32).name  # the package's one dependency at import
