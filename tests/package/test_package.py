"""What importing costs, that documentation runs, what CI runs, and what happens without a compiler or a cache."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softnll as sn
import softnll.torch as snt

HEAVY = (
    "numba",
    "scipy",
    "torch",
    "matplotlib",
    "sklearn",
    "rich",
    "typer",
    "jinja2",
    "pandas",
    "PIL",
    "ml_dtypes",
    "dask",
)


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
    assert "numba" in loaded_by("import softnll._kernels.cpu.jit")


def test_names():
    for name in sn.__all__:
        assert getattr(sn, name) is not None
    with pytest.raises(AttributeError, match=r"softnll.*'nothing'"):
        _ = sn.nothing


def test_explain_stays_the_function_after_its_module_is_imported():
    assert (
        run(
            "import softnll._inspection.explain.explanation, softnll as sn; from softnll import explain; "
            "print(callable(sn.explain))"
        )
        == "True"
    )


ROOT = Path(__file__).parents[2]
MODULES = [each.name for each in pkgutil.walk_packages(sn.__path__, "softnll.")]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")), *ROOT.glob("src/**/*.md"))
SLOW = dict.fromkeys(("torch.md", "from-optax.md"), pytest.mark.slow)  # they compile
DOCUMENTS = [pytest.param(path, marks=SLOW.get(path.name, ())) for path in PAGES if ">>> " in path.read_text()]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_examples_in_documents(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testfile(str(path), module_relative=False)
    assert failed == 0


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_paths_in_documents_exist(path):
    """Links to files, and Python files in backticks; the log keeps the names of its time."""
    text = path.read_text()
    missing = {link for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text) if not (path.parent / link).exists()}
    if path.name != "log.md":
        folders = (path.parent, ROOT, ROOT / "src/softnll")
        for name in re.findall(r"`([\w*{},/-]+/[\w*{},-]+\.py)`", text):
            if not any(list(folder.glob(name)) for folder in folders):
                missing.add(name)
    assert not missing


def test_ci_runs_the_readme_command_and_what_it_leaves_out():
    ci = (ROOT / ".ci/run").read_text()
    steps = [line for line in ci.splitlines() if line.startswith(("pytest", "python tools"))]
    assert steps == ["pytest -m slow --durations=25", "python tools/house.py --check"]
    found = subprocess.run(
        ["bash", "-c", next(line for line in ci.splitlines() if line.startswith("command=")) + '; echo "$command"'],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert found.stdout == "pip install -e '.[test]' && pytest\n"


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
import warnings
warnings.simplefilter("ignore", RuntimeWarning)
from softnll._kernels.cpu import cache
def none(*args):
    raise PermissionError(13, "Permission denied")
cache._replace = none
import softnll as sn
print(sn.softmax([0.0, 0.0])[0])
"""
    assert run(code) == "0.5"


def test_kernels_are_cached_on_disk(tmp_path):
    code = "import softnll as sn; sn.softmax([0.0, 0.0]); print('ok')"
    run(code, NUMBA_CACHE_DIR=str(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.kernel")}
    assert files
    run(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.kernel")} == files


def test_types_are_shipped():
    assert (Path(sn.__file__).parent / "py.typed").exists()
    assert np.dtype(np.float32).name  # the package's one dependency at import
