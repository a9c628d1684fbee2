"""The walk: a profile's notebooks with its own parameters, on stand-ins, and what went wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from emolib import assets, pipeline
from emolib.assets import Asset, Use
from emolib.errors import EmolibError
from emolib.params import profiles
from emolib.params.schemas import DataParams
from emolib.params.stages import AffectGPTSft, InternVLLora, StageParams
from emolib.plan import STAGES, Outcome, Stage
from emolib.rehearsal.estimate import Estimate, Machine, estimate
from emolib.rehearsal.home import Servers, StandIns, inside, new_home, write_data
from emolib.rehearsal.models import NotKnown
from emolib.rehearsal.overlay import read_overlay, write_params
from emolib.rehearsal.published import entry_of
from emolib.rehearsal.words import ANSWER, PIECES
from emolib.report import one_line

#: Numbers of GPUs for which trainings are planned.
GPUS = (1, 3, 8)


@dataclass(slots=True)
class StageReport:
    """What a rehearsal found out about one stage.

    Attributes:
        stage: Which.
        state: "done", "failed", "not run", "not in this profile".
        seconds: Of the notebook.
        rehearsed: Models, servers and data that were walked through.
        plans: Launch plans of its trainings, for several numbers of GPUs.
        left_out: What was not, and why.
        faults: What would go wrong, or did.
        full_size: What the stage takes on the profile's machine.
    """

    stage: Stage
    state: str = "not run"
    seconds: float = 0.0
    rehearsed: list[str] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    full_size: Estimate | None = None


@dataclass(slots=True)
class Rehearsal:
    """What a rehearsal found out.

    Attributes:
        profile: Folder under ``params/``.
        home: The rehearsal's root.
        machine: What the profile is planned for.
        stages: One report each, in order.
        faults: Those of no single stage.
    """

    profile: str
    home: Path
    machine: Machine
    stages: list[StageReport]
    faults: list[str] = field(default_factory=list)

    def all_faults(self) -> list[str]:
        """Every fault, with its stage's name, each once."""
        found = [*self.faults]
        found += [f"{r.stage.name}: {fault}" for r in self.stages for fault in r.faults]
        return list(dict.fromkeys(found))


def rehearse(root: Path, profile: str, *, jobs: int = 2, out: IO[str] | None = None) -> Rehearsal:
    """Walk a profile on stand-ins below ``outputs/rehearsal/<profile>``.

    Nothing outside that folder and the cache of stand-ins beside it is written. The profile's
    folder there is made anew.

    Args:
        root: Project root.
        profile: Folder under ``params/``.
        jobs: Notebooks at the same time.
        out: Where status lines go; standard output when None.

    Raises:
        ParamsError: no such profile, or a wrong parameter file.
        EmolibError: the folder is somebody else's.
    """
    out = out or sys.stdout
    base = profiles.base_params(root, profile)
    where = root / base.outputs / "rehearsal"
    home = where / profile
    overlay = read_overlay(root)
    machine = overlay.machines.get(profile, Machine())
    used = assets.uses(root, profile)
    resolved = resolve_all(root, profile)
    reports = {stage.name: StageReport(stage) for stage in STAGES}
    found = Rehearsal(profile, home, machine, list(reports.values()))
    new_home(home, machine)
    _copy_notebooks(root, home)
    servers = Servers()
    moved = {use.at: inside(use.at) for use in used if inside(use.at) != use.at}
    write_params(root, profile, home, overlay, moved, servers.rewrite)
    found.faults += servers.faults
    print("stand-ins of weights and data …", file=out, flush=True)
    _place_models(StandIns(home, where / "stand-ins"), used, servers, reports)
    _place_data(home, resolved, overlay.clips, where / "stand-ins", reports)
    plan_trainings(resolved, machine.gpus, reports)
    for name, params in resolved.items():
        reports[name].full_size = full = estimate(name, params, machine)
        if machine.memory_gb and full.memory_gb > machine.memory_gb:
            reports[name].faults.append(
                f"{full.largest}: about {full.memory_gb:.0f} GiB a GPU (estimated), which has "
                f"{machine.memory_gb:.0f}"
            )
    with _as_there(home), servers.running():
        _check_models(used, reports)
        _ask_doctor(home.resolve(), profile, found, reports)
        _walk(home.resolve(), profile, jobs, out, found, reports)
        found.faults += unexpected_answers(home.resolve() / base.outputs / profile / "ledger")
    return found


def why_needless(root: Path, profile: str) -> str:
    """Why a profile is better run than rehearsed; "" when it is not.

    Raises:
        ParamsError: no such profile, or a wrong parameter file.
    """
    profiles.base_params(root, profile)
    data = [params.data for params in resolve_all(root, profile).values()]
    if all(one.kind == "demo" for one in data):
        return "its models and data are made by the project itself"
    if all(one.media == "none" for one in data):
        return "it reads published tables and runs no model: it ends in minutes on any machine"
    return ""


def resolve_all(root: Path, profile: str) -> dict[str, StageParams]:
    """Check the parameters of every stage that a profile has."""
    return {
        stage.name: profiles.resolve(root, profile, stage.name, dict.fromkeys(stage.feeds, "."))
        for stage in STAGES
        if pipeline.why_absent(root, profile, stage) == ""
    }


def _copy_notebooks(root: Path, home: Path) -> None:
    (home / "notebooks").mkdir()
    for notebook in (root / "notebooks").glob("*.ipynb"):
        shutil.copyfile(notebook, home / "notebooks" / notebook.name)


def _place_models(
    stand_ins: StandIns, used: Sequence[Use], servers: Servers, reports: dict[str, StageReport]
) -> None:
    """Make what every file names; a model that fails does not keep others from being made."""
    done: dict[str, str] = {}
    for use in used:
        report = reports[use.stage]
        asset = use.asset or _published(use.at)
        if use.model is not None and use.model.engine == "server":
            _note_server(use, servers, report)
            for name in asset.needs if asset is not None else ():
                needed = assets.assets()[name]
                _place(stand_ins, needed, needed.at, done, report)
            continue
        if asset is not None and asset.kind != "weights":
            continue
        if asset is None:
            if not use.key.startswith("data"):
                report.left_out.append(f"{use.key}: nothing is known of {use.at}")
            continue
        if _place(stand_ins, asset, use.at, done, report):
            report.rehearsed.append(Path(use.at).name)
            report.left_out += _unknown(asset)


def _unknown(asset: Asset) -> list[str]:
    """What a stand-in cannot be true to, because no copy of the publication's file was found."""
    told = []
    for part in (*assets.sources_of(asset), asset):
        known = entry_of(part.hub) if part.hub else None
        if known is not None and (missing := known[1].get("missing")):
            told.append(f"{part.name}, of which no copy was found: {'; '.join(missing)}")
    return told


def _published(at: str) -> Asset | None:
    """A model that the data file of assets does not list, found by its folder's name."""
    if (known := entry_of(at) or entry_of(Path(at).name)) is None:
        return None
    hub = known[0]
    return Asset(hub.rpartition("/")[2], "weights", hub, at=at, hub=hub)


def _place(
    stand_ins: StandIns, asset: Asset, at: str, done: dict[str, str], report: StageReport
) -> bool:
    """Make one stand-in; say whether it is there."""
    if at not in done:
        done[at] = ""
        try:
            stand_ins.place(asset, at)
        except NotKnown as error:
            done[at] = f"{at}: no stand-in: {error}"
        except Exception as error:
            done[at] = f"{at}: its stand-in cannot be made: {one_line(str(error))}"
            report.faults.append(done[at])
        else:
            state = assets.state(stand_ins.home, asset, inside(at))
            if state.word != "there":
                report.faults.append(f"{at}: its stand-in is {state}")
    if done[at]:
        report.left_out.append(done[at])
    return not done[at]


def _note_server(use: Use, servers: Servers, report: StageReport) -> None:
    assert use.model is not None
    name = use.model.model
    if name in servers.absent:
        report.left_out.append(f"{name} behind a server: {servers.absent[name]}")
    else:
        how = "launched" if use.model.launch else "somebody's"
        report.rehearsed.append(f"{name} ({how} server)")
        report.left_out.append(f"weights of {name}: its server runs in an environment of its own")


def _place_data(
    home: Path,
    resolved: dict[str, StageParams],
    clips: int,
    cache: Path,
    reports: dict[str, StageReport],
) -> None:
    wanted: dict[str, list[tuple[DataParams, str]]] = {}
    for name, params in resolved.items():
        named: list[tuple[DataParams, str]] = [(params.data, params.data.kind)]
        if (further := getattr(params, "unlabelled", None)) is not None:
            named.append((further, further.kind))
        if pictures := getattr(params, "pictures", ""):
            named.append((DataParams(kind="folder", root=pictures), "minigpt4"))
        for data, kind in named:
            if data.kind == "demo" or data.media == "none":
                continue
            reports[name].rehearsed.append(f"{kind} (data)")
            sets = wanted.setdefault(data.root, [])
            if kind not in [k for _, k in sets]:
                sets.append((data, kind))
    for sets in wanted.values():
        write_data(home, sets, clips, cache)


def plan_trainings(
    resolved: dict[str, StageParams], gpus_there: int, reports: dict[str, StageReport]
) -> None:
    """Plan every training for 1, 3 and 8 GPUs.

    Fewer GPUs than processes are refused by name, which is no fault unless the profile's own
    machine has no more.
    """
    from emolib.errors import ParamsError
    from emolib.training.launch import launch_plan

    for name, params in resolved.items():
        if not isinstance(params, InternVLLora | AffectGPTSft):
            continue
        recipe = params.lora if isinstance(params, InternVLLora) else params.recipe
        if recipe is None or params.models[params.model].device == "cpu":
            continue
        told = []
        for gpus in GPUS:
            try:
                plan = launch_plan(recipe, gpus, params.models[params.model])
            except ParamsError as error:
                if gpus >= recipe.processes or gpus >= gpus_there:
                    reports[name].faults.append(f"with {gpus} GPUs: {error}")
                told.append(f"{gpus}: refused, needs {recipe.processes}")
                continue
            told.append(f"{gpus}: {plan.processes} x {len(plan.visible) // plan.processes}")
        deepspeed = f", DeepSpeed {recipe.deepspeed}" if recipe.deepspeed else ""
        reports[name].plans.append(f"{'; '.join(told)}{deepspeed}")
        if recipe.processes > 1 or recipe.deepspeed:
            reports[name].left_out.append(
                f"{recipe.processes} processes{deepspeed}: planned, one process run here"
            )


def _check_models(used: Sequence[Use], reports: dict[str, StageReport]) -> None:
    """Find every model before any notebook runs, so that one fault does not hide another."""
    from emolib.engines.swift_setup import find_model
    from emolib.params.schemas import ModelParams

    for use in used:
        at = inside(use.at)
        if not (Path(at) / "config.json").is_file():
            continue
        asked = use.model or ModelParams(model=at)
        try:
            find_model(asked.model_copy(update={"model": at}))
        except EmolibError as error:
            reports[use.stage].faults.append(f"{use.key}: {one_line(str(error))}")


def _ask_doctor(
    home: Path, profile: str, found: Rehearsal, reports: dict[str, StageReport]
) -> None:
    """Look at the rehearsal's root as `emolib doctor` does: everything should be there."""
    from emolib.cli.survey import survey

    seen = survey(home, profile)
    for state in seen.stages:
        reports[state.stage.name].faults += [f"doctor: lacks {lack}" for lack in state.lacks]
    found.faults += [f"doctor: {step}" for step in seen.todo]


@contextlib.contextmanager
def _as_there(home: Path) -> Iterator[None]:
    """Make the rehearsal's root the project root, for kernels as well."""
    before = {name: os.environ.get(name) for name in ("EMOLIB_ROOT", "HF_HUB_OFFLINE")}
    os.environ.update({"EMOLIB_ROOT": str(home.resolve()), "HF_HUB_OFFLINE": "1"})
    try:
        with contextlib.chdir(home):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _walk(
    home: Path,
    profile: str,
    jobs: int,
    out: IO[str],
    found: Rehearsal,
    reports: dict[str, StageReport],
) -> None:
    """Run every notebook; after a failed one go on with those that do not need it."""
    outcomes: dict[str, Outcome] = {}
    try:
        for outcome in pipeline.run_profile(home, profile, jobs=jobs, out=out):
            outcomes[outcome.stage.name] = outcome
    except EmolibError as error:
        found.faults.append(one_line(str(error)))
    for stage in STAGES:
        if stage.name in outcomes:
            continue
        try:
            [outcomes[stage.name]] = pipeline.run_profile(home, profile, only=stage.name, out=out)
        except EmolibError as error:
            failed = [n for n in stage.feeds.values() if n in outcomes and outcomes[n].error]
            if failed:
                reports[stage.name].left_out.append(f"reads {', '.join(failed)}, which failed")
            else:
                reports[stage.name].faults.append(one_line(str(error)))
    for name, outcome in outcomes.items():
        report = reports[name]
        report.state, report.seconds = outcome.state, outcome.seconds
        if outcome.state == "failed":
            report.faults.append(one_line(outcome.error))
        if outcome.folder is not None and outcome.state != "failed":
            report.faults += row_errors(outcome.folder)


def row_errors(run: Path) -> list[str]:
    """Rows of a run's files that hold an error: one line a file and reason."""
    faults: list[str] = []
    for file in sorted(run.rglob("*.jsonl")):
        counts: dict[str, int] = {}
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
                    error = row.get("error") if isinstance(row, dict) else None
                    # What is wrong with a stand-in's words says nothing of the real ones.
                    if isinstance(error, str) and error and not _quotes_an_answer(error):
                        counts[error] = counts.get(error, 0) + 1
        name = file.relative_to(run)
        faults += [f"{name}: {n} rows with an error: {one_line(e)}" for e, n in counts.items()]
    return faults


def _quotes_an_answer(error: str) -> bool:
    return any(choice[:20] in error for choice in ANSWER[0])


def unexpected_answers(ledgers: Path) -> list[str]:
    """Models whose answers are not those that their stand-in's weights give.

    Such a model was loaded otherwise than its folder says: layers tied, left at random or of
    another order, a prompt that ends in another way. One line a model and file.
    """
    faults = []
    for file in sorted(ledgers.glob("*.jsonl")):
        told: dict[str, list[bool]] = {}
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if isinstance(text := row.get("text"), str) and text and not row.get("error"):
                known = any(piece in text for piece in PIECES)
                told.setdefault(str(row.get("model")), []).append(known)
        faults += [
            f"{file.stem}: {seen.count(False)} of {len(seen)} answers of {model} are not what its "
            "stand-in says: is it loaded, and asked, as its folder says?"
            for model, seen in told.items()
            if seen.count(False) * 2 > len(seen)
        ]
    return faults
