"""The image-caption pairs a model is trained on: those the judge kept, or the demo set's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emolib.errors import DataError
from emolib.files import read_jsonl, write_jsonl
from emolib.media.store import FrameStore
from emolib.media.video import read_frames
from emolib.params.schemas import DataParams
from emolib.params.stages import InternVLLora
from emolib.progress import track
from emolib.runs import Run
from emolib.selection import training_row


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is trained on, and why.

    Attributes:
        file: JSON lines for ``swift sft``.
        rows: How many pairs.
        origin: "judge" or "reference".
        note: One sentence for the notebook and the report.
    """

    file: Path
    rows: int
    origin: str
    note: str

    def to_json(self) -> dict[str, Any]:
        """Plain values without the machine's path."""
        return {key: value for key, value in asdict(self).items() if key != "file"}


def choose(params: InternVLLora, run: Run) -> Chosen:
    """Take the judge's pairs; with too few, the demo set's own descriptions.

    Args:
        params: Parameters of notebook 03.
        run: Its run; ``train.jsonl`` is written there.

    Raises:
        DataError: too few pairs, and the data set brings no descriptions of its own.
    """
    target = run.path("train.jsonl")
    kept: list[dict[str, Any]] = []
    if params.pairs:
        kept = list(read_jsonl(Path(params.pairs) / "pairs.jsonl"))
    if len(kept) >= params.min_pairs:
        write_jsonl(target, map(_absolute, kept))
        return Chosen(target, len(kept), "judge", f"Training on {len(kept)} pairs the judge kept.")
    if params.data.kind != "demo":
        raise DataError(
            f"{params.pairs or 'pairs'}: {len(kept)} pairs, fewer than min_pairs = "
            f"{params.min_pairs}: run notebook 02 first, lower its threshold or min_pairs"
        )
    rows = reference_rows(params.data, Path(params.outputs), params.profile)
    write_jsonl(target, map(_absolute, rows))
    why = f"the judge kept {len(kept)}" if params.pairs else "no run of notebook 02 was given"
    note = f"Training on {len(rows)} descriptions that come with the demo set: {why}."
    return Chosen(target, len(rows), "reference", note)


def _absolute(row: dict[str, Any]) -> dict[str, Any]:
    """Training runs in a process with another working directory."""
    return {**row, "images": [str(Path(image).absolute()) for image in row["images"]]}


def reference_rows(data: DataParams, outputs: Path, profile: str) -> Sequence[dict[str, Any]]:
    """The demo set's own descriptions of single frames of its training clips, as training rows."""
    from emolib.datasets.demo import open_demo, reference_pairs

    train = data.model_copy(update={"split": "train"})
    videos = {clip.name: clip.video for clip in open_demo(train, outputs)}
    store = FrameStore(outputs / profile / "images")
    rows = []
    for one in track(reference_pairs(train, outputs), "demo descriptions"):
        frame = read_frames(videos[one.name], [one.time]).frames[0]
        path = store.put(frame.image)
        rows.append(
            training_row(str(path), one.caption, clip=one.name, time_s=one.time, caption_by="demo")
        )
    return rows
