"""The tutorial runs from a clean start, and what it prints is what is committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the tutorial is executed with nbclient, nbformat and ipykernel")
nbclient = pytest.importorskip("nbclient", reason="the tutorial is executed with nbclient, nbformat and ipykernel")
pytest.importorskip("ipykernel", reason="the tutorial is executed with nbclient, nbformat and ipykernel")

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def printed(cell):
    """Return the text that a cell printed, however many pieces it came in, and the kinds of its other outputs."""
    text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    return text, [sorted(output.data) for output in cell.outputs if output.output_type != "stream"]


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(TUTORIAL, as_version=4)


@pytest.mark.filterwarnings("default")  # of the client and the kernel's transport; the cells' own are outputs, and seen
def test_it_prints_what_is_committed(committed, tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(TUTORIAL.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    again = nbformat.from_dict(committed)
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    again = nbclient.NotebookClient(
        nbformat.reads(nbformat.writes(again), as_version=4),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    kept = nbformat.read(TUTORIAL, as_version=4)
    assert [printed(cell) for cell in again.cells if cell.cell_type == "code"] == [
        printed(cell) for cell in kept.cells if cell.cell_type == "code"
    ]


def test_what_is_committed_is_small_and_the_same_for_everybody(committed):
    nbformat.validate(committed)
    assert TUTORIAL.stat().st_size < 300_000
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    for cell in committed.cells:
        assert not cell.metadata
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name", "stdout") == "stdout"  # no warnings
    assert set(committed.metadata) == {"kernelspec", "language_info"}
    assert committed.metadata.language_info == {"name": "python"}
