"""Captions of images by several models (paper section 3.1.2, systems S2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emolib import costs, prompts
from emolib.cluster import Work, spread
from emolib.datasets.clip import Clip
from emolib.engines import open_engine
from emolib.engines.base import Engine, Request
from emolib.errors import MediaError, ParamsError
from emolib.hashing import canonical, is_unchanged, key_of, sha_file
from emolib.inference import Task, ask
from emolib.ledger import Ledger, Row
from emolib.media.store import FrameStore, read_picture
from emolib.media.supervisor import spread as side_by_side
from emolib.media.video import sample_frames
from emolib.params.cluster import ClusterParams
from emolib.params.schemas import ModelParams
from emolib.progress import Progress, track


@dataclass(frozen=True, slots=True)
class Image:
    """One frame taken out of a clip and stored.

    Attributes:
        clip: The clip's name.
        index: Which of the clip's equal parts it is from.
        pts_s: Its time stamp in the clip, in seconds.
        sha: Content hash of its pixels.
        path: The stored image.
    """

    clip: str
    index: int
    pts_s: float
    sha: str
    path: str


def extract_images(
    clips: Sequence[Clip],
    store: FrameStore,
    ledger: Ledger,
    *,
    frames: int,
    seed: int,
    cluster: ClusterParams | None = None,
) -> tuple[list[Image], list[Row]]:
    """Take one random frame from each of ``frames`` equal parts of every clip and store it.

    Args:
        clips: The clips.
        store: Where images are kept, by content.
        ledger: Remembers which clips are done.
        frames: Parts and images per clip.
        seed: Seed; a clip's frames do not depend on the other clips.
        cluster: Whose workers read the clips and store the images; None = this process.

    Returns:
        The images in clip order, and one row per clip that could not be read.
    """
    rows: list[Row] = [{}] * len(clips)
    todo = []
    keyed = partial(_key, frames=frames, seed=seed)
    for number, found in enumerate(track(side_by_side(keyed, clips), "files", len(clips))):
        if isinstance(found, str):
            rows[number] = {"error": found, "images": []}
            continue
        key, sha = found
        known = ledger.get(key)
        if known is not None and all(Path(image["path"]).is_file() for image in known["images"]):
            rows[number] = known
        else:
            todo.append((number, key, sha, clips[number]))
    with Progress("frames", len(clips), done=len(clips) - len(todo)) as progress:
        opener = partial(_extractor, store, frames, seed)
        for number, row, settled in spread(todo, opener, cluster):
            rows[number] = row
            if settled:
                ledger.put(row)
            progress.advance()
    done = list(zip(clips, rows, strict=True))
    images = [Image(clip=clip.name, **image) for clip, row in done for image in row["images"]]
    failed = [{"clip": clip.name, "error": row["error"]} for clip, row in done if row["error"]]
    return images, failed


def _key(clip: Clip, frames: int, seed: int) -> tuple[str, str] | str:
    """Ledger key and content hash of a clip, or why it cannot be read."""
    try:
        sha = sha_file(clip.video)
    except OSError as error:
        return f"{clip.video}: {error.strerror}"
    return key_of(video=sha, name=clip.name, frames=frames, seed=seed, rule="segments"), sha


def _extractor(store: FrameStore, frames: int, seed: int) -> Work:
    return partial(side_by_side, partial(_extract, store, frames, seed))


def _extract(
    store: FrameStore, frames: int, seed: int, item: tuple[int, str, str, Clip]
) -> tuple[int, Row, bool]:
    """Give a clip's number, its row, and whether the row is settled for this content."""
    number, key, sha, clip = item
    row: Row = {"key": key, "clip": clip.name, "error": None, "images": []}
    try:
        sample = sample_frames(clip.video, frames, rule="segments", seed=seed, name=clip.name)
        for index, frame in enumerate(sample.frames):
            path = store.put(frame)
            row["images"].append(
                {"index": index, "pts_s": frame.pts_s, "sha": frame.sha, "path": str(path)}
            )
    except MediaError as error:
        row["error"] = str(error)
        # Gone meanwhile: says nothing about this content.
        return number, row, error.lasting and is_unchanged(clip.video, sha)
    return number, row, True


def caption_tasks(images: Iterable[Image], model: str) -> list[Task]:
    """One question an image, for :func:`emolib.inference.ask` or ``answers``; reads no image yet.

    Args:
        images: The images.
        model: Name of the model that will be asked; part of the tasks' ids.
    """
    return [
        Task(
            id=f"{image.clip}#{image.index}@{model}",
            content={"image": image.sha, "prompt": prompts.CAPTION.template},
            build=partial(_request, image),
        )
        for image in images
    ]


def caption_row(image: Image, row: Mapping[str, Any]) -> dict[str, Any]:
    """One line of ``captions.jsonl`` out of an image and its ledger row.

    Returns:
        The image's fields, ``model`` (name), ``engine`` (its identity: kind, weights, decoding),
        ``software`` (versions), ``prompt`` (its hash), ``text``, ``error``, ``finish_reason``,
        ``prompt_tokens``, ``new_tokens`` and ``seconds``.
    """
    return {
        **asdict(image),
        "prompt": prompts.CAPTION.sha,
        **{key: row.get(key) for key in _KEPT},
    }


_KEPT = (
    *("model", "engine", "software", "text", "error", "finish_reason"),
    *("prompt_tokens", "new_tokens", "seconds"),
)


def caption(images: Sequence[Image], engine: Engine, ledger: Ledger) -> list[dict[str, Any]]:
    """Let one model describe every image with the paper's prompt.

    Returns:
        One row an image, in order: see :func:`caption_row`.
    """
    tasks = caption_tasks(images, engine.name)
    rows = ask(tasks, engine, ledger, f"captions by {engine.name}")
    return [caption_row(image, row) for image, row in zip(images, rows.values(), strict=True)]


def caption_by_all(
    images: Sequence[Image],
    generators: Sequence[str],
    models: Mapping[str, ModelParams],
    ledger: Path,
    *,
    cache: Path,
    cluster: ClusterParams | None = None,
) -> list[dict[str, Any]]:
    """Let several models describe every image, one model in memory at a time.

    Args:
        images: The images.
        generators: Names under ``models``.
        models: The profile's models.
        ledger: File of answers, shared by all of them.
        cache: Where tiny checkpoints are kept.
        cluster: Where copies of the models work; None = one, in this process.

    Returns:
        The rows of :func:`caption`, model after model.

    Raises:
        ParamsError: two names stand for one and the same model.
    """
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for name in generators:
        with (
            open_engine(models[name], name=name, cache=cache, cluster=cluster) as engine,
            Ledger(ledger) as answers,
        ):
            twin = seen.setdefault(canonical(engine.identity), name)
            if twin != name:
                raise ParamsError(
                    f"generators: {twin!r} and {name!r} are the same model with the same decoding: "
                    "their captions always agree and the judge would keep all of them"
                )
            rows += caption(images, engine, answers)
    return rows


def count_captions(
    rows: Sequence[Mapping[str, Any]], models: Mapping[str, ModelParams]
) -> list[dict[str, Any]]:
    """One row a model: captions, errors, cut off at the token limit, median length, tokens, cost.

    Args:
        rows: Rows of :func:`caption`.
        models: The profile's models, for their prices per token.
    """
    counts = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        words = [len(row["text"].split()) for row in own if not row["error"]]
        prices = models[model].prices
        bill = costs.total(own, prices)
        counts.append(
            {
                "model": model,
                "captions": len(words),
                "errors": len(own) - len(words),
                "cut off": sum(row["finish_reason"] == "length" for row in own),
                "words (median)": int(np.median(words)) if words else 0,
                "prompt tokens": bill["prompt_tokens"],
                "new tokens": bill["new_tokens"],
                "cost": None if bill["cost"] is None else f"{bill['cost']} {prices.currency}",
            }
        )
    return counts


def _request(image: Image) -> Request:
    return Request(id="", prompt=prompts.CAPTION.template, images=(read_picture(Path(image.path)),))
