"""What AffectGPT is trained and tested on: described clips, captioned pictures, a named split."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emolib.datasets.clip import Clip
from emolib.datasets.minigpt4 import CaptionedImage, read_minigpt4
from emolib.datasets.splits import split_clips, write_split
from emolib.errors import DataError
from emolib.media.store import FrameStore
from emolib.media.video import read_frames
from emolib.models.affectgpt.media import sound_file
from emolib.models.affectgpt.prompts import (
    IMAGE_QUESTIONS,
    build_prompt,
    labels_answer,
    question_of,
)
from emolib.params.affectgpt import Answer, SftParams
from emolib.params.schemas import DataParams, as_path
from emolib.progress import track


@dataclass(frozen=True, slots=True)
class Split:
    """Clips by what they are for.

    Attributes:
        train: With a description each.
        val: With a description each; never trained on. Choose the checkpoint.
        test: With gold labels each; never seen before the last step.
        file: Where it is recorded by name.
    """

    train: list[Clip]
    val: list[Clip]
    test: list[Clip]
    file: Path

    def to_json(self) -> dict[str, Any]:
        """Counts."""
        return {name: len(getattr(self, name)) for name in ("train", "val", "test")}


def split_dataset(
    clips: Sequence[Clip],
    file: Path,
    *,
    test: int = 0,
    val: int = 0,
    seed: int = 0,
    answer: Answer = "description",
    checkpoint: str = "last",
) -> Split:
    """Divide clips into training, validation and test, and record which is where, by name.

    Args:
        clips: The data set.
        file: Record to write.
        test: Test clips to draw (paper: 66 of 332); 0 = the data set's own split.
        val: Validation clips to draw from what is left of training; 0 = the data set's own,
            if it has any.
        seed: The draws'. Clips of one group (source video) stay together.
        answer: What is learnt to be said of a clip.
        checkpoint: Which one is going to be chosen (:meth:`emolib.sft.train.Trained.choose`).

    Raises:
        DataError: no training or test clips, none for validation where the checkpoint is to be
            the best, a training clip without what is learnt of it, or a test clip without labels.
    """
    named = split_clips(clips, test, seed) if test else list(clips)
    if val:
        train = [clip for clip in named if clip.split == "train"]
        drawn = {c.name for c in split_clips(train, val, seed + 1) if c.split == "test"}
        named = [replace(c, split="val") if c.name in drawn else c for c in named]
    parts = {name: [c for c in named if c.split == name] for name in ("train", "val", "test")}
    for name in ("train", "test"):
        if not parts[name]:
            raise DataError(
                f"no clip for {name}: the data set has no such split of its own; give the number "
                "of test clips (the paper's is 66) to have one drawn"
            )
    if checkpoint == "best" and not parts["val"]:
        raise DataError(
            "no clip for val, so no checkpoint can be the best: the data set has no such split of "
            "its own; give the number of val clips to have them drawn, or checkpoint: last"
        )
    learnt = ("description", "labels") if answer == "both" else (answer,)
    needed = [(name, field) for name in ("train", "val") for field in learnt]
    for name, field in [*needed, ("test", "labels")]:
        bare = [clip.name for clip in parts[name] if not getattr(clip, field)]
        if bare:
            raise DataError(f"{len(bare)} {name} clips without {field}, e.g. {bare[0]}")
    about = {"test": test, "val": val, "seed": seed, "of": len(clips)}
    write_split(file, [clip for part in parts.values() for clip in part], **about)
    return Split(**parts, file=file)


def clip_rows(
    clips: Sequence[Clip], preset: str, answer: Answer = "description"
) -> list[dict[str, Any]]:
    """Training rows of clips: prompt with all that a clip has, and what is to be said of it.

    A clip without sound or words gets the prompt that does not speak of them.

    Args:
        clips: With what is learnt.
        preset: A prompt's name (:data:`emolib.models.affectgpt.prompts.ALL_PRESETS`).
        answer: "description", "labels" (the label list alone), or "both", each a row of its own.
    """
    rows = []
    for clip in clips:
        sound = sound_file(clip)
        for learnt in ("description", "labels") if answer == "both" else (answer,):
            question = question_of(preset, learnt)
            prompt = build_prompt(
                preset, audio=sound is not None, subtitle=clip.subtitle, question=question
            )
            said = str(clip.description)
            if learnt == "labels":
                said = labels_answer(clip.labels or ())
            row = _row(clip.name, "clips", prompt, said, clip.video)
            rows.append(row | {"audios": [str(sound.absolute())] if sound else []})
    return rows


def picture_rows(pictures: Sequence[CaptionedImage], seed: int = 0) -> list[dict[str, Any]]:
    """Training rows of captioned pictures, each with one of MiniGPT-4's four questions."""
    asked = np.random.default_rng(seed).integers(len(IMAGE_QUESTIONS), size=len(pictures))
    return [
        _row(
            picture.name,
            "pictures",
            build_prompt(
                "image-2024", audio=False, image=True, question=IMAGE_QUESTIONS[int(number)]
            ),
            picture.caption,
            picture.image,
        )
        for picture, number in zip(pictures, asked, strict=True)
    ]


def _row(name: str, source: str, prompt: str, answer: str, medium: Path) -> dict[str, Any]:
    return {
        "name": name,
        "source": source,
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer.strip()},
        ],
        "videos": [str(medium.absolute())],  # training runs in another working directory
        "audios": [],
    }


def open_pictures(
    root: str, data: DataParams, outputs: Path, profile: str, share: float = 1.0
) -> list[CaptionedImage]:
    """Captioned pictures: MiniGPT-4's, or three frames of each of the demo's training clips.

    Args:
        root: Folder of ``cc_sbu_align``; "" = the demo's own frames, and none for other data.
        data: The stage's data set.
        outputs: The project's output folder.
        profile: Its part of it.
        share: Part of all training rows that are pictures; at 0 none are read.

    Raises:
        DataError: the folder cannot be read or has errors.
    """
    if not share:
        return []
    if (folder := as_path(root)) is not None:
        reading = read_minigpt4(folder)
        reading.stop_on_errors()
        return reading.items
    if data.kind != "demo":
        return []
    from emolib.datasets.demo import open_demo, reference_pairs

    train = data.model_copy(update={"split": "train"})
    videos = {clip.name: clip.video for clip in open_demo(train, outputs)}
    captioned = defaultdict(list)
    for one in reference_pairs(train, outputs):
        captioned[one.name].append(one)
    store = FrameStore(outputs / profile / "images")
    found = []
    for name, pairs in track(captioned.items(), "demo pictures"):
        frames = read_frames(videos[name], [pair.time for pair in pairs]).frames
        for pair, frame in zip(pairs, frames, strict=True):
            path = store.put(frame.image)
            found.append(CaptionedImage(f"{name}@{pair.time:g}", path, pair.caption))
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """Every row a training sees, in order.

    Attributes:
        order: int64 [steps x rows of a step], numbers of rows; clips' rows come first.
        steps_per_epoch: Optimiser steps an epoch.
        steps: Of all epochs.
        seen: Rows by source, over all epochs.
    """

    order: np.ndarray
    steps_per_epoch: int
    steps: int
    seen: dict[str, int]


def plan(clips: int, pictures: int, share: float, sft: SftParams, seed: int) -> Plan:
    """Mix two sources at a fixed ratio, each seen as evenly as can be.

    Every epoch holds the same number of pictures, at random places; each source is gone
    through completely, in a new order, before any of its rows comes again.

    Args:
        clips: Rows of described clips.
        pictures: Rows of captioned pictures.
        share: Part of all rows that are pictures, 0 to 1 (published code: one half).
        sft: Epochs, steps and batch.
        seed: Order.

    Raises:
        DataError: pictures are asked for and there are none, or nothing else is.
    """
    if share and not pictures:
        raise DataError(f"picture_share = {share}, but there are no pictures: give their folder")
    if share >= 1 or not clips:
        raise DataError("nothing to train on but pictures: lower picture_share below 1")
    batch = sft.batch_size * sft.accumulate * sft.processes
    steps = sft.steps_per_epoch or math.ceil(clips / (1 - share) / batch)
    rows = steps * batch
    of_pictures = round(rows * share)
    rng = np.random.default_rng([seed, 4])
    streams = (_passes(clips, rng), _passes(pictures, rng))
    order = np.empty((sft.epochs, rows), np.int64)
    for epoch in order:
        is_picture = np.zeros(rows, bool)
        is_picture[rng.permutation(rows)[:of_pictures]] = True
        epoch[~is_picture] = [next(streams[0]) for _ in range(rows - of_pictures)]
        epoch[is_picture] = [clips + next(streams[1]) for _ in range(of_pictures)]
    seen = {"clips": sft.epochs * (rows - of_pictures), "pictures": sft.epochs * of_pictures}
    return Plan(order.reshape(-1), steps, steps * sft.epochs, seen)


def _passes(count: int, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(count).tolist()


def check_lengths(rows: Sequence[dict[str, Any]], processor: Any, max_length: int) -> int:
    """Measure every row, before anything is trained.

    Args:
        rows: Training or validation rows.
        processor: The model's.
        max_length: Longest allowed, in tokens.

    Returns:
        Length of the longest.

    Raises:
        DataError: rows are longer; says how many, how long, and names the first.
    """
    lengths = []
    for row in rows:
        prompt, answer = (message["content"] for message in row["messages"])
        lengths.append(len(processor.encode([(prompt, answer)])[0]))
    longest = max(lengths)
    if longest > max_length:
        over = [
            row["name"] for row, length in zip(rows, lengths, strict=True) if length > max_length
        ]
        raise DataError(
            f"{len(over)} of {len(rows)} rows are longer than max_length = {max_length} tokens "
            f"(the longest has {longest}), e.g. {over[0]}: raise max_length; nothing is left out"
        )
    return longest
