"""What ``emolib doctor`` reports: this machine, and what of a profile is there or missing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from packaging.requirements import Requirement

from emolib import assets, cluster, pipeline, plan, runs
from emolib.assets import Asset, State, Use
from emolib.baselines.released import open_released
from emolib.datasets.open import read_dataset
from emolib.engines import hub
from emolib.errors import DataError, EmolibError, MissingModelError
from emolib.params import profiles
from emolib.params.schemas import ModelParams
from emolib.params.stages import AffectGPTSft, DiscriminativeModel, InternVLLora, StageParams
from emolib.rehearsal import estimate

EXTRAS = {
    "": "scores, media, notebooks",
    "train": "models in this process, LoRA, faces, speech",
    "ray": "stages on several machines",
    "lab": "JupyterLab",
    "dev": "tests and checks",
}
#: Dense 16-bit peak of GPUs, TFLOP/s, as their makers state it; the first name found counts.
_PEAKS = {
    "B200": 2250,
    "H200": 989,
    "H100": 989,
    "H800": 989,
    "A100": 312,
    "A800": 312,
    "L40S": 362,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "V100": 125,
    "T4": 65,
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PROBE_S = 2.0  # seconds a server has to list its models
_OUTPUTS_GB = 10  # runs, images, checkpoints of branches; merged weights come on top


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine a profile is to run on.

    Attributes:
        system: Operating system.
        cores: CPU cores.
        memory_gb: Main memory, GiB.
        free_gb: Free disk space at the project root, GB.
        gpus: Name and memory (GiB) of every GPU that torch can use, or that nvidia-smi lists.
        usable: How many of them torch can use.
        problem: Why torch cannot use them; "" = it can, or there are none.
        simulated: Taken from the root's ``STAND_IN.json`` (a rehearsal), not from this machine.
    """

    system: str
    cores: int
    memory_gb: float
    free_gb: float
    gpus: tuple[tuple[str, float], ...] = ()
    usable: int = 0
    problem: str = ""
    simulated: bool = False

    @property
    def gpu_memory_gb(self) -> float:
        """Memory of the smallest GPU, GiB; 0 without one."""
        return min((memory for _, memory in self.gpus), default=0.0)

    def planned(self) -> estimate.Machine:
        """Describe it for estimates; no hours where the GPU's peak is not known."""
        name = self.gpus[0][0] if self.gpus and self.usable else ""
        peak = next((float(value) for known, value in _PEAKS.items() if known in name), 0.0)
        return estimate.Machine(
            gpu=name or "none", gpus=self.usable, memory_gb=self.gpu_memory_gb, tflops=peak
        )


def machine_at(root: Path) -> Machine:
    """Look at this machine, or read the one that a rehearsal simulates."""
    marker = root / assets.STAND_IN
    if marker.is_file():
        told = json.loads(marker.read_text(encoding="utf-8")).get("machine")
        if told:
            gpus = tuple((str(name), float(memory)) for name, memory in told.pop("gpus", ()))
            return Machine(**told, gpus=gpus, usable=len(gpus), simulated=True)
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus, usable, problem = _gpus()
    return Machine(
        system=platform.platform(),
        cores=os.cpu_count() or 1,
        memory_gb=round(size / 2**30, 1),
        free_gb=round(shutil.disk_usage(root).free / 1e9, 1),
        gpus=gpus,
        usable=usable,
        problem=problem,
    )


def _gpus() -> tuple[tuple[tuple[str, float], ...], int, str]:
    """GPUs that are installed, how many of them torch can use, and why not all."""
    installed, driver, newest = _nvidia()
    try:
        import torch
    except ImportError:
        return installed, 0, "torch is not installed" if installed else ""
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        seen = [torch.cuda.get_device_properties(i) for i in range(count)]
        found = tuple((one.name, one.total_memory / 2**30) for one in seen)
        hidden = len(installed) - count
        told = f"{hidden} of {len(installed)} GPUs are hidden (CUDA_VISIBLE_DEVICES)"
        return found, count, told if hidden > 0 else ""
    if torch.backends.mps.is_available():
        return (("Apple GPU (MPS)", 0.0),), 1, ""
    return installed, 0, gpu_problem(len(installed), driver, newest, torch.version.cuda)


def gpu_problem(installed: int, driver: str, newest: str, built: str | None) -> str:
    """Say why torch uses none of the installed GPUs.

    Args:
        installed: GPUs that nvidia-smi lists.
        driver: Version of the driver.
        newest: Newest CUDA version the driver supports, e.g. "12.8".
        built: CUDA version torch is built for; None = none.
    """
    if not installed:
        return ""
    if built is None:
        return "this torch is built without CUDA: install the one of constraints.txt"
    if newest and int(newest.split(".")[0]) < int(built.split(".")[0]):
        return (
            f"the driver {driver} supports CUDA {newest}, torch is built for CUDA {built}: "
            "update the driver"
        )
    return f"torch (CUDA {built}) finds no GPU behind driver {driver}: run nvidia-smi"


def _nvidia() -> tuple[tuple[tuple[str, float], ...], str, str]:
    """Names and memory of the GPUs, the driver, and the newest CUDA version it supports."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return (), "", ""

    def ask(*options: str) -> str:
        try:
            done = subprocess.run([tool, *options], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout if done.returncode == 0 else ""

    listed = ask("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
    rows = [[cell.strip() for cell in line.split(",")] for line in listed.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    newest = re.search(r"CUDA Version:\s*([\d.]+)", ask())
    gpus = tuple((name, float(memory) / 1024) for name, memory, _ in rows)
    return gpus, rows[0][2] if rows else "", newest[1] if newest else ""


def packages() -> list[tuple[str, str, str]]:
    """List the extras: name, purpose, and "complete" or what is missing of it."""
    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("emolib") or []]
    except importlib.metadata.PackageNotFoundError:
        return [("", EXTRAS[""], "not installed, only its source is on the path")]
    rows = []
    for extra, purpose in EXTRAS.items():
        missing = []
        for requirement in requirements:
            marker = requirement.marker
            if not (marker is None if not extra else marker and marker.evaluate({"extra": extra})):
                continue
            try:
                found = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                missing.append(requirement.name)
                continue
            if not requirement.specifier.contains(found, prereleases=True):
                missing.append(f"{requirement.name} {found}, need {requirement.specifier}")
        told = "complete" if not missing else f"missing: {', '.join(missing)}"
        rows.append((extra, purpose, told))
    return rows


@dataclass(slots=True)
class Item:
    """One thing to get, or found.

    Attributes:
        name: Its name in ``assets.yaml``; the place itself for what is not listed there.
        at: Where it is looked for; "" = nowhere of ours (a hosted server).
        state: What was found.
        asset: What ``assets.yaml`` says of it.
        commands: How it is got, in order.
        stages: Notebooks that need it, as numbers; empty = only other items are made from it.
        required: Whether one of them stops without it.
    """

    name: str
    at: str
    state: State
    asset: Asset | None
    commands: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    required: bool = False

    @property
    def ready(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.state.word == "there"

    def to_json(self) -> dict[str, Any]:
        """Plain values, with where it comes from and the commands that get it."""
        known = self.asset
        return {
            "name": self.name,
            "at": self.at,
            "state": self.state.word,
            "detail": self.state.detail,
            "stages": self.stages,
            "required": self.required,
            "title": known.title if known else "",
            "from": known.where if known else "",
            "licence": known.licence if known else "",
            "access": known.access if known else "",
            "bytes": known.bytes if known else None,
            "commands": self.commands,
            "note": known.note if known else "",
        }


@dataclass(slots=True)
class StageState:
    """Whether a stage can run now.

    Attributes:
        stage: Which.
        absent: Why the profile has no such stage; "" = it has.
        lacks: What it lacks, in a word or two each; empty = it can run.
        steps: What is to be done about it, where getting the listed items is not enough.
        without: What it would run without, named by it as left out.
        memory_gb: Estimated memory of its largest model, GiB; 0 = it runs none.
        hours: Estimated hours on this machine; None = its GPU is not known.
    """

    stage: plan.Stage
    absent: str = ""
    lacks: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    memory_gb: float = 0.0
    hours: float | None = None

    @property
    def ready(self) -> bool:
        """Whether it can run now."""
        return not self.absent and not self.lacks


@dataclass(slots=True)
class Survey:
    """All that was found.

    Attributes:
        profile: Whose.
        machine: Where.
        packages: See :func:`packages`.
        stages: One entry a stage, in the method's order.
        models: Whether the profile runs models in its own processes.
        items: What parameters name and what it is made from, in the order it is got in.
    """

    profile: str
    machine: Machine
    packages: list[tuple[str, str, str]]
    models: bool = True
    stages: list[StageState] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    @property
    def to_get(self) -> list[Item]:
        """Required items that are not there, what they are made from before them."""
        return [item for item in self.items if item.required and not item.ready]

    @property
    def missing_bytes(self) -> int:
        """Disk space of what is to be got, as far as sizes are known."""
        return sum(i.asset.bytes or 0 for i in self.to_get if i.asset is not None)

    @property
    def unknown_sizes(self) -> int:
        """How many things to get have no known size."""
        found = [i for i in self.to_get if i.asset is not None and i.asset.kind != "server"]
        return sum(i.asset is not None and i.asset.bytes is None for i in found)

    @property
    def todo(self) -> list[str]:
        """What to do next, besides getting items."""
        steps = []
        wanted = {extra for extra, _, told in self.packages if told != "complete"}
        if wanted & ({"", "train"} if self.models else {""}):
            steps.append(f"pip install -e '.{'[train]' if self.models else ''}' -c constraints.txt")
        need = self.missing_bytes / 1e9 + _OUTPUTS_GB
        if self.machine.free_gb < need:
            steps.append(
                f"free {need - self.machine.free_gb:,.0f} GB of disk space: {need:,.0f} GB are "
                f"needed, {_OUTPUTS_GB} of them for outputs"
            )
        lacks = [lack for state in self.stages for lack in state.lacks]
        if gpus := [lack for lack in lacks if lack.endswith((" GPU", " GPUs"))]:
            most = max(gpus, key=lambda lack: int(lack.split(" ")[0].replace("a", "1")))
            why = f": {self.machine.problem}" if self.machine.problem else ""
            steps.append(f"a machine with {most}; torch can use {self.machine.usable} here{why}")
        steps += [step for state in self.stages for step in state.steps]
        return list(dict.fromkeys(steps))

    @property
    def ready(self) -> bool:
        """Whether every stage of the profile can run now."""
        own = [state for state in self.stages if not state.absent]
        return bool(own) and all(state.ready for state in own)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return {
            "profile": self.profile,
            "ready": self.ready,
            "machine": asdict(self.machine),
            "recommended": recommended(self.machine),
            "packages": {f"emolib[{e}]" if e else "emolib": told for e, _, told in self.packages},
            "stages": {
                state.stage.name: {
                    "ready": state.ready,
                    "absent": state.absent,
                    "lacks": state.lacks,
                    "steps": state.steps,
                    "without": state.without,
                    "memory_gb": round(state.memory_gb, 1),
                    "hours": None if state.hours is None else round(state.hours, 2),
                }
                for state in self.stages
            },
            "items": [item.to_json() for item in self.items],
            "missing_bytes": self.missing_bytes,
            "unknown_sizes": self.unknown_sizes,
            "next": self.todo,
        }


def survey(root: Path, profile: str) -> Survey:
    """Look for everything that a profile's parameter files name, and ask its servers.

    Args:
        root: Project root.
        profile: Folder under ``params/``.

    Raises:
        ParamsError: no such profile, or its ``_base.yaml`` is wrong.
    """
    base = profiles.base_params(root, profile)
    found = Survey(profile, machine_at(root), packages(), models=bool(base.models))
    stages: list[tuple[StageState, StageParams]] = []
    for stage in plan.STAGES:
        told = StageState(stage, absent=pipeline.why_absent(root, profile, stage))
        found.stages.append(told)
        if told.absent:
            continue
        try:
            params = profiles.resolve(root, profile, stage.name, dict.fromkeys(stage.feeds, "."))
            stages.append((told, params))
        except EmolibError as error:
            told.lacks.append("its parameters")
            told.steps.append(f"correct params/{profile}/{stage.name}.yaml: {error}")
    looked = _Looked(root, {})
    uses = {told.stage.name: assets.stage_uses(told.stage.name, p) for told, p in stages}
    for use in (one for several in uses.values() for one in several):
        if use.asset is not None:
            looked.places.setdefault(use.asset.name, use.asset.at)
    for told, params in stages:
        for use in uses[told.stage.name]:
            _note(looked.item(use), use, told)
        read = [use for use in uses[told.stage.name] if _reads(use)]
        if read and all(looked.item(use).ready for use in read):
            _add(told, [("clips", step) for step in looked.unreadable(params)])
            if any(use.key == "released.root" for use in uses[told.stage.name]):
                _add(told, [("published outputs", step) for step in looked.no_outputs(params)])
        full = estimate.estimate(told.stage.name, params, found.machine.planned())
        told.memory_gb, told.hours = full.memory_gb, full.hours
        _add(told, _needs(params, found.machine, full.memory_gb))
    _inputs(root / base.outputs / profile, found.stages)
    found.items = list(looked.items.values())
    return found


@dataclass(slots=True)
class _Looked:
    """What has been looked at; each thing once.

    Attributes:
        root: Project root.
        places: Name of an asset -> where the parameters have it.
        items: By name and place.
        read: Data sets and outputs that were read, by their parameters, and what is wrong with
            them.
    """

    root: Path
    places: dict[str, str]
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    read: dict[str, list[str]] = field(default_factory=dict)

    def item(self, use: Use) -> Item:
        """The entry of what a parameter names; what it is made from goes before it."""
        name = use.asset.name if use.asset else use.at
        if (key := (name, use.at)) in self.items:
            return self.items[key]
        state = _state(self.root, use)
        serves = use.asset is not None and use.asset.kind == "server"
        for part in assets.sources_of(use.asset) if use.asset else ():
            made_from = self._part(part)
            # A server reads its weights as long as it runs; what was converted is not read again.
            made_from.required |= use.required and (state.word != "there" or serves)
            if serves and _launched(use) and state.word == "there" and not made_from.ready:
                state = State("missing", f"its weights, {part.name}")
        commands = use.asset.commands(self.places) if use.asset else []
        self.items[key] = Item(name, use.at, state, use.asset, commands)
        return self.items[key]

    def _part(self, part: Asset) -> Item:
        at = self.places.get(part.name, part.at)
        if (key := (part.name, at)) not in self.items:
            moved = replace(part, at=at)
            state = assets.state(self.root, moved, at)
            self.items[key] = Item(part.name, at, state, moved, moved.commands(self.places))
        return self.items[key]

    def unreadable(self, params: StageParams) -> list[str]:
        """What keeps the stage from reading its clips, although the files are there."""
        data = params.data
        if data.kind == "demo":
            return []
        if (key := data.model_dump_json(exclude={"split", "limit"})) not in self.read:
            self.read[key] = []
            try:
                reading = read_dataset(data, self.root / params.outputs)
                if errors := reading.of("error"):
                    raise DataError(str(errors[0]))
            except EmolibError as error:
                check = f"emolib datasets check {data.kind} {data.root}"
                self.read[key].append(f"{check}: {error}" if data.kind != "folder" else str(error))
        return self.read[key]

    def no_outputs(self, params: StageParams) -> list[str]:
        """What keeps the stage from reading any published output, although the folder is there."""
        if (key := repr(params.released)) not in self.read:
            self.read[key] = []
            try:
                open_released(params.released)
            except EmolibError as error:
                self.read[key].append(str(error))
        return self.read[key]


def _reads(use: Use) -> bool:
    return use.key == "data" or use.key.startswith("data.")


def _add(told: StageState, needs: Iterable[tuple[str, str]]) -> None:
    for lack, step in needs:
        told.lacks.append(lack)
        told.steps += [step] if step else []


def _launched(use: Use) -> bool:
    return use.model is not None and bool(use.model.launch)


def _note(item: Item, use: Use, told: StageState) -> None:
    number = use.stage[:2]
    if number not in item.stages:
        item.stages.append(number)
    item.required |= use.required
    if not item.ready:
        (told.lacks if use.required else told.without).append(item.name)


def _state(root: Path, use: Use) -> State:
    if use.model is not None and use.model.engine == "server":
        return ask_server(use.model, root)
    engine = use.model.engine if use.model is not None else ""
    if engine == "vllm" and not installed("vllm"):
        return State("missing", "no vLLM in this environment: pip install vllm")
    path = root / Path(use.at).expanduser()
    if use.model is not None and not path.exists() and _HUB_ID.fullmatch(use.at):
        try:
            hub.snapshot(use.at, download=False)
            return State("there", "in the Hugging Face cache")
        except MissingModelError:
            if use.model.allow_download:
                return State("there", "hub id, fetched on first use")
            return State("missing", "not in the Hugging Face cache")
    if use.key == "asr.model" and (Path.home() / ".cache/whisper" / f"{use.at}.pt").is_file():
        return State("there", "in whisper's cache")
    if use.asset is None:
        found = assets.state(root, None, use.at)
        if found.word == "there" and use.model is not None and not (path / "config.json").is_file():
            return State("incomplete", "no config.json")
        return found
    found = assets.state(root, use.asset, use.asset.at)
    if found.word == "there" and not path.exists():
        return State("incomplete", f"no {use.at}")
    return found


def ask_server(model: ModelParams, root: Path = Path()) -> State:
    """Ask a server for its models; one that is launched here only needs its program.

    Cost: at most :data:`PROBE_S` seconds.

    Args:
        model: The model behind it.
        root: What a program's relative path is relative to.
    """
    if model.api_key_env and not os.environ.get(model.api_key_env):
        return State("missing", f"no key: set {model.api_key_env}")
    key = os.environ.get(model.api_key_env, "") if model.api_key_env else ""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        local = httpx.URL(model.base_url).host in ("127.0.0.1", "localhost", "::1")
        answer = httpx.get(
            model.base_url.rstrip("/") + "/models",
            headers=headers,
            timeout=PROBE_S,
            trust_env=not local,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if model.launch:
            program = Path(model.launch[0]).expanduser()
            if shutil.which(root / program if len(program.parts) > 1 else program) is not None:
                return State("there", "started by the stage (launch)")
            return State("missing", f"no program {model.launch[0]} (launch)")
        return State("missing", f"nothing answers at {model.base_url} ({type(error).__name__})")
    if answer.status_code != 200:
        return State("missing", f"{model.base_url} answers HTTP {answer.status_code}")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        offered = [str(one["id"]) for one in answer.json()["data"]]
        if model.model not in offered:
            return State("missing", f"{model.base_url} offers {offered}, not {model.model}")
    return State("there", "answers")


def _needs(params: StageParams, machine: Machine, memory_gb: float) -> Iterator[tuple[str, str]]:
    """What a stage needs besides files and servers, and what is to be done about it."""
    for key, value in deepspeed_of(params):
        if value and not installed("deepspeed"):
            yield "DeepSpeed", f"pip install deepspeed ({key} = {value})"
    if params.cluster.engine == "ray" and not cluster.is_installed():
        command = "pip install -e '.[ray]' -c constraints.txt"
        yield "Ray", f"{command} (cluster.engine = ray: Ray is missing)"
    devices, processes = devices_of(params)
    wanted = max([processes, *(1 + int(d.partition(":")[2] or 0) for d in devices)], default=0)
    if wanted > machine.usable:
        yield ("a GPU" if wanted == 1 else f"{wanted} GPUs"), ""
    elif 0 < (have := machine.gpu_memory_gb if machine.usable else machine.memory_gb) < memory_gb:
        step = f"a machine with {memory_gb:.0f} GB of memory for {params.profile}'s models"
        yield (
            f"{memory_gb:.0f} GB memory ({have:.0f} here)",
            f"{step} (estimated), or lower batch_size",
        )


def installed(package: str) -> bool:
    """Whether a package is in this environment; it is not imported."""
    return importlib.util.find_spec(package) is not None


def deepspeed_of(params: StageParams) -> list[tuple[str, str]]:
    """Which of DeepSpeed's settings a stage trains with, by parameter; "" = none."""
    if isinstance(params, InternVLLora) and params.lora is not None:
        return [("lora.deepspeed", params.lora.deepspeed)]
    if isinstance(params, AffectGPTSft):
        return [("recipe.deepspeed", params.recipe.deepspeed)]
    return []


def devices_of(params: StageParams) -> tuple[list[str], int]:
    """CUDA devices that a stage's models name, and GPUs its training takes on this machine."""
    models = [m for use in assets.stage_uses("", params) if (m := use.model) and use.required]
    devices = [m.device for m in models if m.engine != "server"]
    if isinstance(params, DiscriminativeModel):
        devices += [feature.device for feature in params.features]
    devices = [device for device in devices if device.startswith("cuda")]
    processes = 0
    if isinstance(params, InternVLLora) and params.lora is not None:
        processes = params.lora.processes
    elif isinstance(params, AffectGPTSft):
        processes = params.recipe.processes
    return devices, processes if devices else 0


def _inputs(outputs: Path, stages: Sequence[StageState]) -> None:
    """A stage that reads another's run needs it to be finished, or able to run."""
    by_name = {state.stage.name: state for state in stages}
    for state in stages:
        for feed, source in state.stage.feeds.items():
            earlier = by_name[source]
            if state.absent or earlier.absent or earlier.ready or feed in state.stage.optional:
                continue
            if not any(runs.is_finished(f) for f in (outputs / source).glob("*/")):
                state.lacks.append(f"stage {source[:2]} before it")


def recommended(machine: Machine) -> list[str]:
    """Profiles this machine is large enough for, largest first; ``demo`` runs anywhere."""
    memory = machine.gpu_memory_gb if machine.usable else 0.0
    fitting = ["laptop", "published", "demo"]
    if machine.usable and memory >= 70:
        fitting = ["h200", "affectgpt2025", *fitting]
    if machine.usable >= 8 and memory >= 70:
        fitting = ["paper", *fitting]
    return fitting
