"""The page docs/assets.md, written from the data files that ``emolib doctor`` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emolib import assets, plan
from emolib.assets import Asset
from emolib.params import profiles
from emolib.rehearsal.estimate import MFU_GENERATION, MFU_TRAINING, Machine, estimate
from emolib.rehearsal.overlay import read_overlay

_ORDER = ("paper", "h200", "affectgpt2025", "laptop", "published")
_KINDS = {
    "weights": "Weights",
    "data": "Data",
    "labels": "Labels and tables",
    "tables": "Labels and tables",
    "server": "Servers",
}
_HEAD = """\
# Assets

Every weight, data set, label file and server that a profile's parameter files name: where it \
comes from, its licence, its size, the folder the profiles look in, and the commands in order. \
`emolib doctor PROFILE` gives the same list for what is missing on this machine.

This page is made by `emolib doctor --markdown > docs/assets.md` from `emolib/data/assets.yaml`, \
`emolib/data/published_configs.json` and the parameter files; a test keeps them in agreement. Read \
every licence yourself: "unknown" means that neither a licence file nor a model card was read. \
Sizes are those the publisher or others state ("published"), or two bytes a parameter ("computed \
at 16 bit"). No command of this page was run against a hub from here.
"""


def page(root: Path) -> str:
    """Write the whole page as Markdown.

    Args:
        root: Project root, whose profiles are listed.
    """
    names = [name for name in _ORDER if name in profiles.profiles(root)]
    used = {name: _stages(root, name) for name in names}
    lines = [_HEAD, "## What each profile needs", "", *_overview(used), "", *_hours(root, names)]
    by_kind: dict[str, list[Asset]] = {}
    for asset in assets.assets().values():
        by_kind.setdefault(_KINDS[asset.kind], []).append(asset)
    for title, found in by_kind.items():
        lines += ["", f"## {title}"]
        for asset in found:
            lines += ["", *_entry(asset)]
    return "\n".join(lines) + "\n"


def _stages(root: Path, profile: str) -> dict[str, list[str]]:
    """Asset -> numbers of the stages that read it; none for what another is made from."""
    found: dict[str, list[str]] = {}
    for use in assets.uses(root, profile):
        if use.asset is None:
            continue
        number = use.stage[:2] if use.required else f"({use.stage[:2]})"
        if number not in found.setdefault(use.asset.name, []):
            found[use.asset.name].append(number)
        for part in assets.sources_of(use.asset):
            found.setdefault(part.name, [])
    return found


def _overview(used: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    yield (
        "Numbers are the notebooks that read it, in brackets those that do without it; "
        "“source” is what another asset is made from."
    )
    yield ""
    yield f"| asset | size | licence | {' | '.join(used)} |"
    yield "|---" * (3 + len(used)) + "|"
    for asset in assets.assets().values():
        cells = []
        for stages in used.values():
            numbers = stages.get(asset.name)
            cells.append("" if numbers is None else " ".join(numbers) or "source")
        if any(cells):
            licence = asset.licence.split(" (")[0].split(";")[0]
            link = f"[{asset.name}](#{anchor(asset.name)})"
            facts = ["", ""] if asset.kind == "server" else [_size(asset.bytes), licence]
            yield f"| {' | '.join([link, *facts, *cells])} |"


def anchor(name: str) -> str:
    """Give the anchor that GitHub makes of a heading."""
    return "".join(c for c in name.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _size(number: int | None) -> str:
    if number is None:
        return "?"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return "-"


def _hours(root: Path, names: list[str]) -> Iterator[str]:
    machines = read_overlay(root).machines
    planned = [name for name in names if name in machines]
    yield "## GPU hours and memory per stage"
    yield ""
    yield (
        "Estimates, not measurements: FLOPs of the published sizes at "
        f"{MFU_TRAINING:.0%} of the stated peak in training and {MFU_GENERATION:.0%} in answering, "
        "every prompt as long as `max_length` allows, so they are upper bounds "
        "([rehearsal](rehearsal.md#estimates)). Hours are those of the machine, as the profile "
        "uses it; GPU hours are hours times the GPUs a stage uses (trainings on several, the rest "
        "on one). Stages without a number compute no model of ours, or one behind a server that "
        "somebody else runs."
    )
    heads = [f"{name}: {_named(machines[name])}" for name in planned]
    yield ""
    yield f"| stage | {' | '.join(heads)} |"
    yield "|---" * (1 + len(planned)) + "|"
    for stage in plan.STAGES:
        cells = [_estimated(root, name, stage, machines[name]) for name in planned]
        yield f"| {stage.name} | {' | '.join(cells)} |"


def _named(machine: Machine) -> str:
    return f"{machine.gpus} × {machine.gpu} ({machine.memory_gb:.0f} GB)"


def _estimated(root: Path, profile: str, stage: plan.Stage, machine: Machine) -> str:
    if not (root / "params" / profile / f"{stage.name}.yaml").is_file():
        return ""
    params = profiles.resolve(root, profile, stage.name, dict.fromkeys(stage.feeds, "."))
    found = estimate(stage.name, params, machine)
    if not found.memory_gb:
        return "-"
    hours = found.hours or 0.0
    return f"{hours:.1f} h, {found.memory_gb:.0f} GB ({found.largest})"


def _entry(asset: Asset) -> Iterator[str]:
    yield f"### {asset.name}"
    yield f"{asset.title}."
    yield ""
    if asset.where:
        yield f"- from {asset.where}" + (f" (`{asset.hub}`)" if asset.hub else "")
    if asset.needs:
        yield f"- needs {', '.join(f'[{name}](#{anchor(name)})' for name in asset.needs)}"
    source = f" ({asset.licence_source})" if asset.licence_source else ""
    if asset.kind != "server" or asset.licence != "unknown":
        yield f"- licence: {asset.licence}{source}"
    if asset.access:
        yield f"- first: {asset.access}"
    if asset.bytes is not None:
        yield f"- size: {_size(asset.bytes)} ({asset.size_basis})"
    elif asset.kind != "server":
        yield "- size: unknown"
    if asset.parameters:
        yield f"- parameters: {asset.parameters:,}"
    if asset.at:
        yield f"- folder: `{asset.at}`" if asset.holds else f"- file: `{asset.at}`"
    if asset.serves:
        yield f"- served as `{', '.join(asset.serves)}`"
    if asset.note:
        yield f"- note: {asset.note.strip()}"
    if commands := asset.commands():
        yield from ("", "```", *commands, "```")
