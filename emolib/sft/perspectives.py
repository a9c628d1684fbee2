"""What AffectGPT says of clips, from every perspective, with the prompt it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from emolib.datasets.clip import Clip
from emolib.engines.base import Engine, Request
from emolib.engines.swift_setup import find_model
from emolib.errors import DataError, MediaError
from emolib.files import read_json
from emolib.hashing import is_unchanged, key_of, sha_file
from emolib.inference import Task, ask
from emolib.ledger import Ledger
from emolib.models.affectgpt.media import read_clip, read_sound, sound_file
from emolib.models.affectgpt.prompts import build_prompt, question_of
from emolib.params.affectgpt import Answer, Perspective
from emolib.params.schemas import ModelParams
from emolib.predict import Prediction
from emolib.sft.train import Trained
from emolib.summaries import from_text

#: The model whose branches nobody has trained here, as a system.
BEFORE = "before training"


def describe(
    clips: Sequence[Clip],
    engine: Engine,
    ledger: Ledger,
    *,
    system: str,
    views: Sequence[Perspective] = ("all", "video", "audio", "text"),
    preset: str = "paper",
    answer: Answer = "description",
) -> dict[Perspective, list[Prediction]]:
    """Describe every clip from every perspective; a perspective sees nothing of the others.

    The perspectives of a clip are asked one after the other, so that it is decoded once. What a
    clip lacks (sound, words) is left out of its prompt, as in training; a perspective of which
    nothing is there has an empty description and says why in ``info["absent"]``.

    Args:
        clips: The clips; one that cannot be read gives predictions with its error.
        engine: An :class:`emolib.models.affectgpt.engine.AffectGPTEngine`.
        ledger: Finds and keeps the answers.
        system: Name in tables; a single modality is added to it.
        views: Perspectives.
        preset: The training prompt's name.
        answer: What was learnt; labels are asked for where they were, descriptions otherwise.

    Returns:
        Perspective -> one prediction a clip, in order. Labels are found without an LLM.
    """
    question = question_of(preset, "description" if answer == "description" else "labels")
    channels = getattr(engine, "channels", False)
    tasks: list[Task] = []
    absent: dict[str, str] = {}
    for clip in clips:
        for view in views:
            made = _task(clip, view, preset, question, channels)
            if isinstance(made, Task):
                tasks.append(made)
            else:
                absent[_id(clip, view)] = made
    rows = ask(tasks, engine, ledger, system)
    return {
        view: [
            _prediction(
                *(clip, view, system, preset, question, engine),
                rows.get(_id(clip, view)),
                absent.get(_id(clip, view)),
            )
            for clip in clips
        ]
        for view in views
    }


def describe_systems(
    clips: Sequence[Clip],
    model: ModelParams,
    branches: Mapping[str, Path | None],
    ledger: Ledger,
    *,
    views: Sequence[Perspective],
    before: Sequence[Perspective] = (),
    preset: str,
    answer: Answer = "description",
    cache: Path | None = None,
) -> dict[str, list[Prediction]]:
    """:func:`describe` with several states of one model, one loaded at a time.

    Args:
        clips: The clips.
        model: The model.
        branches: System name -> trained branches; None = as it was before training.
        ledger: Finds and keeps the answers.
        views: Perspectives.
        before: Those asked of the untrained state; () = ``views``.
        preset: The training prompt's name.
        answer: What was learnt.
        cache: Where tiny checkpoints are kept.

    Returns:
        System name, single modalities as systems of their own -> one prediction a clip.
    """
    from emolib.models.affectgpt.engine import AffectGPTEngine

    found: dict[str, list[Prediction]] = {}
    for system, file in branches.items():
        with AffectGPTEngine(model, system, file, cache) as engine:
            said = describe(
                *(clips, engine, ledger),
                system=system,
                views=views if file else before or views,
                preset=preset,
                answer=answer,
            )
        found |= {rows[0].system: rows for rows in said.values()}
    return found


def preset_of(model: ModelParams, preset: str, cache: Path | None = None) -> str:
    """The prompts a model is trained and asked with: ``preset``, or its folder's own for "".

    Raises:
        MissingModelError: the model is not on this machine.
    """
    if preset:
        return preset
    file = find_model(model, cache).path / "processor_config.json"
    return str(read_json(file).get("preset", "paper")) if file.is_file() else "paper"


def is_affectgpt(model: ModelParams, cache: Path | None = None) -> bool:
    """Whether a model is an AffectGPT, which is asked in a way of its own.

    Raises:
        MissingModelError: the model is not on this machine.
    """
    if model.engine == "server":
        return False
    config = read_json(find_model(model, cache).path / "config.json")
    return config.get("model_type") == "affectgpt"


def predict_clips(
    clips: Sequence[Clip],
    model: ModelParams,
    ledger: Ledger,
    *,
    system: str,
    cache: Path | None = None,
) -> list[Prediction]:
    """Ask one AffectGPT of every clip all that it can tell of it, as its folder says.

    Args:
        clips: The clips.
        model: The model; ``adapters`` may name trained branches.
        ledger: Finds and keeps the answers.
        system: Name in tables.
        cache: Where tiny checkpoints are kept.

    Returns:
        One prediction a clip, in order. The design of 2025 is asked for labels, that of 2024 for
        a description.
    """
    from emolib.models.affectgpt.engine import AffectGPTEngine

    preset = preset_of(model, "", cache)
    answer: Answer = "labels" if preset.endswith("2025") else "description"
    with AffectGPTEngine(model, system, cache=cache) as engine:
        said = describe(
            *(clips, engine, ledger), system=system, views=("all",), preset=preset, answer=answer
        )
    return said["all"]


def branches_by_seed(trained: Mapping[int, Trained], policy: str) -> dict[int, dict[str, Path]]:
    """The branches to test, by seed and system name, epochs ascending.

    A system is "AffectGPT-SFT", with seed and epoch where there are several.
    """
    found: dict[int, dict[str, Path]] = {}
    for seed, one in trained.items():
        checkpoints = one.choose(policy)
        name = "AffectGPT-SFT" + (f", seed {seed}" if len(trained) > 1 else "")
        found[seed] = {
            name + (f", epoch {kept.epoch}" if len(checkpoints) > 1 else ""): kept.file
            for kept in checkpoints
        }
    return found


def chosen_branches(trained: Mapping[int, Trained], policy: str) -> dict[str, Path]:
    """The branches to test, by system name (:func:`branches_by_seed`)."""
    of_seeds = branches_by_seed(trained, policy).values()
    return {name: file for found in of_seeds for name, file in found.items()}


def _id(clip: Clip, view: str) -> str:
    return f"{clip.name}/{view}"


def _task(
    clip: Clip, view: Perspective, preset: str, question: str | None, channels: bool
) -> Task | str:
    """The question, or why there is none."""
    try:
        sound = _sound_file(clip) if view in ("all", "audio") else None
        files = {"video": clip.video} if view in ("all", "video") else {}
        files |= {"audio": sound} if sound else {}
        shas = {kind: sha_file(path) for kind, path in files.items()}
    except OSError as error:
        return f"error: {clip.video}: cannot be read: {error.strerror or error}"
    words = clip.subtitle if view in ("all", "text") else None
    if view == "audio" and not sound:
        return "no sound"
    if view == "text" and words is None:
        return "no words"
    prompt = build_prompt(
        preset, video="video" in files, audio=bool(sound), subtitle=words, question=question
    )
    content = {**shas, "prompt": prompt, "frames": "published sampler"}
    info = {"view": view, "subtitle_source": clip.subtitle_source}
    build = partial(_request, files, shas, prompt, channels)
    return Task(id=_id(clip, view), content=content, build=build, info=info)


def _sound_file(clip: Clip) -> Path | None:
    try:
        return sound_file(clip)
    except MediaError:
        return None  # building the request says what is wrong with the file


def _request(
    files: Mapping[str, Path], shas: Mapping[str, str], prompt: str, channels: bool
) -> Request:
    for kind, path in files.items():
        # The answer is kept under this content: what came in its place must not answer for it.
        if not is_unchanged(path, shas[kind]):
            raise DataError(f"{path}: gone or changed since this run began; run it again")
    images = tuple(_frames(files["video"], shas["video"])) if "video" in files else ()
    audio = (_sound(files["audio"], shas["audio"], channels),) if "audio" in files else ()
    return Request(id="", prompt=prompt, images=images, audio=audio)


@lru_cache(maxsize=4)
def _frames(path: Path, sha: str) -> np.ndarray:
    return read_clip(path)


@lru_cache(maxsize=4)
def _sound(path: Path, sha: str, channels: bool) -> np.ndarray:
    samples = read_sound(path, channels)
    assert samples is not None, "asked only of files with an audio track"
    return samples


def _prediction(
    clip: Clip,
    view: Perspective,
    system: str,
    preset: str,
    question: str | None,
    engine: Engine,
    row: Mapping[str, Any] | None,
    absent: str | None,
) -> Prediction:
    if row is None:
        error = absent.removeprefix("error: ") if absent and absent.startswith("error: ") else None
        row = {"text": "", "error": error, "finish_reason": "", "seconds": 0.0}
        row |= {"info": {"view": view} | ({} if error else {"absent": absent})}
    labels, how = from_text(row["text"])
    return Prediction(
        name=clip.name,
        system=system if view == "all" else f"{system}, {view} only",
        labels=labels,
        description=row["text"],
        parse=how,
        status="error" if row["error"] else "ok",
        error=row["error"],
        prompt=key_of(prompt=build_prompt(preset, subtitle="", question=question))[:12],
        model=dict(engine.identity),
        finish_reason=row["finish_reason"],
        seconds=row["seconds"],
        info=dict(row["info"]),
    )
