"""The systems of Table 2, read from the run folders of earlier notebooks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, slots=True)
class Source:
    """One system's answers.

    Attributes:
        key: Its name in parameters.
        title: Its name in tables.
        labels: Clip -> labels, of the clips that have gold labels.
        confidences: Clip -> label -> probability, where the system gives any.
        seen: The system was trained on these clips with their labels.
    """

    key: str
    title: str
    labels: Mapping[str, tuple[str, ...]]
    confidences: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seen: bool = False

    def covers(self, clips: Collection[str]) -> bool:
        """Whether it has an answer for each of the clips."""
        return all(clip in self.labels for clip in clips)


def read_sources(cfg: FusionAnalysis, gold: Collection[str]) -> dict[str, Source]:
    """Read what is there; a system that was not run is left out.

    Args:
        cfg: Run folders of the earlier notebooks.
        gold: Clips with gold labels; only their answers are read.

    Returns:
        Key -> system, in the paper's order. AffectGPT covers its own test clips alone.

    Raises:
        DataError: a prediction file is broken, a system that is to be fused does not cover all
            clips, or AffectGPT's run has no such system.
        LeakError: predictions that pass for out-of-fold were made by models that had seen the
            clips, or AffectGPT was trained on a clip it predicted.
    """
    lora, six = Path(cfg.lora_run), Path(cfg.discriminative_run)
    files = {
        "face": Path(cfg.face_run) / "face.jsonl",
        "zero_shot": lora / "zero_shot.jsonl",
        "fine_tuned": lora / "fine_tuned.jsonl",
        "discriminative": six / "predictions.jsonl",
        "as_published": six / "as_published.jsonl",
    }
    found = {key: _read(key, file, gold) for key, file in files.items() if file.is_file()}
    if cfg.affectgpt_run:
        file = _affectgpt_file(Path(cfg.affectgpt_run), cfg.affectgpt_system)
        found["affectgpt"] = _read("affectgpt", file, gold)
        _check_split(Path(cfg.affectgpt_run), found["affectgpt"])
    for key in cfg.fusion.systems:
        if key in found and not found[key].covers(gold):
            lost = sum(clip not in found[key].labels for clip in gold)
            raise DataError(
                f"fusion.systems: {key!r} has no answer for {lost} of {len(gold)} clips: leave it "
                "out, or predict them"
            )
    return found


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
