"""The architecture, read from the source: layers import downwards only, and stay light."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from emolib.imports import PACKAGE, imported

# The longest prefix decides. A new module must be given a place here.
LAYERS = {
    "emolib": 0,
    "emolib.errors": 0,
    "emolib.prompts": 0,
    "emolib.files": 1,
    "emolib.hashing": 1,
    "emolib.imports": 1,
    "emolib.params": 1,
    "emolib.nano": 1,
    "emolib.processes": 1,
    "emolib.progress": 1,
    "emolib.quarantine": 1,
    "emolib.ledger": 1,
    "emolib.machine": 1,
    "emolib.cluster": 1,
    "emolib.runs": 1,
    "emolib.sources": 1,
    "emolib.assets": 1,
    "emolib.labels": 2,
    "emolib.scoring": 2,
    "emolib.extraction": 2,
    "emolib.fusion": 2,
    "emolib.media": 2,
    "emolib.features": 2,
    "emolib.published": 2,
    "emolib.datasets": 2,
    "emolib.engines": 3,
    "emolib.models": 3,
    "emolib.inference": 4,
    "emolib.costs": 1,
    "emolib.budget": 4,
    "emolib.captioning": 4,
    "emolib.filtering": 4,
    "emolib.selection": 4,
    "emolib.audit": 4,
    "emolib.agreement": 4,
    "emolib.similarity": 4,
    "emolib.pairs": 4,
    "emolib.parity": 4,
    "emolib.words": 4,
    "emolib.judging": 4,
    "emolib.cojudge": 4,
    "emolib.demo": 4,
    "emolib.training": 4,
    "emolib.summaries": 4,
    "emolib.sft": 4,
    "emolib.predict": 4,
    "emolib.ablation": 4,
    "emolib.baselines": 4,
    "emolib.plots": 5,
    "emolib.report": 5,
    "emolib.overview": 5,
    "emolib.strategies": 5,
    "emolib.tables": 5,
    "emolib.execution": 4,
    "emolib.plan": 1,
    "emolib.pipeline": 5,
    "emolib.rehearsal": 5,
    "emolib.cli": 5,
    "emolib.__main__": 5,
}

HEAVY = ("torch", "cv2", "swift", "transformers", "av", "pandas", "matplotlib", "scipy", "ray")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(p): p.read_text(encoding="utf-8") for p in PACKAGE.rglob("*.py")}


def layer(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        if (prefix := ".".join(parts[:length])) in LAYERS:
            return LAYERS[prefix]
    assert module == "emolib", f"{module} has no layer: give it one in LAYERS"
    return 0


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_downwards(module):
    for other in imported(SOURCES[module]):
        assert layer(other) <= layer(module), f"{module} imports {other} from a higher layer"


def test_no_import_cycles():
    graph = {
        m: {o for o in imported(text, top_level_only=True) if o != m and not m.startswith(o + ".")}
        for m, text in SOURCES.items()
    }
    TopologicalSorter(graph).prepare()


def test_imports_are_absolute():
    relative = [m for m, text in SOURCES.items() if "\nfrom ." in text]
    assert not relative


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("emolib", HEAVY),
        ("emolib.params", ("torch", "cv2", "swift", "transformers", "av")),
        ("emolib.__main__", ("torch", "cv2", "swift", "transformers")),
        ("emolib.labels", ("torch", "cv2", "swift", "transformers", "av")),
        ("emolib.scoring", ("torch", "cv2", "swift", "transformers", "av")),
        ("emolib.fusion", ("torch", "cv2", "swift", "transformers", "av")),
        ("emolib.extraction", ("torch", "cv2", "swift", "transformers", "av")),
        ("emolib.ledger", HEAVY),
        ("emolib.cluster", HEAVY),
        ("emolib.inference", ("torch", "swift", "transformers", "ray")),
        ("emolib.sft", ("torch", "swift", "transformers", "ray")),
    ],
)
def test_light_imports(module, forbidden):
    code = f"import sys, {module}; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
