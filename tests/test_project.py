"""House-keeping that drifts unless it is tested: dependencies, records, wording."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
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
    assert f"python{PROJECT['requires-python']}" in conda
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


def make_env(*options: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What ``make env`` would run; ``path``: the only folder in which programs are looked for."""
    environment = {"PATH": str(path) if path else os.environ["PATH"]}
    return subprocess.run(
        [shutil.which("make") or "make", "-n", "env", "VENV=/no/such", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def python_in(folder: Path, name: str, version: str) -> None:
    """An interpreter that says it is of that version; "" = one that does not run."""
    told = f"sys.version_info = {tuple(map(int, version.split('.')))}" if version else ""
    script = f'exec {sys.executable} -c "import sys; {told}; $2"' if version else "exit 127"
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"python3.11": "3.11.9", "python3.12": "3.12.1", "python3": "3.13.0"}, "python3.11"),
        ({"python3.11": "", "python3.13": "3.13.0", "python3.12": "3.12.1"}, "python3.12"),
        ({"python3.13": "3.13.0", "python3": "3.14.0"}, "python3.13"),
        ({"python3": "3.13.2"}, "python3"),
    ],
)
def test_make_takes_the_first_python_that_runs_and_fits(there, chosen, tmp_path):
    for name, version in there.items():
        python_in(tmp_path, name, version)
    assert f"{tmp_path / chosen} -m venv" in make_env(path=tmp_path).stdout


@pytest.mark.parametrize("there", [{}, {"python3": "3.10.13"}, {"python3": "3.14.0"}])
def test_make_without_a_fitting_python_says_which_it_wants(there, tmp_path):
    for name, version in there.items():
        python_in(tmp_path, name, version)
    assert "no Python 3.11, 3.12 or 3.13 found" in make_env(path=tmp_path).stdout
    assert "/python" not in make_env(path=tmp_path).stdout.split("no Python")[0]


def test_the_makefile_takes_what_the_project_takes():
    supported = re.findall(
        r"\((\d+), (\d+)\) <= sys.version_info\[:2\] <= \((\d+), (\d+)\)", MAKEFILE
    )
    [(a, b, c, d)] = supported
    assert PROJECT["requires-python"] == f">={a}.{b},<{c}.{int(d) + 1}"


def test_an_environment_without_cuda_keeps_the_pins():
    text = make_env("CPU=1").stdout.replace("\\\n", " ")
    first, then = [" ".join(line.split()) for line in text.splitlines() if "pip install" in line]
    options = "--no-deps torch torchvision -c constraints.txt --index-url"
    assert f"{options} https://download.pytorch.org/whl/cpu" in first
    assert "-e '.[" in then
    assert text.rstrip().splitlines()[-2].endswith("pip uninstall -q -y triton")
    assert not re.search("download.pytorch.org|uninstall", make_env().stdout)
    for name in ("torch", "torchvision"):  # PyTorch's CPU build calls itself 2.14.0+cpu
        [wanted] = [r for r in requirements() if r.name == name]
        assert wanted.specifier.contains(f"{pins()[name]}+cpu")


def test_sizes_in_the_installation_guide_are_those_recorded():
    record = json.loads((ROOT / "outputs/record/install.json").read_text(encoding="utf-8"))
    guide = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    shown = [
        int(size.replace(",", "")) for size in re.findall(r"\| ([\d,]+) \|$", guide, re.MULTILINE)
    ]
    assert sorted(shown) == sorted(record["mb"].values())


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
