"""From clips to emotion words with a multimodal LLM (paper section 2.1, systems S1 and S4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emolib import prompts
from emolib.datasets.clip import Clip
from emolib.engines.base import Engine, Request
from emolib.errors import DataError
from emolib.files import read_jsonl
from emolib.hashing import is_unchanged, sha_file
from emolib.inference import Task, ask
from emolib.labels import parse_labels
from emolib.ledger import Ledger
from emolib.media.faces import FaceCrop, crop_faces, face_record
from emolib.media.video import sample_frames
from emolib.params.media import FaceParams

View = Literal["whole", "face", "both"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one system says of one clip; one JSON line of a prediction file.

    Attributes:
        name: The clip.
        system: The system's name in tables.
        labels: Emotion words, normalised; empty when there are none.
        description: The model's whole answer.
        parse: How the labels were found: "ok", "repaired", "empty" or "unparsed".
        status: "ok" or "error".
        error: Why there is no answer, or None.
        prompt: Hash of the prompt template.
        model: Engine identity: kind, model, weight fingerprint, adapters, decoding.
        finish_reason: "stop", "length" or "".
        seconds: Time the model took.
        info: Time stamps of the frames, faces found, where the words came from.
    """

    name: str
    system: str
    labels: tuple[str, ...]
    description: str
    parse: str
    status: str
    error: str | None
    prompt: str
    model: dict[str, Any]
    finish_reason: str
    seconds: float
    info: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values, labels as a list."""
        return {**asdict(self), "labels": list(self.labels)}


def predict(
    clips: Sequence[Clip],
    engine: Engine,
    ledger: Ledger,
    *,
    system: str,
    frames: int = 6,
    seed: int = 0,
    view: View = "whole",
    face: FaceParams | None = None,
    desc: str = "",
) -> list[Prediction]:
    """Describe every clip and list its emotion words, with the paper's zero-shot prompt.

    Args:
        clips: The clips; one that cannot be read gives a prediction with its error.
        engine: The model.
        ledger: Finds and keeps the answers.
        system: Name in tables.
        frames: Frames per clip, one at random from each of as many equal parts.
        seed: Seed of the frames; all views of one seed see the same moments.
        view: "whole" image, the aligned "face" crop (S8), or "both": every frame followed by
            its crop. A frame without a face is shown whole in each of them, and once.
        face: Detector and crop; needed for "face" and "both".
        desc: Name on the progress bar; the system's when empty.

    Returns:
        One prediction a clip, in order.
    """
    # An unreadable file has no content to hash: its error row is made again each time.
    tasks, unreadable = [], {}
    for clip in clips:
        try:
            tasks.append(clip_task(clip, frames, seed, view, face))
        except OSError as error:
            unreadable[clip.name] = f"{clip.video}: cannot be read: {error.strerror or error}"
    rows = ask(tasks, engine, ledger, desc or system)
    failed = {
        name: {"text": "", "error": error, "finish_reason": "", "seconds": 0.0, "info": {}}
        for name, error in unreadable.items()
    }
    return [_prediction(clip.name, system, engine, {**rows, **failed}[clip.name]) for clip in clips]


def zero_shot_prompt(clip: Clip) -> str:
    """The paper's question about one clip; words that are not known are called "unknown"."""
    return prompts.ZERO_SHOT.render(text=clip.subtitle or "unknown")


def clip_task(
    clip: Clip, frames: int, seed: int, view: View = "whole", face: FaceParams | None = None
) -> Task:
    """Return the zero-shot question about one clip, see :func:`predict`.

    Raises:
        OSError: the clip's file cannot be read.
    """
    prompt = zero_shot_prompt(clip)
    sha = sha_file(clip.video)
    content: dict[str, Any] = {
        "video": sha,
        "name": clip.name,
        "frames": frames,
        "seed": seed,
        "rule": "segments",
        "view": view,
        "prompt": prompt,
    }
    if view != "whole":
        if face is None:
            raise ValueError(f"view={view!r} needs face parameters")
        content["face"] = face.model_dump(mode="json")
    info: dict[str, Any] = {"subtitle_source": clip.subtitle_source}
    build = partial(_request, clip, sha, prompt, frames, seed, view, face, info)
    return Task(id=clip.name, content=content, build=build, info=info)


def _request(
    clip: Clip,
    sha: str,
    prompt: str,
    frames: int,
    seed: int,
    view: View,
    face: FaceParams | None,
    info: dict[str, Any],
) -> Request:
    # The answer is kept under this content: what came in its place must not answer for it.
    if not is_unchanged(clip.video, sha):
        raise DataError(f"{clip.video}: gone or changed since this run began; run it again")
    sample = sample_frames(clip.video, frames, rule="segments", seed=seed, name=clip.name)
    info["pts_s"] = [round(frame.pts_s, 4) for frame in sample.frames]
    info["distinct_frames"] = sample.distinct
    images = [frame.image for frame in sample.frames]
    if view != "whole":
        assert face is not None
        crops = crop_faces(images, face)
        info["faces"] = face_record(crops)
        images = _with_crops(images, crops) if view == "both" else [crop.image for crop in crops]
    return Request(id="", prompt=prompt, images=tuple(images))


def _with_crops(images: Sequence[np.ndarray], crops: Sequence[FaceCrop]) -> list[np.ndarray]:
    """Every frame, followed by its crop where a face was found."""
    shown = []
    for image, crop in zip(images, crops, strict=True):
        shown += [image, crop.image] if crop.found else [image]
    return shown


def _prediction(name: str, system: str, engine: Engine, row: Mapping[str, Any]) -> Prediction:
    parsed = parse_labels(row["text"], cut=row["finish_reason"] == "length")
    return Prediction(
        name=name,
        system=system,
        labels=parsed.labels,
        description=row["text"],
        parse=parsed.status,
        status="error" if row["error"] else "ok",
        error=row["error"],
        prompt=prompts.ZERO_SHOT.sha,
        model=dict(engine.identity),
        finish_reason=row["finish_reason"],
        seconds=row["seconds"],
        info=dict(row["info"]),
    )


def gold_labels(clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    """Gold labels by clip name, of the clips that have any."""
    return {clip.name: clip.labels for clip in clips if clip.labels}


def labels_of(
    predictions: Iterable[Prediction | Mapping[str, Any]], gold: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Predicted labels of the clips that have gold labels.

    A clip whose prediction is an error counts with an empty list: it scores 0 and is not left
    out of the mean.
    """
    wanted = set(gold)
    plain = (p.to_json() if isinstance(p, Prediction) else p for p in predictions)
    return {row["name"]: tuple(row["labels"]) for row in plain if row["name"] in wanted}


def read_labels(file: Path, gold: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """:func:`labels_of` a prediction file.

    Raises:
        DataError: no such file, or a row without name or labels.
    """
    rows = list(read_jsonl(file))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("name"), str) or not isinstance(row.get("labels"), list):
            raise DataError(f"{file}, row {number}: a prediction needs 'name' and a list 'labels'")
    return labels_of(rows, gold)


def summary(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Counts for a result file: clips, errors, how answers parsed, cut-off answers."""
    parses = [p.parse for p in predictions if p.status == "ok"]
    return {
        "clips": len(predictions),
        "errors": sum(p.status == "error" for p in predictions),
        "parse": {kind: parses.count(kind) for kind in sorted(set(parses))},
        "cut_off": sum(p.finish_reason == "length" for p in predictions),
        "labels_per_clip": round(sum(len(p.labels) for p in predictions) / len(predictions), 4)
        if predictions
        else 0.0,
    }


def detection_rate(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Share of frames and of clips in which a face was found, over a face-view prediction."""
    seen = [p.info["faces"] for p in predictions if "faces" in p.info]
    frames, found = (sum(one[key] for one in seen) for key in ("frames", "found"))
    return {
        "clips": len(seen),
        "frames": frames,
        "frames_with_face": found,
        "rate": round(found / frames, 4) if frames else 0.0,
        "frames_aligned": sum(one["aligned"] for one in seen),
        "frames_with_several": sum(one["several"] for one in seen),
        "clips_without_face": sum(one["found"] == 0 for one in seen),
    }
