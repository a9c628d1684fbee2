"""The systems of Table 2, read from the run folders of earlier notebooks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emolib.baselines import released
from emolib.datasets.clip import Clip
from emolib.datasets.open import open_dataset
from emolib.errors import DataError, LeakError
from emolib.files import read_json, read_jsonl
from emolib.fusion import concat
from emolib.fusion.candidates import Labels
from emolib.predict import labels_of
from emolib.scoring.leak import check_leak

if TYPE_CHECKING:
    from emolib.params.stages import FusionAnalysis

TITLES = {
    "face": "InternVL zero-shot, face crop",
    "zero_shot": "InternVL zero-shot",
    "fine_tuned": "InternVL fine-tuned",
    "discriminative": "discriminative, out of fold",
    "as_published": "discriminative, as published (trained on these clips)",
    "affectgpt": "AffectGPT",
}
TEXT_TITLE = "text model, six classes"
# The labels that the six classes of the MER challenges stand for.
CLASS_LABELS = {"surprise": "surprised"}


@dataclass(frozen=True, slots=True)
class Source:
    """One system's answers.

    Attributes:
        key: Its name in parameters.
        title: Its name in tables.
        labels: Clip -> labels, of the clips that have gold labels.
        confidences: Clip -> label -> probability, where the system gives any.
        seen: The system was trained on these clips with their labels.
        family: Source it is part of, with other outputs of the same model; "" = a source alone.
    """

    key: str
    title: str
    labels: Mapping[str, tuple[str, ...]]
    confidences: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seen: bool = False
    family: str = ""

    def covers(self, clips: Collection[str]) -> bool:
        """Whether it has an answer for each of the clips."""
        return all(clip in self.labels for clip in clips)


def read_sources(cfg: FusionAnalysis, gold: Collection[str]) -> dict[str, Source]:
    """Read what is there; a system that was not run is left out.

    Args:
        cfg: Run folders of the earlier notebooks.
        gold: Clips with gold labels; only their answers are read.

    Returns:
        Key -> system, in the paper's order; nothing where no runs are named. AffectGPT covers its
        own test clips alone.

    Raises:
        DataError: a prediction file is broken, a system that is to be fused does not cover all
            clips, or AffectGPT's run has no such system.
        LeakError: predictions that pass for out-of-fold were made by models that had seen the
            clips, or AffectGPT was trained on a clip it predicted.
    """
    files = {
        "face": (cfg.face_run, "face.jsonl"),
        "zero_shot": (cfg.lora_run, "zero_shot.jsonl"),
        "fine_tuned": (cfg.lora_run, "fine_tuned.jsonl"),
        "discriminative": (cfg.discriminative_run, "predictions.jsonl"),
        "as_published": (cfg.discriminative_run, "as_published.jsonl"),
    }
    found = {
        key: _read(key, Path(run, name), gold)
        for key, (run, name) in files.items()
        if run and Path(run, name).is_file()
    }
    if cfg.affectgpt_run:
        file = _affectgpt_file(Path(cfg.affectgpt_run), cfg.affectgpt_system)
        found["affectgpt"] = _read("affectgpt", file, gold)
        _check_split(Path(cfg.affectgpt_run), found["affectgpt"])
    for key in select(cfg.fusion.systems, found):
        if not found[key].covers(gold):
            lost = sum(clip not in found[key].labels for clip in gold)
            raise DataError(
                f"fusion.systems: {key!r} has no answer for {lost} of {len(gold)} clips: leave it "
                "out, or predict them"
            )
    return found


def select(systems: Collection[str], sources: Mapping[str, Source]) -> list[str]:
    """Return which sources names or patterns of systems stand for, in the sources' order.

    Systems that were trained on the clips are never among them.
    """
    return [
        key
        for key, source in sources.items()
        if not source.seen and any(fnmatchcase(key, name) for name in systems)
    ]


def read_published(
    cfg: FusionAnalysis, clips: Sequence[Clip]
) -> tuple[dict[str, Source], list[str]]:
    """Read published outputs of other models.

    Labels are those published with the outputs, else those read out of the descriptions without a
    model. A clip without an answer has no labels.

    Args:
        cfg: With ``released``; without it nothing is read.
        clips: Clips with gold labels.

    Returns:
        Key (MODEL/VARIANT) -> system, and a line for whatever is missing.

    Raises:
        DataError: see :func:`emolib.baselines.released.read_released`.
    """
    others = released.open_released(cfg.released)
    labelled = released.labelled(others, clips)
    bare = {key: one for key, one in others.systems.items() if not one.labels}
    read = released.described(replace(others, systems=bare), clips)
    made, lines = {}, list(others.missing)
    for key, system in others.systems.items():
        rows = read[key] if key in read else labelled[key + released.BY_READER]
        if empty := sum(row.status == "error" for row in rows):
            lines.append(f"{system.title}: no answer for {empty} of {len(rows)} clips")
        labels = {row.name: row.labels for row in rows}
        made[key] = Source(key, system.title, labels, family=system.model)
    return made, lines


def read_text(
    cfg: FusionAnalysis, gold: Collection[str]
) -> tuple[dict[str, Source], dict[str, str], list[str]]:
    """Fit the text model of ``text_data`` and predict the classes of the scored clips.

    Args:
        cfg: With ``text_data``; without it, or where its files are missing, there is no system.
        gold: Clips with gold labels.

    Returns:
        "text" -> system, or nothing; clip -> transcript; and a line on what was done.
    """
    if cfg.text_data is None:
        return {}, {}, []
    from emolib.models.discriminative.spoken import classes_from_transcripts

    try:
        known = list(open_dataset(cfg.text_data, Path(cfg.outputs)))
        found = classes_from_transcripts(known, gold, cfg.seed)
    except DataError as error:
        return {}, {}, [f"no text model: {error}"]
    sure = {
        name: {CLASS_LABELS.get(one, one): p for one, p in table.items()}
        for name, table in found.probabilities.items()
    }
    labels = {
        name: (max(sure[name], key=lambda one: sure[name][one]),) if name in sure else ()
        for name in gold
    }
    note = (
        f"text model: fitted on {found.trained_on} clips, none of them scored or with the "
        f"transcript of a scored one ({found.left_out} left out); {len(sure)} of {len(labels)} "
        "scored clips have a transcript"
    )
    return {"text": Source("text", TEXT_TITLE, labels, sure)}, found.transcripts, [note]


def spliced(sources: Mapping[str, Source]) -> dict[str, dict[str, list[str]]]:
    """The paper's rows: zero-shot + fine-tuned, and the discriminative model added, both ways."""
    if not {"zero_shot", "fine_tuned"} <= sources.keys():
        return {}
    parts = [sources["zero_shot"].labels, sources["fine_tuned"].labels]
    rows = {"zero-shot + fine-tuned": concat(parts)}
    for key in ("discriminative", "as_published"):
        if key in sources:
            name = f"zero-shot + fine-tuned + {sources[key].title}"
            rows[name] = concat([*parts, sources[key].labels])
    return rows


def on_clips_of(
    key: str,
    sources: Mapping[str, Source],
    rows: Mapping[str, Labels],
    gold: Labels,
) -> tuple[dict[str, Sequence[str]], dict[str, Labels]]:
    """Everything on the clips of one system alone, where it does not cover all of them.

    Args:
        key: The system.
        sources: All systems.
        rows: Name -> clip -> labels, of systems and rules that cover all clips.
        gold: Clip -> reference labels of all clips.

    Returns:
        Gold labels of these clips, and name -> clip -> labels, the system first; both empty when
        it was not run, or covers all.
    """
    if key not in sources or sources[key].covers(gold):
        return {}, {}
    clips = [clip for clip in gold if clip in sources[key].labels]
    every: dict[str, Labels] = {sources[key].title: sources[key].labels, **rows}
    part: dict[str, Labels] = {name: {c: x[c] for c in clips} for name, x in every.items()}
    return {clip: gold[clip] for clip in clips}, part


def _read(key: str, file: Path, gold: Collection[str]) -> Source:
    rows = list(read_jsonl(file))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("name"), str) or not isinstance(row.get("labels"), list):
            raise DataError(f"{file}, row {number}: a prediction needs 'name' and a list 'labels'")
    wanted = set(gold)
    seen = [row["name"] for row in rows if row["name"] in wanted and not _clean(row)]
    if seen and key != "as_published":
        raise LeakError(
            f"{file}: {len(seen)} clips were predicted by models trained on them (first: "
            f"{seen[0]!r}), which only the row 'as published' may show"
        )
    sure = {
        row["name"]: {str(label): float(p) for label, p in row["probabilities"].items()}
        for row in rows
        if row["name"] in wanted and row.get("probabilities")
    }
    return Source(key, TITLES[key], labels_of(rows, gold), sure, key == "as_published")


def _clean(row: Mapping[str, Any]) -> bool:
    """Whether no model behind the row had seen its clip; systems without folds never have."""
    return bool(row.get("out_of_fold", True))


def _affectgpt_file(run: Path, system: str) -> Path:
    """The prediction file of one of the systems of a run of notebook 04."""
    files: dict[str, Path] = {}
    for file in sorted((run / "predictions").glob("*.jsonl")):
        first = next(iter(read_jsonl(file)), {})
        files[str(first.get("system"))] = file
    if system not in files:
        raise DataError(f"affectgpt_system: no {system!r} in {run}: choose from {list(files)}")
    return files[system]


def _check_split(run: Path, source: Source) -> None:
    """No clip that AffectGPT learned from or was chosen by counts."""
    splits = read_json(run / "split.json").get("splits", {})
    used = {f"AffectGPT's {part} clips": splits.get(part, []) for part in ("train", "val")}
    check_leak(list(source.labels), used)
