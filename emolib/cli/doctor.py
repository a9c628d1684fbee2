"""``emolib doctor``: what is installed, found, missing, and what to do next."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from emolib import cluster, nano, pipeline, plan
from emolib.errors import EmolibError
from emolib.params import profiles
from emolib.params.baselines import Recipe
from emolib.params.loading import project_root
from emolib.params.schemas import ModelParams
from emolib.params.stages import AffectGPTSft, InternVLLora, StageParams
from emolib.report import format_table

_EXTRAS = {
    "": "scores, media, notebooks",
    "train": "models in this process, LoRA, faces, speech",
    "ray": "stages on several machines",
    "lab": "JupyterLab",
    "dev": "tests and checks",
}


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="what is installed, found, missing, and what to do next",
        description="Check this machine and, given a profile, its parameter files, models and "
        "data. Changes and downloads nothing. Exit code 1 when something needed is missing.",
    )
    parser.add_argument("profile", nargs="?", default="demo", help="default: demo")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings and what to do next."""
    root = project_root()
    with contextlib.chdir(root):  # where a profile's paths begin
        return _examine(root, args)


def _examine(root: Path, args: argparse.Namespace) -> int:
    todo: list[str] = []
    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, {_memory()}, {_gpus()}")
    free = shutil.disk_usage(root).free / 2**30
    print(f"Disk: {free:.0f} GB free at {root}\n")
    if free < 5:
        todo.append("free some disk space: runs, images and checkpoints need a few GB")
    print(format_table(["packages", "for", "state"], _packages(todo)))
    print(f"\nProfile {args.profile}:")
    base = profiles.base_params(root, args.profile)
    print(format_table(["notebook", "parameters"], _stages(root, args.profile, todo), widest=100))
    print()
    print(format_table(["model", "where", "state"], _models(root, base, todo), widest=70))
    if recipes := profiles.recipes(root, args.profile).recipes:
        print()
        print(format_table(["baseline", "sees", "where", "state"], _recipes(root, base, recipes)))
    for line in _budgets(root, base, todo):
        print(line)
    print(f"\nData: {_data(root, base, todo)}")
    print("\nNext:")
    for step in dict.fromkeys(todo) or [f"emolib run {args.profile}"]:
        print(f"  - {step}")
    return 1 if todo else 0


def _packages(todo: list[str]) -> list[list[str]]:
    """One row an extra: whether every requirement of it is met."""
    rows = []
    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("emolib") or []]
    except importlib.metadata.PackageNotFoundError:
        todo.append("pip install -e '.[train]' -c constraints.txt")
        return [["emolib", _EXTRAS[""], "not installed, only its source is on the path"]]
    for extra, purpose in _EXTRAS.items():
        missing = []
        for requirement in requirements:
            marker = requirement.marker
            wanted = marker is None if not extra else marker and marker.evaluate({"extra": extra})
            if wanted:
                try:
                    found = importlib.metadata.version(requirement.name)
                    if not requirement.specifier.contains(found, prereleases=True):
                        missing.append(f"{requirement.name} {found}, need {requirement.specifier}")
                except importlib.metadata.PackageNotFoundError:
                    missing.append(requirement.name)
        name = f"emolib[{extra}]" if extra else "emolib"
        rows.append(
            [name, purpose, "complete" if not missing else f"missing: {', '.join(missing)}"]
        )
        if missing and extra in ("", "train"):
            todo.append(f"pip install -e '.[{extra or 'train'}]' -c constraints.txt")
    return rows


def _stages(root: Path, profile: str, todo: list[str]) -> list[list[str]]:
    rows = []
    for stage in plan.STAGES:
        if absent := pipeline.why_absent(root, profile, stage):
            rows.append([stage.name, absent])
            continue
        try:
            params = profiles.resolve(root, profile, stage.name, dict.fromkeys(stage.feeds, "."))
            rows.append([stage.name, "ok"])
            key, value = _deepspeed_of(params)
            if value and not _deepspeed():
                rows[-1][1] = f"{key} = {value}: DeepSpeed is missing"
                todo.append("pip install deepspeed")
            if params.cluster.engine == "ray" and not cluster.is_installed():
                rows[-1][1] = "cluster.engine = ray: Ray is missing"
                todo.append("pip install -e '.[ray]' -c constraints.txt")
        except EmolibError as error:
            rows.append([stage.name, str(error)])
            todo.append(f"mend params/{profile}/{stage.name}.yaml")
    return rows


def _deepspeed_of(params: StageParams) -> tuple[str, str]:
    """Where a stage says which of DeepSpeed's settings it trains with, and which; "" = none."""
    if isinstance(params, InternVLLora) and params.lora is not None:
        return "lora.deepspeed", params.lora.deepspeed
    if isinstance(params, AffectGPTSft):
        return "recipe.deepspeed", params.recipe.deepspeed
    return "", ""


def _deepspeed() -> bool:
    return importlib.util.find_spec("deepspeed") is not None


def _models(root: Path, base: StageParams, todo: list[str]) -> list[list[str]]:
    rows = []
    for name, model in base.models.items():
        where, state = _model(root, model)
        if state.startswith("no "):
            todo.append(f"model {name}: {state} ({where})")
        rows.append([name, where, state])
    if base.asr.model:
        rows.append(["asr", base.asr.model, _ears(base, todo)])
    return rows


def _model(root: Path, model: ModelParams) -> tuple[str, str]:
    """Where a model is and whether it is there; no server is asked."""
    if model.engine == "server":
        missing = bool(model.api_key_env) and model.api_key_env not in os.environ
        if missing:
            return model.base_url, f"no key: set {model.api_key_env}"
        if model.launch and shutil.which(Path(model.launch[0]).expanduser()) is None:
            return model.base_url, f"no program {model.launch[0]!r} (launch)"
        return model.base_url, "ok"
    if model.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        return model.model, "no vLLM in this environment: pip install vllm"
    if model.model.startswith("tiny:"):
        return model.model, "built on first use"
    if model.model.startswith(nano.PREFIX):
        known = model.model.removeprefix(nano.PREFIX) in nano.names()
        return model.model, "ok" if known else f"no such nano model, only {nano.names()}"
    if (root / Path(model.model).expanduser() / "config.json").is_file():
        return model.model, "ok"
    state = "hub id, fetched on first use" if model.allow_download else "no config.json"
    return model.model, state


def _recipes(root: Path, base: StageParams, recipes: Mapping[str, Recipe]) -> list[list[str]]:
    """One row a recipe. A missing one is told, and stops nothing but notebook 08."""
    rows = []
    for name, recipe in recipes.items():
        model = recipe.answering(base.models)
        if recipe.combine:
            where, state = " + ".join(recipe.combine), "joined"
        elif model is None:
            where = recipe.file
            state = "ok" if (root / Path(where).expanduser()).is_file() else "no such file"
        else:
            where, state = _model(root, model)
        rows.append([name, ", ".join(recipe.inputs), where, state])
    return rows


def _budgets(root: Path, base: StageParams, todo: list[str]) -> list[str]:
    """What six frames cost each model that is counted."""
    from emolib import budget

    lines = []
    for name, model in base.models.items():
        if model.engine == "server" or model.model.startswith(("tiny:", nano.PREFIX)):
            continue
        folder = root / Path(model.model).expanduser()
        here = (folder / "config.json").is_file()
        try:
            if said := budget.describe(model, folder if here else None):
                lines.append(f"Token budget of {name}: {said}")
        except EmolibError as error:
            lines.append(f"Token budget of {name}: {error}")
            todo.append(f"model {name}: lower max_tiles or raise max_length")
    return lines


def _ears(base: StageParams, todo: list[str]) -> str:
    """Whether the speech model is there; it is not loaded."""
    from emolib.media.asr import open_recognizer

    try:
        open_recognizer(base.asr)
    except EmolibError as error:
        todo.append(f"asr: {error}")
        return "not usable"
    return "ok"


def _data(root: Path, base: StageParams, todo: list[str]) -> str:
    if base.data.kind == "demo":
        return f"generated on first use, {base.data.clips} clips"
    from emolib.datasets.open import read_dataset
    from emolib.datasets.validation import counts

    try:
        reading = read_dataset(base.data, root / base.outputs)
    except EmolibError as error:
        todo.append(f"data: {error}")
        return f"not usable: {error}"
    found = counts(reading)
    lines = [
        f"{found['clips']} clips, {found['with_labels']} with labels, {found['with_words']} with "
        f"words, in {base.data.root} ({base.data.kind})"
    ]
    lines += [f"  {f.level}: {f}" for f in (*reading.of("error"), *reading.of("warning"))]
    if reading.of("error"):
        todo.append(f"emolib datasets check {base.data.kind} {base.data.root}")
    return "\n".join(lines)


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 2**30:.0f} GB memory"


def _gpus() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "no NVIDIA GPU"
    import subprocess

    found = subprocess.run(
        [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    )
    return found.stdout.strip().replace("\n", "; ") or "no NVIDIA GPU answers"
