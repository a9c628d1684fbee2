"""House-keeping that drifts unless it is tested: dependencies, records, wording."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {r.name.lower().replace("_", "-"): next(iter(r.specifier)).version for r in found}


def requirements() -> list[Requirement]:
    extras = [text for group in PROJECT["optional-dependencies"].values() for text in group]
    return [Requirement(text) for text in [*PROJECT["dependencies"], *extras]]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_every_requirement_is_pinned_within_its_range(requirement):
    name = requirement.name.lower().replace("_", "-")
    assert name in pins(), f"{name} is not in constraints.txt"
    assert requirement.specifier.contains(pins()[name], prereleases=True)


def test_environment_yml_asks_for_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    [pip] = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert "python=3.11" in conda
    assert PROJECT["requires-python"].startswith(">=3.11")
    assert "-c constraints.txt" in pip
    [extras] = re.findall(r"-e '(\.\[.*?\])' -c constraints\.txt", MAKEFILE)
    assert f"-e {extras}" in pip
    assert set(extras[2:-1].split(",")) <= PROJECT["optional-dependencies"].keys()


def test_the_version_stands_in_one_place_and_is_cited():
    from emolib import __version__

    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    release = Version(__version__).base_version
    assert citation["version"] == release
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == release


def test_only_one_opencv_is_wanted():
    # opencv-python and opencv-python-headless overwrite each other's files.
    assert [name for name in pins() if name.startswith("opencv")] == ["opencv-python"]


def test_constraints_name_no_files_or_addresses():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "@" not in text
    assert "://" not in text


def records() -> list[Path]:
    return sorted((ROOT / "outputs" / "record").glob("*.json"))


@pytest.mark.parametrize("path", records(), ids=lambda p: p.stem)
def test_every_record_names_its_command(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"]


def numbers_in(value: object) -> set[str]:
    if isinstance(value, dict):
        return set().union(*(numbers_in(v) for v in value.values()))
    if isinstance(value, list):
        return set().union(*(numbers_in(v) for v in value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {f"{value:.4f}", f"{value:.3f}", f"{value:.2f}"}
    return set(re.findall(r"\d\.\d{4}", value)) if isinstance(value, str) else set()


def test_every_score_in_the_readme_is_recorded_or_published():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    published = (ROOT / "emolib/data/published.csv").read_text(encoding="utf-8")
    known = set(re.findall(r"\d\.\d{4}", published))
    for path in records():
        known |= numbers_in(json.loads(path.read_text(encoding="utf-8")))
    scores = re.findall(r"(?<![\d.])\d\.\d{4}(?!\d)", readme)
    assert scores, "the README shows no result"
    assert not [score for score in scores if score not in known]


def test_nothing_large_or_generated_is_committed():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    if not files:
        pytest.skip("not a git checkout: run from a clone")
    weights = [f for f in files if f.is_relative_to(ROOT / "emolib" / "nano")]
    assert not [f for f in files if f.stat().st_size > 2_000_000 and f not in weights]
    assert sum(f.stat().st_size for f in weights) < 16_000_000
    assert not [f for f in files if f.suffix in {".mp4", ".wav", ".pth", ".bin"}]
