"""What a notebook's results depend on: found by reading imports, data files included."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emolib import imports

ROOT = Path(__file__).resolve().parents[1]
LORA = ROOT / "notebooks" / "03_internvl_lora.ipynb"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose files may be changed."""
    copy = tmp_path / "emolib"
    shutil.copytree(imports.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(imports, "PACKAGE", copy)
    imports._imports_of.cache_clear()
    yield copy
    imports._imports_of.cache_clear()


@pytest.mark.parametrize(
    "name",
    [
        "predict.py",  # imported by the notebook
        "media/video.py",  # imported by that
        "engines/local.py",  # imported inside a function
        "training/worker.py",  # never imported: started as a process
        "data/published.csv",  # read by emolib.tables
        "scoring/lexicon.csv",
    ],
)
def test_what_a_notebook_depends_on_counts(package, name):
    before = imports.code_hash(LORA)
    with (package / name).open("a") as file:
        file.write("\n# changed\n")
    assert imports.code_hash(LORA) != before


@pytest.mark.parametrize("name", ["cli/doctor.py", "captioning.py", "README.md"])
def test_what_it_does_not_depend_on_does_not(package, name):
    before = imports.code_hash(LORA)
    with (package / name).open("a") as file:
        file.write("\n# changed\n")
    assert imports.code_hash(LORA) == before


def test_the_place_of_the_checkout_does_not_count(package):
    here = imports.code_hash(LORA)
    assert len(here) == 64
    imports.PACKAGE = ROOT / "emolib"
    assert imports.code_hash(LORA) == here
