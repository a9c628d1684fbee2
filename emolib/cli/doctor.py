"""``emolib doctor``: what this machine and a profile have, what is missing, and what to do next."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

from emolib import nano
from emolib.cli.survey import Item, Machine, StageState, Survey, recommended, survey
from emolib.errors import EmolibError
from emolib.params import profiles
from emolib.params.loading import project_root
from emolib.params.stages import StageParams
from emolib.report import format_table

_WHOLE = "complete"


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="what is installed, found, missing, and what to do next",
        description="Check this machine and everything that a profile's parameter files name: "
        "models, data, labels, servers, GPUs, disk. Says which stages can run now and gives, in "
        "order, the commands that get what is missing. Changes and downloads nothing. Exit code 1 "
        "when a stage of the profile cannot run.",
    )
    parser.add_argument("profile", nargs="?", default="demo", help="default: demo")
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.add_argument(
        "--markdown", action="store_true", help="instead, docs/assets.md: all profiles, no checks"
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings and what to do next."""
    root = project_root()
    with contextlib.chdir(root):  # where a profile's paths begin
        if args.markdown:
            from emolib.cli.assets_page import page

            print(page(root), end="")
            return 0
        found = survey(root, args.profile)
        if args.json:
            print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        else:
            print("\n".join(_lines(root, found)))
    return 0 if found.ready and not found.todo else 1


def _lines(root: Path, found: Survey) -> list[str]:
    base = profiles.base_params(root, found.profile)
    lines = [*_machine(found.machine, root), *_packages(found), ""]
    lines += _stages(found)
    lines += _there(found, base)
    lines += _to_get(found)
    lines += _optional(found)
    lines += _budgets(root, base)
    if not found.to_get:
        lines += ["", *_data(root, base), *_outputs(base)]
    lines += ["", "Next:"]
    steps = list(found.todo)
    if found.to_get:
        steps.insert(0, "get what is listed above, from top to bottom")
    if not found.ready and (now := [s.stage.name[:2] for s in found.stages if s.ready]):
        steps.append(f"stages that can run now: emolib run {found.profile} --only {now[0]}")
    lines += [f"  - {step}" for step in steps or [f"emolib run {found.profile}"]]
    return lines


def _machine(machine: Machine, root: Path) -> list[str]:
    told = "Machine (simulated for a rehearsal)" if machine.simulated else "Machine"
    gpus = ", ".join(
        f"{name} ({memory:.0f} GB)" if memory else name for name, memory in machine.gpus
    )
    lines = [
        f"{told}: {machine.system}, {machine.cores} cores, {machine.memory_gb:.0f} GB memory",
        f"GPU: {gpus or 'none'}" + (f"; {machine.problem}" if machine.problem else ""),
        f"Disk: {machine.free_gb:,.0f} GB free at {root}",
    ]
    first, *others = recommended(machine)
    lines.append(f"Profile for this machine: {first}; also {', '.join(others)}")
    return lines


def _packages(found: Survey) -> list[str]:
    whole = [f"emolib[{e}]" if e else "emolib" for e, _, told in found.packages if told == _WHOLE]
    lines = [f"Packages: {', '.join(whole)} complete"] if whole else []
    for extra, purpose, told in found.packages:
        if told != _WHOLE:
            lines.append(
                f"Packages: {f'emolib[{extra}]' if extra else 'emolib'} ({purpose}): {told}"
            )
    return lines


def _stages(found: Survey) -> list[str]:
    own = [state for state in found.stages if not state.absent]
    rows = [
        [s.stage.name, "yes" if s.ready else "no", _memory(s), _hours(s, found), _lacking(s)]
        for s in own
    ]
    lines = [
        f"Profile {found.profile}:",
        format_table(["stage", "runs now", "memory", "hours", "lacks"], rows, widest=90),
    ]
    if any(state.memory_gb for state in own):
        lines.append("memory of the largest model and hours here: upper estimates (docs/assets.md)")
    if absent := [state.stage.name[:2] for state in found.stages if state.absent]:
        lines.append(f"not in profile {found.profile}: {', '.join(absent)}")
    return lines


def _memory(state: StageState) -> str:
    return f"{state.memory_gb:.0f} GB" if state.memory_gb >= 1 else ""


def _hours(state: StageState, found: Survey) -> str:
    if not state.hours:
        unknown = state.memory_gb >= 1 and state.hours is None and found.machine.usable
        return "?" if unknown else ""
    return f"{state.hours:.1f}"


def _lacking(state: StageState) -> str:
    told = ", ".join(dict.fromkeys(state.lacks))
    if state.without:
        named = ", ".join(dict.fromkeys(state.without))
        told += f"{'; ' if told else ''}runs without {named}"
    return told


def _there(found: Survey, base: StageParams) -> list[str]:
    rows = [
        [item.name, item.at, " ".join(item.stages), item.state.detail]
        for item in found.items
        if item.ready and item.stages
    ]
    for name, model in base.models.items():
        if model.model.startswith(("tiny:", nano.PREFIX)):
            built = model.model.startswith("tiny:")
            rows.append([name, model.model, "", "built on first use" if built else "shipped"])
    if not rows:
        return []
    return ["", "There:", format_table(["name", "where", "stages", ""], rows, widest=60)]


def _to_get(found: Survey) -> list[str]:
    if not found.to_get:
        return []
    unknown = f", {found.unknown_sizes} of unknown size" if found.unknown_sizes else ""
    total = f"{found.missing_bytes / 1e9:,.1f} GB{unknown}"
    lines = ["", f"To get, in this order ({total}; {found.machine.free_gb:,.0f} GB are free):"]
    for number, item in enumerate(found.to_get, start=1):
        lines += _entry(f"{number:>3}. ", item)
    return lines


def _entry(head: str, item: Item) -> list[str]:
    """What one thing is, where it comes from, and the commands that get it."""
    known, pad = item.asset, "     "
    title = f"{item.name}: {known.title}" if known else item.name
    lines = [f"{head}{title} [{item.state}]"]
    needed = f"for stages {' '.join(item.stages)}" if item.stages else "for what follows"
    if known is None:
        return [*lines, f"{pad}{needed}; your own: put it at {item.at}, or change the parameter"]
    size = "" if known.kind == "server" else size_of(known.bytes, known.size_basis)
    lines.append(pad + "; ".join(fact for fact in (needed, known.where, size) if fact))
    if known.kind != "server" or known.licence != "unknown":
        lines.append(f"{pad}licence: {known.licence}")
    if known.access:
        lines.append(f"{pad}first: {known.access}")
    lines += [f"{pad}$ {command}" for command in item.commands]
    if known.note:
        lines.append(f"{pad}note: {known.note}")
    return lines


def size_of(number: int | None, basis: str) -> str:
    """Write a size for people, with what it rests on."""
    if number is None:
        return "size unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit} ({basis})"
    return f"no space of its own ({basis})"


def _optional(found: Survey) -> list[str]:
    left = [item for item in found.items if not item.required and not item.ready and item.stages]
    if not left:
        return []
    lines = ["", "Left out where missing, by the stages that name it:"]
    lines += [f"  - {item.name} (stages {' '.join(item.stages)}): {item.state}" for item in left]
    return lines


def _budgets(root: Path, base: StageParams) -> list[str]:
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
            lines.append(f"Token budget of {name}: {error}: lower max_tiles or raise max_length")
    return ["", *lines] if lines else []


def _data(root: Path, base: StageParams) -> list[str]:
    if base.data.kind == "demo":
        return [f"Data: generated on first use, {base.data.clips} clips"]
    from emolib.datasets.open import read_dataset
    from emolib.datasets.validation import counts

    try:
        reading = read_dataset(base.data, root / base.outputs)
    except EmolibError as error:
        return [f"Data: not usable: {error}"]
    found = counts(reading)
    lines = [
        f"Data: {found['clips']} clips, {found['with_labels']} with labels, "
        f"{found['with_words']} with words, in {base.data.root} ({base.data.kind})"
    ]
    return lines + [f"  {f.level}: {f}" for f in (*reading.of("error"), *reading.of("warning"))]


def _outputs(base: StageParams) -> list[str]:
    """Which published outputs of other models are there; what is missing stops nothing."""
    if base.released is None:
        return []
    from emolib.baselines.released import open_released

    try:
        others = open_released(base.released)
    except EmolibError as error:
        return [f"Published outputs: not usable: {error}"]
    models = dict.fromkeys(system.model for system in others.systems.values())
    lines = [f"Published outputs: {len(others.systems)}, of {', '.join(models)}"]
    return lines + [f"  left out: {line}" for line in others.missing]
