"""Merge parameter sources in order, remember where each value came from, check all at once."""

from __future__ import annotations

import difflib
import json
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from emolib.errors import ParamsError

S = TypeVar("S", bound=BaseModel)
BASE = "_base.yaml"


@dataclass(frozen=True, slots=True)
class Source:
    """One place parameters come from, e.g. a YAML file, and what it says."""

    origin: str
    values: Mapping[str, Any]


def project_root(start: Path | None = None) -> Path:
    """Find the folder that holds ``params/`` and ``notebooks/``.

    In this order: ``EMOLIB_ROOT``; the current folder or one above it; the checkout this code
    is installed from.

    Raises:
        ParamsError: no such folder, or ``EMOLIB_ROOT`` is not one.
    """
    if root := os.environ.get("EMOLIB_ROOT"):
        named = Path(root).expanduser().resolve()
        if not (named / "params").is_dir() or not (named / "notebooks").is_dir():
            raise ParamsError(f"EMOLIB_ROOT = {root}: no params/ and notebooks/ in it")
        return named
    start = (start or Path.cwd()).resolve()
    installed = Path(__file__).resolve().parents[2]
    for folder in (start, *start.parents, installed):
        if (folder / "params").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise ParamsError(
        f"no params/ and notebooks/ in {start} or above it, and emolib is not installed from a "
        "checkout: change into one or set EMOLIB_ROOT to it"
    )


def read_yaml(path: Path) -> Source:
    """Read one parameter file.

    Raises:
        ParamsError: missing, unreadable, not YAML, a key twice, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Strict)
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ParamsError(f"{path}: no such file; {path.parent} holds {beside}") from None
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        # Value and TypeError: a date that does not exist, a list as key.
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise ParamsError(f"{path}: expected 'key: value' lines, found {type(values).__name__}")
    return Source(str(path), values)


class _Strict(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which plain YAML resolves silently."""


def _no_duplicates(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _plain_number(loader: _Strict, node: yaml.ScalarNode) -> int | float:
    """Refuse numbers that YAML 1.1 reads as nobody means them: 010 is 8, 1:30 is 90."""
    text = node.value.lstrip("+-")
    if ":" in text or (text[:1] == "0" and text[1:].replace("_", "").isdecimal()):
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"{node.value} is read as base 60 or 8: write a plain number, or quote it as text",
            node.start_mark,
        )
    kind = "int" if node.tag.endswith(":int") else "float"
    return getattr(loader, f"construct_yaml_{kind}")(node)


for _kind in ("int", "float"):
    _Strict.add_constructor(f"tag:yaml.org,2002:{_kind}", _plain_number)
_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_duplicates)


def merge(schema: type[S], sources: list[Source]) -> S:
    """Merge sources left to right (mappings key by key, the rest replaced) and check.

    Types are strict: ``"false"`` is no bool, ``1e-4`` written without a dot, which YAML reads
    as text, is no float, and neither is ``.inf`` or ``.nan``.

    Raises:
        ParamsError: one line per wrong key or value with its origin and the choices.
    """
    merged: dict[str, Any] = {}
    origins: dict[tuple[str, ...], str] = {}
    for source in sources:
        _merge_into(merged, source.values, (), source.origin, origins)
    try:
        # The JSON door of pydantic is strict and still turns text into paths, lists into tuples.
        text = json.dumps(merged)
    except (TypeError, ValueError) as error:
        raise ParamsError(f"{[s.origin for s in sources]}: not plain values: {error}") from None
    try:
        return schema.model_validate_json(text, strict=True)
    except ValidationError as error:
        lines = [_explain(schema, merged, origins, problem) for problem in error.errors()]
        raise ParamsError("\n".join(lines)) from None


def _merge_into(
    target: dict[str, Any],
    values: Mapping[str, Any],
    path: tuple[str, ...],
    origin: str,
    origins: dict[tuple[str, ...], str],
) -> None:
    for key, value in values.items():
        here = (*path, key)
        origins[here] = origin
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge_into(target[key], value, here, origin, origins)
        elif isinstance(value, Mapping):
            target[key] = {}
            _merge_into(target[key], value, here, origin, origins)
        else:
            target[key] = value


def _explain(
    schema: type[BaseModel],
    merged: Mapping[str, Any],
    origins: Mapping[tuple[str, ...], str],
    problem: Any,
) -> str:
    location = tuple(str(part) for part in problem["loc"])
    origin = next(
        (origins[location[:n]] for n in range(len(location), 0, -1) if location[:n] in origins),
        "parameters",
    )
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        choices = sorted(_fields_at(schema, location[:-1]))
        close = difflib.get_close_matches(location[-1], choices, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{origin}: unknown key {key!r} = {problem['input']!r}; {hint}choose from {choices}"
    if problem["type"] == "missing":
        return f"{origin}: key {key!r} is missing"
    told = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], Mapping):
        # A check over several keys; its message begins with the one at fault.
        field = (*location, told.split(":")[0].split(" ")[0])
        return f"{origins.get(field, origin)}: {'.'.join((*location, told))}"
    if problem["type"] == "value_error":
        return f"{origin}: {key}: {told}"  # such a message says as much of the value as it should
    return f"{origin}: {key} = {problem['input']!r}: {told}"


def _fields_at(schema: type[BaseModel], path: tuple[str, ...]) -> set[str]:
    """Names allowed inside the (possibly nested) schema at ``path``."""
    current: Any = schema
    for part in path:
        models = _models(current)
        field = next((m.model_fields[part] for m in models if part in m.model_fields), None)
        current = field.annotation if field is not None else current
    return {name for m in _models(current) for name in m.model_fields}


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every pydantic model mentioned in an annotation, e.g. in ``dict[str, ModelParams]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is not None or isinstance(annotation, types.UnionType):
        return [m for part in typing.get_args(annotation) for m in _models(part)]
    return []


def load(schema: type[S], *files: Path, **overrides: object) -> S:
    """Merge YAML ``files`` left to right, then ``overrides``, into a checked ``schema``.

    Raises:
        ParamsError: see :func:`merge`.
    """
    sources = [read_yaml(file) for file in files]
    if overrides:
        sources.append(Source("command line", overrides))
    return merge(schema, sources)
