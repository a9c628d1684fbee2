"""Weights, data sets and servers that parameter files name: where they come from, what is there.

``emolib/data/assets.yaml`` says how each is got (its head explains the format) and
``emolib/data/published_configs.json`` what the published models look like inside.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from emolib import nano
from emolib.params import profiles
from emolib.params.discriminative import FeatureParams
from emolib.params.media import AsrParams, FaceParams
from emolib.params.schemas import DataParams, ModelParams, ReleasedParams
from emolib.params.stages import Baselines, StageParams
from emolib.plan import STAGES

#: A folder with this file holds stand-ins made for a rehearsal, not the published thing. A project
#: root with it is a rehearsal's own: there stand-ins are what is wanted.
STAND_IN = "STAND_IN.json"
_DATA = Path(__file__).parent / "data"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "qwen.tiktoken")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLES = ("model.safetensors", "pytorch_model.bin")
#: Notebooks that read the run folder of an earlier one and no clips of their own.
_WITHOUT_CLIPS = ("02_caption_filtering",)
#: Notebooks that do not ask what is said in a clip.
_WITHOUT_WORDS = ("00_data_check", "02_caption_filtering")
#: Notebooks that read published outputs of other models, where the parameters name any.
_OF_PUBLISHED_OUTPUTS = ("07_fusion_analysis", "08_baselines")
_POINTER = b"version https://git-lfs.github.com/spec"


@dataclass(frozen=True, slots=True)
class Asset:
    """One thing to get, as ``assets.yaml`` describes it.

    Attributes:
        name: Key in the file.
        kind: "weights", "data", "labels", "tables" or "server".
        title: What it is, for tables.
        at: Folder or file below the project root; "" for servers.
        hub: Id on the Hugging Face hub; "" = none.
        page: Address of its authors' page; "" = the hub's.
        repository: "model" or "dataset" on the hub.
        licence: Licence; "unknown" where nothing was read.
        licence_source: Where it was read.
        access: What must be signed or accepted first; "" = open.
        bytes: Size on disk; None = unknown.
        size_basis: "published", "computed at 16 bit", …; "" where the size is unknown.
        parameters: Number of weights; None = unknown or no weights.
        needs: Names of assets that ``get`` reads.
        get: Commands in order, with ``{at}`` and ``{NAME}`` in them.
        holds: What must be there, see the file's head.
        of: Data kinds whose reader looks for it.
        serves: Names under which servers know the model.
        note: What else to know.
    """

    name: str
    kind: str
    title: str
    at: str = ""
    hub: str = ""
    page: str = ""
    repository: str = "model"
    licence: str = "unknown"
    licence_source: str = ""
    access: str = ""
    bytes: int | None = None
    size_basis: str = ""
    parameters: int | None = None
    needs: tuple[str, ...] = ()
    get: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    note: str = ""

    @property
    def where(self) -> str:
        """Address of the page it comes from; "" for what is made here."""
        below = "datasets/" if self.repository == "dataset" else ""
        return self.page or (f"https://huggingface.co/{below}{self.hub}" if self.hub else "")

    def commands(self, places: Mapping[str, str] | None = None) -> list[str]:
        """Give the commands that get it and make it, in order.

        Args:
            places: Name of an asset in :attr:`needs` -> where it lies, if not where it should.
        """
        filled = []
        for command in self.get:
            command = command.replace("{at}", self.at)
            for other in self.needs:
                at = (places or {}).get(other, assets()[other].at)
                command = command.replace(f"{{{other}}}", at)
            filled.append(command)
        return filled


@dataclass(frozen=True, slots=True)
class Use:
    """A place where a profile's parameters name an asset.

    Attributes:
        stage: Notebook that reads it.
        key: Parameter, e.g. "models.internvl" or "features.1.model".
        at: Folder, file or hub id as the parameters give it; the address of a server.
        asset: What ``assets.yaml`` says of it, moved to ``at``; None = not in the file.
        required: Whether the stage stops without it.
        model: The model's parameters, where it is one.
    """

    stage: str
    key: str
    at: str
    asset: Asset | None
    required: bool = True
    model: ModelParams | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What was found on this machine.

    Attributes:
        word: "there", "missing", "incomplete" or "stand-in".
        detail: What is missing of it, or why it does not count.
    """

    word: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.detail}" if self.detail else self.word


@functools.cache
def published() -> Mapping[str, Any]:
    """Read the configuration values of published models, see ``about`` in the file."""
    content: Mapping[str, Any] = json.loads(
        (_DATA / "published_configs.json").read_text(encoding="utf-8")
    )
    return content


@functools.cache
def assets() -> Mapping[str, Asset]:
    """Read ``assets.yaml``, with sizes, licences and parameter counts of the hub ids filled in."""
    content = yaml.safe_load((_DATA / "assets.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, values in content.items():
        known = published()["models"].get(values.get("hub"), {})
        count = known.get("parameters", {}).get("computed")
        if "bytes" not in values and known.get("size_gb"):
            values |= {"bytes": round(known["size_gb"] * 1e9), "size_basis": "published"}
        elif "bytes" not in values and count:
            values |= {"bytes": 2 * count, "size_basis": "computed at 16 bit"}
        if count:
            values.setdefault("parameters", count)
        if known.get("license"):
            values.setdefault("licence", known["license"])
            values.setdefault("licence_source", "published_configs.json")
        lists: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        found[name] = Asset(name=name, **lists)
    return found


def uses(root: Path, profile: str) -> list[Use]:
    """List everything that a profile's parameter files name, stage by stage.

    Recipes that notebook 08 does not run are listed, too, as not required.

    Args:
        root: Project root.
        profile: Folder under ``params/``.

    Raises:
        ParamsError: no such profile, or a file is wrong.
    """
    if profile not in profiles.profiles(root):
        profiles.stage_source(root, profile, STAGES[0].name)  # raises, naming the profiles
    found: list[Use] = []
    for stage in STAGES:
        if (root / "params" / profile / f"{stage.name}.yaml").is_file():
            params = profiles.resolve(root, profile, stage.name, dict.fromkeys(stage.feeds, "."))
            found += stage_uses(stage.name, params)
    return found


def stage_uses(stage: str, params: StageParams) -> list[Use]:
    """List what one stage's parameters name, each once."""
    found: dict[tuple[str, str], Use] = {}
    for use in _walk(stage, params):
        found.setdefault((use.key, use.asset.name if use.asset else use.at), use)
    return list(found.values())


def assets_of(root: Path, profile: str) -> list[Asset]:
    """List every asset a profile needs, what others are made from before them, each once."""
    ordered: dict[str, Asset] = {}
    for use in uses(root, profile):
        if use.asset is not None:
            for asset in (*sources_of(use.asset), use.asset):
                ordered.setdefault(asset.name, asset)
    return list(ordered.values())


def sources_of(asset: Asset) -> Iterator[Asset]:
    """Give what an asset is made from, deepest first."""
    for name in asset.needs:
        yield from sources_of(assets()[name])
        yield assets()[name]


def _walk(stage: str, params: StageParams) -> Iterator[Use]:
    used = [getattr(params, field) for field in params.MODELS]
    names = [n for v in used for n in ([v] if isinstance(v, str) else v)]
    for name in dict.fromkeys(names):
        yield from _model(stage, f"models.{name}", params.models[name], required=True)
    if isinstance(params, Baselines):
        chosen, stops = params.chosen(), params.missing == "stop"
        for name, recipe in params.recipes.items():
            needed = stops and name in chosen
            if (model := recipe.answering(params.models)) is not None:
                key = f"models.{recipe.use}" if recipe.use else f"recipes.{name}.model"
                yield from _model(stage, key, model, required=needed)
            if recipe.file:
                yield _path(stage, f"recipes.{name}.file", recipe.file, required=needed)
    left_out: tuple[str, ...] = ("models", "recipes")
    left_out += ("data",) if stage in _WITHOUT_CLIPS else ()
    left_out += ("asr",) if stage in _WITHOUT_WORDS else ()
    if stage not in _OF_PUBLISHED_OUTPUTS:
        left_out += ("released", "wheels")
    for key, value in params:
        if key not in left_out:
            yield from _values(stage, key, value)


def _values(stage: str, key: str, value: Any) -> Iterator[Use]:
    """Find what a parameter value names, at any depth."""
    if isinstance(value, DataParams):
        needed = key != "text_data"  # without it there is no text model
        yield from (replace(use, required=needed) for use in _dataset(stage, key, value))
    elif isinstance(value, AsrParams):
        if value.model:
            yield _path(stage, f"{key}.model", value.model, downloads=value.allow_download)
    elif isinstance(value, FeatureParams):
        if value.model:
            yield _path(stage, f"{key}.model", value.model)
        if value.kind in ("picture", "visual_model") and value.view == "face":
            yield from _values(stage, f"{key}.face", value.face)
    elif isinstance(value, FaceParams):
        if value.detector == "face_alignment":
            known = assets()["face-alignment"]
            at = value.weights or "~/.cache/torch/hub"
            need = not value.allow_download
            yield Use(stage, f"{key}.weights", at, replace(known, at=at), required=need)
    elif isinstance(value, ReleasedParams):
        yield _path(stage, f"{key}.root", value.root)
    elif isinstance(value, BaseModel):
        for name, inner in value:
            yield from _values(stage, f"{key}.{name}", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, inner in enumerate(value):
            yield from _values(stage, f"{key}.{number}", inner)
    elif key in ("pictures", "classes", "groups", "wheels") and value:
        yield _path(stage, key, value, required=key != "wheels")


def _model(stage: str, key: str, model: ModelParams, *, required: bool) -> Iterator[Use]:
    if model.engine == "server":
        known = next((a for a in assets().values() if model.model in a.serves), None)
        yield Use(stage, key, model.base_url, known, required, model)
    elif not model.model.startswith(("tiny:", nano.PREFIX)):
        use = _path(stage, key, model.model, required, downloads=model.allow_download)
        yield replace(use, model=model)
    for number, adapter in enumerate(model.adapters):
        yield _path(stage, f"{key}.adapters.{number}", adapter, required)


def _path(stage: str, key: str, at: str, required: bool = True, *, downloads: bool = False) -> Use:
    """A use of a folder, a file or a hub id, found by its place, its last part, or its hub id."""
    listed = [a for a in assets().values() if a.at]
    known = next((a for a in listed if a.at == at), None)
    known = known or next((a for a in listed if a.hub == at), None)
    known = known or next((a for a in listed if Path(a.at).name == Path(at).name), None)
    moved = None if known is None else replace(known, at=at)
    if moved is not None and moved.hub == at:  # read from the hub's cache, not from a folder
        moved = replace(moved, get=(f"hf download {at}",))
    return Use(stage, key, at, moved, required and not downloads)


def _dataset(stage: str, key: str, data: DataParams) -> Iterator[Use]:
    if data.kind == "demo":
        return
    parts = [a for a in assets().values() if data.kind in a.of]
    if data.media == "none":  # texts and labels alone
        parts = [a for a in parts if a.kind != "data"]
        parts = [a for a in assets().values() if a.at == data.root and a.kind != "data"] or parts
    if not parts:
        yield Use(stage, key, data.root, None)
    home = next((a.at for a in assets().values() if a.kind == "data" and data.kind in a.of), "")
    for asset in parts:
        at = data.root if asset.at == data.root else data.root + asset.at.removeprefix(home)
        yield Use(stage, key, at, replace(asset, at=at))
    for name in ("table", "subtitles", "videos", "split_file"):
        if given := getattr(data, name):
            yield Use(stage, f"{key}.{name}", given, None)


def state(root: Path, asset: Asset | None, at: str) -> State:
    """Look at what lies at a place; nothing is loaded, every shard is looked for.

    Args:
        root: Project root.
        asset: What should lie there; None = anything.
        at: Folder or file, relative to the root or absolute.
    """
    path = root / Path(at).expanduser()
    marked = path if path.is_dir() else path.parent
    if not path.exists():
        return State("missing")
    if (marked / STAND_IN).is_file() and not (root / STAND_IN).is_file():
        return State("stand-in", f"made for a rehearsal ({marked / STAND_IN})")
    if asset is None or not asset.holds:
        problem = _broken(path) if path.is_file() else ""
        return State("incomplete", problem) if problem else State("there")
    lacking = [problem for part in asset.holds if (problem := _lacks(path, part))]
    if lacking:
        return State("incomplete", "; ".join(lacking))
    return State("there")


def _lacks(folder: Path, part: str) -> str:
    """What is wrong with one of ``holds``; "" = nothing."""
    if part == "weights":
        return weights_state(folder)
    names = {"tokenizer": _TOKENIZERS, "processor": _PROCESSORS}.get(part, part.split("|"))
    for name in names:
        path = folder / name
        if name.endswith("/"):
            if path.is_dir() and any(path.iterdir()):
                return ""
        elif path.is_file():
            return _broken(path)
    return f"no {' or '.join(names)}"


def weights_state(folder: Path) -> str:
    """Say what is wrong with a folder's weights: shards missing, cut, pointers; "" = nothing."""
    unfinished = sorted(folder.glob(".cache/huggingface/download/*.incomplete"))
    if unfinished:
        return f"{len(unfinished)} files half downloaded (run the command again)"
    for name in _INDEXES:
        if (folder / name).is_file():
            try:
                shards = set(json.loads((folder / name).read_text("utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError):
                return f"{name} is not an index"
            absent = sorted(s for s in shards if not (folder / s).is_file())
            if absent:
                return f"{len(absent)} of {len(shards)} shards missing, e.g. {absent[0]}"
            return next((p for s in sorted(shards) if (p := _broken(folder / s))), "")
    for name in _SINGLES:
        if (folder / name).is_file():
            return _broken(folder / name)
    if lone := len(list(folder.glob("*-of-*.safetensors"))):
        return f"{lone} shards without {_INDEXES[0]}"
    return "no weights"


def pointers(folder: Path) -> list[str]:
    """Names of files that a clone without Git LFS left as pointers instead of their content."""
    found = []
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size < 1024:
            with file.open("rb") as stream:
                if stream.read(len(_POINTER)) == _POINTER:
                    found.append(file.name)
    return found


def _broken(file: Path) -> str:
    """Why a file cannot be what its name says: a Git LFS pointer, empty, or cut."""
    size = file.stat().st_size
    if size == 0:
        return f"{file.name} is empty"
    with file.open("rb") as stream:
        head = stream.read(len(_POINTER))
        if head == _POINTER:
            return f"{file.name} is a Git LFS pointer (git lfs pull, or hf download)"
        if file.suffix == ".safetensors":
            length = int.from_bytes(head[:8], "little")
            stream.seek(8)
            try:
                spans = json.loads(stream.read(min(length, 10**8)))
                end = max(v["data_offsets"][1] for k, v in spans.items() if k != "__metadata__")
            except (ValueError, KeyError, TypeError, AttributeError):
                return f"{file.name} is no safetensors file"
            if size < 8 + length + end:
                return f"{file.name} is cut: {size:,} of {8 + length + end:,} bytes"
    return ""
