"""The pictures of speed show the committed results, and pages of results open with their table."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import page  # noqa: E402 - found there
import speed_picture  # noqa: E402

PAGES = sorted((ROOT / "benchmarks" / "results").glob("*.md"))


def texts(path):
    """Return the texts of a figure: labels and numbers."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def described(path):
    """Return the values in a figure's description."""
    return re.search(r"<dc:description>(.*?)</dc:description>", path.read_text(encoding="utf-8"))[1]


@pytest.mark.parametrize("name", speed_picture.PICTURES)
def test_the_committed_picture_shows_the_committed_results(name, tmp_path):
    speed_picture.main(tmp_path)
    assert texts(tmp_path / name) == texts(speed_picture.IMAGES / name)
    assert described(tmp_path / name) == described(speed_picture.IMAGES / name)
    assert len(texts(tmp_path / name)) > 40


def test_another_result_gives_another_picture(tmp_path, monkeypatch):
    results = shutil.copytree(speed_picture.RESULTS, tmp_path / "results")
    fuse = results / "fuse.csv"
    fuse.write_text(fuse.read_text().replace("329887744", "529887744"))
    monkeypatch.setattr(speed_picture, "RESULTS", results)
    speed_picture.main(tmp_path)
    name = "speed-and-memory.svg"
    assert described(tmp_path / name) != described(speed_picture.IMAGES / name)
    assert set(texts(speed_picture.IMAGES / name)) - set(texts(tmp_path / name)) == {"315"}
    assert set(texts(tmp_path / name)) - set(texts(speed_picture.IMAGES / name)) == {"505"}


def test_what_the_readme_says_of_memory_is_what_was_measured():
    fused = {row.label: row.ours / row.peers["as it is"] for row in speed_picture.memory()["Step of a small Llama"]}
    said = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "to a fifth with 32 000 classes and to a tenth with 128 256" in " ".join(said.split())
    assert [round(1 / share) for share in fused.values()] == [5, 10]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_of_results_open_with_their_table(path):
    title, *before = path.read_text(encoding="utf-8").partition("\n|")[0].splitlines()
    assert title.startswith("# ")
    assert len(" ".join(before)) < 200  # one sentence at most


def test_a_table_is_moved_before_what_describes_it():
    assert page.table_first("# T\n\nmachine\n\nmethod\n\n| a |\n|---|\n| 1 |\n\n## More\n\n| b |\n|---|") == (
        "# T\n\n| a |\n|---|\n| 1 |\n\nmachine\n\nmethod\n\n## More\n\n| b |\n|---|\n"
    )
