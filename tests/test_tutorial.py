"""The notebook runs from top to bottom and prints what it was committed with."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"


def printed(notebook):
    """Return the text that each code cell has printed, and how many figures it has drawn."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            text = "".join(each.text for each in cell.outputs if each.output_type == "stream" and each.name == "stdout")
            found.append((text, sum("image/png" in each.get("data", {}) for each in cell.outputs)))
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
def test_it_prints_what_it_was_committed_with(monkeypatch):
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(PATH, as_version=4)
    expected = printed(notebook)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(PATH.parent)}}).execute()
    assert printed(notebook) == expected
    assert sum(figures for _, figures in expected) == 3
    assert PATH.stat().st_size < 300_000


def test_nothing_of_a_machine_is_in_it():
    text = PATH.read_text(encoding="utf-8")
    assert "/home" not in text
    assert "/tmp" not in text  # noqa: S108
    assert "Warning" not in text
