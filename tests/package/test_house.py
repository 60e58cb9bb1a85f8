"""tools/house.py on small packages made up for it, and on this one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2] / "tools" / "house.py"


@pytest.fixture
def house(monkeypatch):
    """Load the script as a module whose order is that of the made-up packages: low, then high, then the package."""
    spec = importlib.util.spec_from_file_location("house", HOUSE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "house", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FLOORS", (("low",), ("high",), ("__init__",)))
    return module


@pytest.fixture
def measured(house, tmp_path):
    """Write a package from its files' texts and return what is measured, by the properties' names."""

    def of(files):
        for path, text in {"__init__.py": "", "low/__init__.py": "", "high/__init__.py": "", **files}.items():
            file = tmp_path / "src" / "made" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return {each.name: each for each in house.measure(tmp_path)}

    return of


CLEAN = {
    "__init__.py": "from made.high.door import call\n",
    "low/sums.py": "def add(a, b):\n    return a + b\n",
    "high/door.py": "from made.low import sums\n\n\ndef call():\n    return sums.add(1, 2)\n",
}


def test_a_clean_package_passes(house, measured, tmp_path, capsys):
    found = measured(CLEAN)
    assert not [each.name for each in found.values() if each.exceeded]
    assert found["floors of the whole house"].where == ("__init__", "high", "low")
    assert found["lines of Python under `src`"].value == 8
    assert house.main(["--root", str(tmp_path), "--check"]) == 0
    assert "| floors of the whole house | 3 | 7 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "name", "where"),
    [
        (
            {"low/a.py": "from made.low import b\n", "low/b.py": "def f():\n    from made.low.a import x\n"},
            "import circles between modules",
            "made.low.a ↔ made.low.b",
        ),
        (
            {
                "low/a.py": "import made.high.b\n",
                "high/b.py": "from .. import low\n",
                "high/c.py": "import made.low.a\n",
            },
            "import circles between rooms",
            "made: high ↔ low",
        ),
        ({"low/a.py": "import made.high\n"}, "imports that run upward", "made.low.a:1 imports made.high (import)"),
        (
            {"low/a.py": "from importlib import import_module\n\nhigher = import_module('made.high')\n"},
            "imports that run upward",
            "made.low.a:3 imports made.high (string)",
        ),
        (
            {"low/a.py": "import importlib\n\nf = lambda n: importlib.import_module(f'made.h{n}')\n"},
            "imports that run upward",
            "made.low.a:3 imports made.high (string)",
        ),
        ({"loose.py": ""}, "imports that run upward", "made.loose has no place in FLOORS"),
        ({"low/a.py": "def f():\n    import made\n"}, "imports of an `__init__` from inside its room", "made.low.a:2"),
        ({"low/a.py": "import made.gone\n"}, "imports of modules that do not exist", "made.low.a:1 imports made.gone"),
        (
            {"low/a.py": "import importlib\n\nf = lambda n: importlib.import_module(f'made.gone_{n}')\n"},
            "imports of modules that do not exist",
            "made.low.a:3 imports made.gone_{n} (string)",
        ),
        (
            {"low/a.py": "class Rows: ...\n", "high/b.py": "def f():\n    class Rows: ...\n"},
            "names that more than one class has",
            "Rows: high/b.py:2, low/a.py:1",
        ),
        ({"low/a.py": "# a line\n" * 401}, "files above 400 lines", "low/a.py: 401"),
        ({"../../docs/page.html": "<html>"}, "committed build products", "docs/page.html"),
        ({"low/a.py": "def f(inputs):\n    return inputs[-1]\n"}, "lines that read arguments by number", "low/a.py:2"),
        (
            {"low/a.py": "def f(ctx):\n    return ctx.needs_input_grad[2:5]\n"},
            "lines that read arguments by number",
            ":2",
        ),
        ({"low/a.py": "def f():\n    return (None,) * 9\n"}, "lines that read arguments by number", "low/a.py:2"),
    ],
)
def test_what_it_finds(measured, files, name, where):
    assert not measured(CLEAN)[name].exceeded
    found = measured({**CLEAN, **files})[name]
    assert found.exceeded
    assert any(where in each for each in found.where), found.where


def test_lines_of_new_capabilities_are_counted_apart(measured, tmp_path):
    name, absent = "the same without `jax` and what is new", "modules of `new_capabilities.toml` that do not exist"
    files = {**CLEAN, "high/new.py": "# a line\n" * 50, "low/old.py": "# a line\n" * 30, "jax/a.py": "a = 1\n"}
    assert measured(files)[name].value == 8 + 50 + 30
    (tmp_path / "tools").mkdir()
    ledger = tmp_path / "tools" / "new_capabilities.toml"
    ledger.write_text('[files]\nmodules = ["high/new.py"]\n[files.extended]\n"low/old.py" = 20\n')
    assert measured(files)[name].value == 8 + 20
    assert measured(files)["lines of files"].value == 50 + 10
    assert measured({**files, "low/old.py": "# a line\n" * 12})[name].value == 8 + 12  # shorter than at the rebuild
    assert not measured(files)[absent].exceeded
    ledger.write_text('[files]\nmodules = ["high/gone.py"]\n')
    assert measured(files)[name].value == 8 + 50 + 30
    assert measured(files)[absent].where == ["high/gone.py"]


def test_imports_for_types_are_listed_and_break_no_limit(measured):
    types = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from made.high import door\n"
    found = measured({**CLEAN, "low/sums.py": types})
    assert not [each.name for each in found.values() if each.exceeded]
    assert found["further circles with the imports for types"].where == ["made.high.door ↔ made.low.sums"]


def test_a_circle_counts_a_floor_for_each_of_its_entries(measured):
    found = measured({**CLEAN, "low/sums.py": "def f():\n    import made.high.door\n"})
    assert found["floors of the whole house"].where == ("__init__", "high", "low")


def test_places_that_declare_an_option(measured):
    text = """
class Options:
    z_loss: float
SCHEMA = "(Tensor x, float z_loss, float? softcap) -> Tensor"
TABLE = [Option("z_loss", 0.0), check("z_loss", 1.0)]
def loss(x, *, z_loss=0.0):
    'z_loss: a float z.'
    return x.z_loss
"""
    found = measured({**CLEAN, "low/a.py": text})["places that declare `z_loss`"]
    assert sorted(found.where) == [
        "low/a.py:3 (field of Options)",
        "low/a.py:4 (schema)",
        "low/a.py:5 (row of a table)",
        "low/a.py:6 (parameter)",
    ]


def test_branches_on_the_device(measured):
    text = (
        "def f(x):\n    y = 1 if x.is_cuda else 0\n    if devices.on_cuda(x):\n        return y\n    return x.is_cpu\n"
    )
    found = measured({**CLEAN, "torch/__init__.py": "", "torch/a.py": text, "low/a.py": text})
    assert found["branches on the device in `torch`"].where == ["torch/a.py:2", "torch/a.py:3"]


def test_check_fails_and_json_lists_every_place(house, measured, tmp_path, capsys):
    measured({**CLEAN, "low/a.py": "import made.high\n" * 30})
    assert house.main(["--root", str(tmp_path)]) == 0
    assert "imports that run upward: 30, limit 0" in capsys.readouterr().out
    assert house.main(["--root", str(tmp_path), "--check", "--json"]) == 1
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["now"]}
    assert len(found["imports that run upward"]["where"]) == 30


def test_another_revision_stands_beside(measured, tmp_path):
    def git(*arguments):
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", tmp_path, *author, *arguments], check=True, capture_output=True)

    measured({**CLEAN, "low/a.py": "import made.gone\n"})
    git("init")
    git("add", ".")
    git("commit", "-m", "Begin")
    (tmp_path / "src/made/low/a.py").unlink()
    done = subprocess.run(
        [sys.executable, HOUSE, "--root", tmp_path, "--base", "HEAD"], capture_output=True, text=True, check=True
    )
    assert "| property | HEAD | now | limit |" in done.stdout
    assert "| imports of modules that do not exist | 1 | 0 | 0 |" in done.stdout
