"""Small made copies of the published outputs: a clone with archives, or a folder of tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emolib.baselines.released import RESULTS, RUNS

RUN = "some_run_20250110100"
TOKENS = {
    "no_subtitle": "nosubtitle",
    "subtitle": "subtitle",
    "subtitle_added_later": "nosubtitle-addsub",
}
Answers = Mapping[str, tuple[str, str]]  # clip -> (description, cell of labels)


def archive(path: Path, descriptions: Any) -> Path:
    """An archive of descriptions as it is published: a pickled dictionary in a 0-d array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = np.empty((), dtype=object)
    held[()] = descriptions
    np.savez_compressed(path, name2reason=held)
    return path


def pair(stem: Path, answers: Answers) -> None:
    """Both archives of one variant: descriptions, and labels read out of them."""
    archive(Path(f"{stem}.npz"), {name: text for name, (text, _) in answers.items()})
    cells = [cell for _, cell in answers.values()]
    np.savez_compressed(
        f"{stem}-openset.npz", filenames=np.array(list(answers)), fileitems=np.array(cells)
    )


def clone(
    root: Path,
    models: Mapping[str, Mapping[str, Answers]],
    epochs: Mapping[int, Answers] | None = None,
    size: str = "7b",
) -> Path:
    """A clone of the public repository that holds these answers and nothing else."""
    for model, variants in models.items():
        for variant, answers in variants.items():
            stem = root / RESULTS / model / f"output-reason-{size}-{TOKENS[variant]}-eng"
            pair(stem, answers)
    for epoch, answers in (epochs or {}).items():
        pair(root / RUNS / RUN / f"checkpoint_{epoch:06d}_loss_0.602", answers)
    return root


def table(path: Path, by: str, rows: Mapping[object, Answers]) -> Path:
    """One model's table: name, variant or epoch, description, openset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", by, "description", "openset"])
        for variant, answers in rows.items():
            for name, (text, cell) in answers.items():
                writer.writerow([name, variant, text, cell])
    return path
