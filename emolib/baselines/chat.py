"""Descriptions of clips by a chat model, in this process or behind a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from emolib.baselines.media import Seen, hear, look
from emolib.baselines.prompting import question
from emolib.datasets.clip import Clip
from emolib.engines.base import Engine, Request
from emolib.errors import DataError
from emolib.hashing import is_unchanged
from emolib.inference import Task, ask
from emolib.ledger import Ledger
from emolib.media.video import sample_frames
from emolib.params.baselines import Recipe
from emolib.predict import Prediction
from emolib.prompts import Prompt
from emolib.summaries import from_text


def describe(
    clips: Sequence[Clip],
    recipe: Recipe,
    engine: Engine,
    ledger: Ledger,
    *,
    seed: int = 0,
) -> list[Prediction]:
    """Ask a recipe's question about every clip.

    What a clip lacks is left out of the "describe" question and named in ``info["absent"]``; a
    clip that has none of the recipe's inputs is an error row.

    Args:
        clips: The clips; one that cannot be read gives a prediction with its error.
        recipe: Of interface "chat".
        engine: Its model.
        ledger: Finds and keeps the answers.
        seed: Seed of the frames, which are those of :func:`emolib.predict.predict`.

    Returns:
        One prediction a clip, in order, with labels found without an LLM.
    """
    tasks, faults, shas = [], {}, {}
    for clip in clips:
        seen = look(clip, recipe)
        template = question(recipe.prompt, seen.kinds)
        shas[clip.name] = template.sha
        if seen.fault:
            faults[clip.name] = seen.fault
        else:
            prompt = _render(template, seen)
            tasks.append(_task(clip, recipe, seen, prompt, seed))
    rows = ask(tasks, engine, ledger, recipe.title)
    return [
        prediction(
            clip.name,
            recipe.title,
            engine.identity,
            shas[clip.name],
            rows.get(clip.name) or failed(faults[clip.name]),
        )
        for clip in clips
    ]


def _render(template: Prompt, seen: Seen) -> str:
    """Fill in what is said, if the recipe may know it."""
    blanks = {"text": seen.words or "unknown"} if "{text}" in template.template else {}
    return template.render(**blanks)


def prompt_of(clip: Clip, recipe: Recipe) -> str:
    """The words a recipe asks about one clip, for counting them beforehand."""
    seen = look(clip, recipe)
    return _render(question(recipe.prompt, seen.kinds), seen)


def _task(clip: Clip, recipe: Recipe, seen: Seen, prompt: str, seed: int) -> Task:
    content: dict[str, Any] = {**seen.shas, "prompt": prompt, "system": recipe.system}
    if seen.video is not None:
        content |= {"frames": recipe.frames, "rule": recipe.sampling}
    if seen.video is not None and recipe.sampling == "segments":
        content |= {"name": clip.name, "seed": seed}  # the moments depend on them
    if seen.sound is not None:
        content["seconds"] = recipe.seconds
    info = {"subtitle_source": clip.subtitle_source, **seen.to_info(recipe)}
    build = partial(_request, clip, recipe, seen, prompt, seed, info)
    return Task(id=clip.name, content=content, build=build, info=info)


def _request(
    clip: Clip, recipe: Recipe, seen: Seen, prompt: str, seed: int, info: dict[str, Any]
) -> Request:
    for path, kind in ((seen.video, "video"), (seen.sound, "audio")):
        # The answer is kept under this content: what came in its place must not answer for it.
        if path is not None and not is_unchanged(path, seen.shas[kind]):
            raise DataError(f"{path}: gone or changed since this run began; run it again")
    images: tuple[Any, ...] = ()
    if seen.video is not None:
        sample = sample_frames(
            seen.video, recipe.frames, rule=recipe.sampling, seed=seed, name=clip.name
        )
        info["pts_s"] = [round(frame.pts_s, 4) for frame in sample.frames]
        info["distinct_frames"] = sample.distinct
        images = tuple(frame.image for frame in sample.frames)
    audio = (hear(seen.sound, recipe.seconds, info),) if seen.sound is not None else ()
    return Request(id="", prompt=prompt, images=images, audio=audio, system=recipe.system or None)


def failed(error: str) -> dict[str, Any]:
    """The row of a clip that could not be asked about."""
    return {"text": "", "error": error, "finish_reason": "", "seconds": 0.0, "info": {}}


def prediction(
    name: str, system: str, model: Mapping[str, Any], prompt: str, row: Mapping[str, Any]
) -> Prediction:
    """A ledger row as a prediction, with labels found without an LLM."""
    labels, how = from_text(row["text"])
    return Prediction(
        name=name,
        system=system,
        labels=labels,
        description=row["text"],
        parse=how,
        status="error" if row["error"] else "ok",
        error=row["error"],
        prompt=prompt,
        model=dict(model),
        finish_reason=row["finish_reason"],
        seconds=row["seconds"],
        info=dict(row["info"]),
    )
