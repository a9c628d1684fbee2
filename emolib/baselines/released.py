"""Published outputs of other models on MER2024-OV's clips, read as their authors publish them.

The public AffectGPT repository (github.com/zeroQiaoba/AffectGPT) holds what ten multimodal LLMs
and AffectGPT-2025 answered about clips that include the 332 of MER2024-OV: a description of every
clip, and the labels that Qwen2.5-7B read out of it. Two layouts are read:

* A clone: ``OV-MER/output/results-ovmerd/MODEL/*-VARIANT-eng[-openset].npz`` and
  ``AffectGPT/output/results-ovmerdplus/RUN/checkpoint_EPOCH_loss_X[-openset].npz``.
* A folder of tables: ``MODEL.csv`` with columns ``name``, ``variant`` or ``epoch``,
  ``description`` and ``openset``.

What is missing or cannot be read is named and left out; the rest is used.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emolib.datasets.sheets import read_npz, read_sheet
from emolib.errors import DataError
from emolib.labels import Mode, parse_labels
from emolib.params.schemas import RELEASED

RESULTS, RUNS = map(Path, RELEASED)
AFFECTGPT = "AffectGPT-2025"
#: The models of ``OV-MER/output/results-ovmerd`` as published, by the names of their folders.
MODELS = (
    *("Chat-UniVi", "LLaMA-VID", "Otter", "Qwen-Audio", "SALMONN"),
    *("Video-ChatGPT", "Video-LLaVA", "VideoChat", "VideoChat2", "mPLUG-Owl"),
)
#: How the subtitle was used: part of a file's name -> (variant, words for people).
VARIANTS = {
    "nosubtitle": ("no_subtitle", "no subtitle"),
    "subtitle": ("subtitle", "subtitle in the prompt"),
    "nosubtitle-addsub": ("subtitle_added_later", "subtitle added later"),
}
_TITLES = dict(VARIANTS.values())
# The prefix and the size (7b, 13b) of a model differ between folders; these parts do not.
_ANSWERS = re.compile(r"(?:^|.*-)(nosubtitle-addsub|nosubtitle|subtitle)-eng(-openset)?")
_CHECKPOINT = re.compile(r"checkpoint_(\d+)_loss_[\d.]+?(-openset)?")
_MOST_BYTES = 1 << 26  # of one archive, unpacked; the published ones hold less than 3 MB


@dataclass(frozen=True, slots=True)
class ReleasedSystem:
    """One model's published answers in one variant.

    Attributes:
        key: ``MODEL/VARIANT``, e.g. "SALMONN/subtitle" or "AffectGPT-2025/epoch_30".
        model: The folder's or table's name.
        variant: "no_subtitle", "subtitle", "subtitle_added_later", or "epoch_N".
        title: Name in tables.
        descriptions: Clip -> description; empty when that file is missing.
        labels: Clip -> labels that Qwen2.5-7B read out of it; empty when that file is missing.
        files: What was read.
    """

    key: str
    model: str
    variant: str
    title: str
    descriptions: Mapping[str, str]
    labels: Mapping[str, tuple[str, ...]]
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """Everything found below a root.

    Attributes:
        systems: By key, models in alphabetical order and AffectGPT-2025 last.
        missing: What was left out, each with its reason; one line each.
    """

    systems: dict[str, ReleasedSystem]
    missing: list[str]


@dataclass(slots=True)
class _Found:
    """The parts of one system while they are collected."""

    descriptions: dict[str, str] = field(default_factory=dict)
    cells: dict[str, str | list[str]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


_Collected = defaultdict[tuple[str, str], _Found]


def read_released(
    root: Path | str,
    *,
    models: Collection[str] = (),
    variants: Collection[str] = (),
    parser: Mode = "tolerant",
) -> Released:
    """Read published outputs; no code in the files is run.

    Args:
        root: A clone of the repository, or a folder of tables; see the module.
        models: Only these; () = all.
        variants: Only these ("subtitle", "epoch_30", ...); () = all.
        parser: How lists of labels are read, see :mod:`emolib.labels`. "mer2025" is what the
            official scripts read these files with and reproduces their scores to the last
            digit; "tolerant" cleans labels as it does for every other system.

    Raises:
        DataError: no such folder, or nothing in it that is wanted and can be read.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; {advice()}")
    found: _Collected = defaultdict(_Found)
    missing: list[str] = []
    clone = (root / RESULTS).is_dir() or (root / RUNS).is_dir()
    if clone:
        _read_clone(root, found, missing, models)
    else:
        _read_tables(root, found, missing, models)
    systems = _systems(found, missing, variants, parser)
    for model in models or (*MODELS, AFFECTGPT):
        if not any(system.model == model for system in systems.values()):
            missing.append(f"{model}: no usable {'folder' if clone else 'table'} in {root}")
    if not systems:
        raise DataError(f"{root}: no published outputs in it; {advice()}\n" + "\n".join(missing))
    return Released(systems, missing)


def advice() -> str:
    """Where the files come from, for messages."""
    return (
        "expected a clone of github.com/zeroQiaoba/AffectGPT with "
        f"{RESULTS.as_posix()} and {RUNS.as_posix()}, or a folder of MODEL.csv"
    )


def _systems(
    found: _Collected, missing: list[str], variants: Collection[str], parser: Mode
) -> dict[str, ReleasedSystem]:
    systems = {}
    for (model, variant), parts in sorted(found.items(), key=_order):
        if variants and variant not in variants:
            continue
        given: dict[str, Mapping[str, object]] = {
            "descriptions": parts.descriptions,
            "labels": parts.cells,
        }
        lacking = [what for what, values in given.items() if not any(values.values())]
        if lacking:
            missing.append(f"{model}, {_words(variant)}: no {' and no '.join(lacking)}")
        if len(lacking) == len(given):
            continue
        key = f"{model}/{variant}"
        systems[key] = ReleasedSystem(
            key=key,
            model=model,
            variant=variant,
            title=f"{model}, {_words(variant)}",
            descriptions=parts.descriptions,
            labels={name: parse_labels(cell, parser).labels for name, cell in parts.cells.items()},
            files=tuple(parts.files),
        )
    return systems


def _order(item: tuple[tuple[str, str], _Found]) -> tuple[bool, str, int, str]:
    (model, variant), _ = item
    known = list(_TITLES)
    digits = variant.removeprefix("epoch_")
    place = known.index(variant) if variant in known else int(digits) if digits.isdecimal() else -1
    return model.startswith(AFFECTGPT), model.casefold(), place, variant


def _words(variant: str) -> str:
    return _TITLES.get(variant, variant.replace("_", " "))


def _read_clone(root: Path, found: _Collected, missing: list[str], models: Collection[str]) -> None:
    for folder in _folders(root / RESULTS):
        if not models or folder.name in models:
            for variant in _TITLES:
                found[folder.name, variant]  # one without files is to be named as missing
            _read_folder(folder, _ANSWERS, _variant_of(folder.name), found, missing)
    runs = _folders(root / RUNS)
    for folder in runs:
        model = AFFECTGPT if len(runs) == 1 else f"{AFFECTGPT} {folder.name}"
        if not models or model in models or AFFECTGPT in models:
            _read_folder(folder, _CHECKPOINT, _epoch_of(model), found, missing)


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []


def _variant_of(model: str) -> Callable[[str], tuple[str, str]]:
    return lambda part: (model, VARIANTS[part][0])


def _epoch_of(model: str) -> Callable[[str], tuple[str, str]]:
    return lambda part: (model, f"epoch_{int(part)}")


def _read_folder(
    folder: Path,
    pattern: re.Pattern[str],
    key_of: Callable[[str], tuple[str, str]],
    found: _Collected,
    missing: list[str],
) -> None:
    """Add what a folder's archives hold; of two files for the same, the first is taken."""
    for path in sorted(folder.glob("*.npz")):
        match = pattern.fullmatch(path.stem)
        if match is None:
            continue
        parts = found[key_of(match[1])]
        target = parts.cells if match[2] else parts.descriptions
        if target:
            missing.append(f"{path}: not read: {parts.files[-1].name} holds the same")
            continue
        try:
            target |= dict(_cells(path) if match[2] else _descriptions(path))
        except DataError as error:
            missing.append(str(error))
            continue
        parts.files.append(path)


def _descriptions(path: Path) -> Iterator[tuple[str, str]]:
    given = read_npz(path, most_bytes=_MOST_BYTES).get("name2reason")
    if not isinstance(given, dict):
        raise DataError(f"{path}: no dictionary 'name2reason' in it")
    for name, text in given.items():
        if not isinstance(name, str) or not isinstance(text, str):
            kinds = f"{type(name).__name__} to {type(text).__name__}"
            raise DataError(f"{path}: 'name2reason' maps {kinds}, not text to text")
        yield str(name), str(text)


def _cells(path: Path) -> Iterator[tuple[str, str | list[str]]]:
    arrays = read_npz(path, most_bytes=_MOST_BYTES)
    if not {"filenames", "fileitems"} <= arrays.keys():
        raise DataError(f"{path}: no 'filenames' and 'fileitems' in it, only {sorted(arrays)}")
    names, items = (list(arrays[key]) for key in ("filenames", "fileitems"))
    if len(names) != len(items) or len(set(map(str, names))) != len(names):
        raise DataError(f"{path}: {len(names)} filenames, some twice, or not as many fileitems")
    for name, item in zip(names, items, strict=True):
        if not isinstance(item, str | list | tuple | np.ndarray):
            raise DataError(f"{path}: {name}: {type(item).__name__} is no list of labels")
        yield str(name), str(item) if isinstance(item, str) else [str(label) for label in item]


def _read_tables(
    root: Path, found: _Collected, missing: list[str], models: Collection[str]
) -> None:
    for path in sorted(root.glob("*.csv")):
        model = AFFECTGPT if path.stem.startswith(AFFECTGPT) else path.stem
        if models and model not in models:
            continue
        try:
            rows = _rows(path, model)
        except DataError as error:
            missing.append(str(error))
            continue
        for (variant, name), (description, cell) in rows.items():
            parts = found[model, variant]
            parts.files = parts.files or [path]
            parts.descriptions[name], parts.cells[name] = description or "", cell or ""


def _rows(path: Path, model: str) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    sheet = read_sheet(path)
    for column in ("name", "description", "openset"):
        sheet.column(column)
    by = sheet.column("variant", "epoch")
    rows: dict[tuple[str, str], tuple[str | None, str | None]] = {}
    for number, row in enumerate(sheet.rows, start=2):
        name, variant = row["name"], row[by]
        if not name or not variant:
            raise DataError(f"{path}, row {number}: no name or no {by}")
        key = (f"epoch_{variant}" if by == "epoch" else variant, name)
        if key in rows:
            raise DataError(f"{path}, row {number}: {name!r} occurs twice in {by} {variant}")
        rows[key] = row["description"], row["openset"]
    return rows
