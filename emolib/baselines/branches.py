"""Descriptions by a folder of AffectGPT's class: Video-LLaMA, or AffectGPT itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from emolib.baselines.chat import failed, prediction
from emolib.baselines.media import Seen, hear, look
from emolib.datasets.clip import Clip
from emolib.engines.base import Engine, Request
from emolib.errors import DataError
from emolib.hashing import is_unchanged, key_of
from emolib.inference import Task, ask
from emolib.ledger import Ledger
from emolib.models.affectgpt.media import read_clip
from emolib.models.affectgpt.prompts import ALL_PRESETS, build_prompt
from emolib.params.baselines import Recipe
from emolib.predict import Prediction


def preset_of(recipe: Recipe) -> str:
    """The AffectGPT prompt a recipe names; "describe" is the paper's.

    Raises:
        DataError: there is no such prompt.
    """
    preset = "paper" if recipe.prompt == "describe" else recipe.prompt
    if preset not in ALL_PRESETS:
        raise DataError(
            f"{recipe.title}: prompt {recipe.prompt!r}: the affectgpt interface takes one of "
            f"{sorted(ALL_PRESETS)}"
        )
    return preset


def describe(
    clips: Sequence[Clip], recipe: Recipe, engine: Engine, ledger: Ledger
) -> list[Prediction]:
    """Ask about every clip; frames, sound and words are placed as AffectGPT does.

    Eight frames and eight bits of the sound are taken by the published sampler, so the recipe's
    ``frames``, ``sampling`` and ``system`` play no part.

    Args:
        clips: The clips; one that cannot be read gives a prediction with its error.
        recipe: Of interface "affectgpt".
        engine: An :class:`emolib.models.affectgpt.engine.AffectGPTEngine`.
        ledger: Finds and keeps the answers.

    Raises:
        DataError: the recipe's prompt is none of AffectGPT's.
    """
    preset = preset_of(recipe)
    tasks, faults = [], {}
    for clip in clips:
        seen = look(clip, recipe)
        if seen.fault:
            faults[clip.name] = seen.fault
        else:
            tasks.append(_task(clip, recipe, seen, preset))
    rows = ask(tasks, engine, ledger, recipe.title)
    sha = key_of(prompt=build_prompt(preset, subtitle=""))[:12]
    return [
        prediction(
            clip.name,
            recipe.title,
            engine.identity,
            sha,
            rows.get(clip.name) or failed(faults[clip.name]),
        )
        for clip in clips
    ]


def _task(clip: Clip, recipe: Recipe, seen: Seen, preset: str) -> Task:
    prompt = build_prompt(
        preset,
        video=seen.video is not None,
        audio=seen.sound is not None,
        subtitle=seen.words,
    )
    content: dict[str, Any] = {**seen.shas, "prompt": prompt, "frames": "published sampler"}
    if seen.sound is not None:
        content["seconds"] = recipe.seconds
    info = {"subtitle_source": clip.subtitle_source, **seen.to_info(recipe)}
    build = partial(_request, recipe, seen, prompt, info)
    return Task(id=clip.name, content=content, build=build, info=info)


def _request(recipe: Recipe, seen: Seen, prompt: str, info: dict[str, Any]) -> Request:
    for path, kind in ((seen.video, "video"), (seen.sound, "audio")):
        if path is not None and not is_unchanged(path, seen.shas[kind]):
            raise DataError(f"{path}: gone or changed since this run began; run it again")
    images = tuple(read_clip(seen.video)) if seen.video is not None else ()
    audio = (hear(seen.sound, recipe.seconds, info),) if seen.sound is not None else ()
    return Request(id="", prompt=prompt, images=images, audio=audio)
