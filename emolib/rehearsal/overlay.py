"""A profile's parameter files, copied with smaller counts and this machine's devices."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from emolib.files import write_atomic
from emolib.params import profiles
from emolib.params.loading import BASE, load, read_yaml
from emolib.params.schemas import ModelParams, Schema
from emolib.plan import STAGES
from emolib.rehearsal.estimate import Machine

FILE = "rehearsal.yaml"


class Changes(Schema):
    """What is changed of one mapping; keys are paths such as ``decoding.max_new_tokens``.

    Attributes:
        at_most: Counts that are lowered to this; smaller ones stay.
        set: Values that are replaced.
    """

    at_most: dict[str, int] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)


class Overlay(Schema):
    """The file ``params/rehearsal.yaml``.

    Attributes:
        clips: Clips of every synthetic data set.
        model: Changes of every model, those of recipes included.
        feature: Changes of every feature extractor.
        base: Changes of ``_base.yaml``, where it names a speech model.
        stages: Changes of a stage's file, by the notebook's name.
        machines: The machine each profile is planned for, by the profile's name.
    """

    clips: int = Field(default=14, ge=4)
    model: Changes = Changes()
    feature: Changes = Changes()
    base: Changes = Changes()
    stages: dict[str, Changes] = Field(default_factory=dict)
    machines: dict[str, Machine] = Field(default_factory=dict)


def read_overlay(root: Path) -> Overlay:
    """Read ``params/rehearsal.yaml``.

    Raises:
        ParamsError: missing, or a wrong key or value.
    """
    return load(Overlay, root / "params" / FILE)


Rewrite = Callable[[dict[str, Any]], None]


def write_params(
    root: Path,
    profile: str,
    home: Path,
    overlay: Overlay,
    moved: Mapping[str, str],
    rewrite_model: Rewrite,
) -> None:
    """Write the profile's files below ``home`` as they are rehearsed.

    Args:
        root: Project root.
        profile: Folder under ``params/``.
        home: The rehearsal's root.
        overlay: What is changed.
        moved: Paths that lie outside the root -> where they lie below ``home``.
        rewrite_model: Further changes of a model's mapping: its server's address.

    Raises:
        ParamsError: a file is not readable.
    """
    source, target = root / "params" / profile, home / "params" / profile

    def model(values: dict[str, Any]) -> None:
        given = ModelParams.model_validate_json(json.dumps(values), strict=True)
        _apply(values, overlay.model, given.model_dump(mode="json"))
        rewrite_model(values)

    base = _placed(read_yaml(source / BASE).values, moved)
    for values in base.get("models", {}).values():
        model(values)
    if base.get("asr", {}).get("model"):
        _apply(base, overlay.base, base)
    _write(target / BASE, base)
    for file in sorted((source / profiles.RECIPES).glob("*.yaml")):
        recipe = _placed(read_yaml(file).values, moved)
        if isinstance(recipe.get("model"), dict):
            model(recipe["model"])
        _write(target / profiles.RECIPES / file.name, recipe)
    for stage in STAGES:
        if not (source / f"{stage.name}.yaml").is_file():
            continue
        own = _placed(read_yaml(source / f"{stage.name}.yaml").values, moved)
        cell = profiles.cell_defaults(root / "notebooks" / f"{stage.name}.ipynb")
        feeds = dict.fromkeys(stage.feeds, ".")
        resolved = profiles.resolve(root, profile, stage.name, feeds).model_dump(mode="json")
        _apply(own, overlay.stages.get(stage.name, Changes()), resolved, cell)
        for values in own.get("models", {}).values():
            model(values)
        for values in own.get("features", ()):
            _apply(values, overlay.feature, {"batch_size": 8, "frames": 6} | values)
        _write(target / f"{stage.name}.yaml", own)


def _apply(
    values: dict[str, Any],
    changes: Changes,
    resolved: Mapping[str, Any],
    cell: Mapping[str, Any] | None = None,
) -> None:
    for key, most in changes.at_most.items():
        now = _get(resolved, key)
        if isinstance(now, int | float) and not isinstance(now, bool) and now > most:
            _put(values, key, most, cell or {})
    for key, value in changes.set.items():
        if cell is None or _get(resolved, key.rpartition(".")[0] or key) is not None:
            _put(values, key, value, cell or {})


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return values


def _put(values: dict[str, Any], key: str, value: Any, cell: Mapping[str, Any]) -> None:
    first, _, rest = key.partition(".")
    if not rest:
        values[first] = value
        return
    # A mapping of the stage's file takes the place of the whole one in the notebook's cell.
    inner = values.setdefault(first, copy.deepcopy(cell.get(first)) or {})
    _put(inner, rest, value, {})


def _placed(values: Any, moved: Mapping[str, str]) -> Any:
    if isinstance(values, Mapping):
        return {key: _placed(value, moved) for key, value in values.items()}
    if isinstance(values, list):
        return [_placed(value, moved) for value in values]
    return moved.get(values, values) if isinstance(values, str) else values


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))
