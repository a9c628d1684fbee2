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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from emolib.baselines.stored import as_prediction
from emolib.datasets.clip import Clip
from emolib.datasets.sheets import read_npz, read_sheet
from emolib.errors import DataError
from emolib.hashing import sha_file
from emolib.labels import Mode, parse_labels
from emolib.params.schemas import RELEASED, ReleasedParams
from emolib.predict import Prediction
from emolib.scoring import Comparison, Score, compare, compare_means
from emolib.summaries import in_english

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
# The comparisons of variants, the first two against what a model answers without any subtitle.
_CHANGES = (
    ("subtitle", "no_subtitle"),
    ("subtitle_added_later", "no_subtitle"),
    ("subtitle_added_later", "subtitle"),
)
#: Ends the names of predictions whose labels were published with the descriptions.
BY_READER = ", labels by Qwen2.5-7B"
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


def open_released(params: ReleasedParams | None) -> Released:
    """Read what a stage's parameters name; nothing where they name nothing.

    Raises:
        DataError: see :func:`read_released`.
    """
    if params is None:
        return Released({}, [])
    return read_released(params.root, models=params.models, variants=params.variants)


def described(released: Released, clips: Sequence[Clip]) -> dict[str, list[Prediction]]:
    """Every system's descriptions as predictions; labels are read out of them without an LLM.

    Returns:
        Key -> one prediction per clip, in order; systems without descriptions are left out. A
        clip without a description has an error.
    """
    return {
        key: _predictions(system, clips, system.descriptions, None)
        for key, system in released.systems.items()
        if system.descriptions
    }


def labelled(released: Released, clips: Sequence[Clip]) -> dict[str, list[Prediction]]:
    """Every system's published labels as predictions, named like those of any other reading LLM.

    Returns:
        "<key>, labels by Qwen2.5-7B" -> one prediction per clip, in order; systems without
        published labels are left out. A clip without labels has an error.
    """
    return {
        key + BY_READER: _predictions(system, clips, system.descriptions, system.labels)
        for key, system in released.systems.items()
        if system.labels
    }


def _predictions(
    system: ReleasedSystem,
    clips: Sequence[Clip],
    descriptions: Mapping[str, str],
    labels: Mapping[str, tuple[str, ...]] | None,
) -> list[Prediction]:
    title = system.title if labels is None else system.title + BY_READER
    model = {
        "engine": "published outputs",
        "model": system.model,
        "variant": system.variant,
        "files": {path.name: sha_file(path)[:16] for path in system.files},
    }
    rows = {
        name: {
            "description": descriptions.get(name, ""),
            "labels": labels[name] if labels is not None else None,
            "error": None,
        }
        for name in (descriptions if labels is None else labels)
    }
    return [as_prediction(clip.name, title, model, rows.get(clip.name)) for clip in clips]


def subtitle_effects(
    released: Released, scores: Mapping[str, Score], *, resamples: int = 10_000, seed: int = 0
) -> tuple[dict[str, Comparison], dict[str, Comparison]]:
    """Compare the variants of each model: what it is worth to give a model the subtitle.

    Args:
        released: Which systems there are.
        scores: Key -> score, all on the same clips under one grouping.
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.

    Returns:
        One comparison per model and variant with a subtitle, against no subtitle; and the means
        over the models that have all variants.
    """
    test = partial(compare, resamples=resamples, seed=seed)
    pairs: dict[str, dict[str, tuple[Score, Score]]] = defaultdict(dict)
    for model in dict.fromkeys(system.model for system in released.systems.values()):
        own = {v: scores[f"{model}/{v}"] for v in _TITLES if f"{model}/{v}" in scores}
        if len(own) == len(_TITLES):
            for a, b in _CHANGES:
                pairs[f"{_TITLES[a]} - {_TITLES[b]}"][model] = own[a], own[b]
    each = {
        f"{model}: {change}": test(*pair)
        for change, found in list(pairs.items())[:2]
        for model, pair in found.items()
    }
    means = {
        f"{change}, mean of {len(found)} models": compare_means(
            list(found.values()), resamples=resamples, seed=seed
        )
        for change, found in pairs.items()
    }
    return each, means


def reading_effects(
    released: Released,
    rules: Mapping[str, Score],
    reader: Mapping[str, Score],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[dict[str, Comparison], dict[str, Comparison]]:
    """Compare labels read without a model with the published ones, output by output.

    Args:
        released: Which systems there are.
        rules: Key -> score of the labels read without a model.
        reader: Key -> score of the published labels; the same clips and grouping.
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.

    Returns:
        Rules minus published labels: one comparison per output, and the means over the outputs
        of the models that describe and over those of AffectGPT-2025, which names labels alone.
    """
    both = {k: (rules[k], reader[k]) for k in released.systems if k in rules and k in reader}
    each = {
        released.systems[key].title: compare(*pair, resamples=resamples, seed=seed)
        for key, pair in both.items()
    }
    kinds = {
        "descriptions": [p for key, p in both.items() if not key.startswith(AFFECTGPT)],
        AFFECTGPT: [p for key, p in both.items() if key.startswith(AFFECTGPT)],
    }
    means = {
        f"{kind}, mean of {len(pairs)} outputs": compare_means(
            pairs, resamples=resamples, seed=seed
        )
        for kind, pairs in kinds.items()
        if pairs
    }
    return each, means


def readings(released: Released, scores: Mapping[str, Score]) -> dict[str, dict[str, Score]]:
    """Pick the scores of published outputs out of those of all systems.

    Args:
        released: Which systems there are.
        scores: Name in tables -> score.

    Returns:
        What a name has after the system's title -> key -> score: :data:`BY_READER` for the
        published labels, "" for those read without a model, and any other reader's ending.
    """
    found: dict[str, dict[str, Score]] = {BY_READER: {}, "": {}}
    for key, system in released.systems.items():
        for name, score in scores.items():
            ending = name.removeprefix(system.title)
            if name == system.title or (ending != name and ending.startswith(", labels by ")):
                found.setdefault(ending, {})[key] = score
    return {ending: own for ending, own in found.items() if own}


def by_model(released: Released, scores: Mapping[str, Score]) -> dict[str, dict[str, Score]]:
    """Arrange scores by key as model -> variant -> score, in the order of the systems."""
    found: dict[str, dict[str, Score]] = {}
    for key, system in released.systems.items():
        if key in scores:
            found.setdefault(system.model, {})[system.variant] = scores[key]
    return found


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
            digit; "tolerant" cleans labels, and translates Chinese ones, as for every other system.

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
            labels={name: _labels(cell, parser) for name, cell in parts.cells.items()},
            files=tuple(parts.files),
        )
    return systems


def _labels(cell: str | list[str], parser: Mode) -> tuple[str, ...]:
    labels = parse_labels(cell, parser).labels
    return in_english(labels) if parser == "tolerant" else labels


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
