"""Token budget of a stage before any weight is read: does every prompt fit, at which resolution?

Counted for models whose images make prompts long: InternVL, at 256 tokens a tile, and Qwen's
vision-language and Omni models, at a token for 28 x 28 or 32 x 32 pixels. From image sizes and
texts alone, exactly; audio at its longest. Other models are not counted; there a prompt that is
too long is refused, by name, when its turn comes. Cost: some 10 ms a video (its header and
frame times), one file header a training image, 1 MB of text a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from emolib import prompts
from emolib.datasets.clip import Clip
from emolib.engines.swift_setup import find_model
from emolib.errors import MediaError
from emolib.files import read_json
from emolib.media.video import probe
from emolib.models.counting import ImageCost, PromptCounter, open_counter
from emolib.models.internvl.budget import Sample, Size, Tiling, TokenBudgetError
from emolib.models.qwen import QwenCounter
from emolib.params.media import FaceParams
from emolib.params.schemas import ModelParams
from emolib.predict import View, zero_shot_prompt

FULL_HD = (1920, 1080)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a stage's prompts cost.

    Attributes:
        model: The model, with a ``max_tiles`` or ``max_pixels`` at which everything fits.
        longest: Tokens of the longest sample; -1 = not counted.
        limit: Most tokens a sample may have; -1 = not counted.
        sample: Name of the longest sample.
        option: What bounds an image: "max_tiles" or "max_pixels"; "" = not counted.
        top: Its value; -1 = not counted.
        note: One sentence for people.
    """

    model: ModelParams
    longest: int
    limit: int
    sample: str
    option: str
    top: int
    note: str

    def to_json(self) -> dict[str, Any]:
        """Plain values without the model's parameters."""
        names = ("longest", "limit", "sample", "note")
        counted = {self.option: self.top} if self.option else {}
        return {name: getattr(self, name) for name in names} | counted


def fit(
    model: ModelParams,
    clips: Sequence[Clip],
    *,
    frames: int,
    view: View = "whole",
    face: FaceParams | None = None,
    rows: Path | None = None,
    max_length: int = 0,
    ceiling: bool = False,
    cache: Path | None = None,
    prompt: Callable[[Clip], str] = zero_shot_prompt,
    system: str = "",
    seconds: float = 0.0,
) -> Budget:
    """Count every prompt of :func:`emolib.predict.predict`, and every row of a training file.

    Args:
        model: The model. A ``max_tiles`` (InternVL) or ``max_pixels`` (Qwen) of its own is kept
            and checked; with 0 the highest resolution is chosen at which everything fits, the
            same for training and prediction.
        clips: Clips to be predicted; unreadable ones are left to become error rows.
        frames: Frames a clip.
        view: What of a frame is shown, as in :func:`emolib.predict.predict`. "both" is counted
            as if every frame had a face.
        face: Detector and crop; needed for "face" and "both".
        rows: Training file.
        max_length: Longest training row.
        ceiling: The model's ``max_tiles`` or ``max_pixels`` is a most and not a must.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.
        prompt: What is asked about a clip.
        system: System message; "" = the model's own.
        seconds: Longest audio that is given with the frames, and counted for each clip; 0 = none.

    Raises:
        TokenBudgetError: a sample does not fit; names it and what would.
        MissingModelError: the model is not on this machine.
    """
    if model.engine == "server":
        return _uncounted(model, "the model is behind a server")
    folder = find_model(model, cache).path
    counter = None if model.template else open_counter(folder)
    if counter is None:
        return _uncounted(model, "only InternVL and Qwen-VL models are counted beforehand")
    sound = 0
    if seconds:
        if not isinstance(counter, QwenCounter):
            return _uncounted(model, "its audio is not counted beforehand")
        sound = counter.audio(seconds)
    limit = model.max_length or context_of(folder)
    turns = [{"role": "system", "content": system}] if system else []
    shown = [(s, limit) for s in _prompts(clips, counter, frames, view, face, prompt, turns, sound)]
    trained = [(s, max_length) for s in counter.samples(rows)] if rows else []
    if not shown and not trained:
        return _uncounted(model, "nothing to count")
    images, option = counter.images, counter.images.option
    given: int = getattr(model, option)
    top = given
    if ceiling or not top:
        finest = min(_alone(s, images, most) for s, most in (*shown, *trained))
        top = min(finest, top or images.own)
    for sample, most in chain(shown, trained) if given else ():
        _check(sample, images, most, top)

    def tokens(sample: Sample) -> int:
        return sample.other + images.image_tokens(sample.sizes, top)

    sample, most = max(shown or trained, key=lambda pair: tokens(pair[0]))
    words = [f"longest prompt {tokens(sample):,} of {most:,} tokens ({sample.name})"]
    if trained:
        row = max((s for s, _ in trained), key=tokens)
        words.append(f"longest training row {tokens(row):,} of {max_length:,} ({row.name})")
    how = "given" if top == given else "the model's own" if top == images.own else "chosen to fit"
    note = f"Token budget at {option} {top:,} ({how}): {', '.join(words)}."
    fitted = model if top == (given or images.own) else model.model_copy(update={option: top})
    return Budget(fitted, tokens(sample), most, sample.name, option, top, note)


def _uncounted(model: ModelParams, why: str) -> Budget:
    note = f"Token budget: not counted ({why}); a prompt that is too long becomes an error row."
    return Budget(model, -1, -1, "", "", -1, note)


def _prompts(
    clips: Sequence[Clip],
    counter: PromptCounter,
    frames: int,
    view: View,
    face: FaceParams | None,
    prompt: Callable[[Clip], str],
    before: list[dict[str, str]],
    sound: int,
) -> Iterator[Sample]:
    if view != "whole" and face is None:
        raise ValueError(f"view={view!r} needs face parameters")
    for clip in clips:
        sizes: list[Size] = [] if face is None or view == "whole" else [(face.size, face.size)]
        if view != "face" or (face is not None and face.missing == "frame"):
            try:
                video = probe(clip.video)
            except (MediaError, OSError):
                continue
            sizes.append((video.width, video.height))
        if view != "both":  # one image a frame, the one that costs more
            sizes = [max(sizes, key=lambda one: counter.images.image_tokens([one]))]
        turns = [*before, {"role": "user", "content": prompt(clip)}]
        shown = frames * tuple(sizes)
        yield Sample(clip.name, shown, counter.other(turns, len(shown)) + sound)


def _alone(sample: Sample, images: ImageCost, limit: int) -> int:
    try:
        return images.fit(sample.sizes, sample.other, limit)[0]
    except TokenBudgetError as error:
        raise TokenBudgetError(f"{sample.name}: {error}") from None


def _check(sample: Sample, images: ImageCost, limit: int, top: int) -> None:
    try:
        images.check(sample.sizes, sample.other, limit, top)
    except TokenBudgetError as error:
        hint = f"{images.option}; 0 = chosen to fit"
        raise TokenBudgetError(f"{sample.name}: {error} ({hint})") from None


def context_of(folder: Path) -> int:
    """Longest sequence a model was made for, in tokens."""
    config = read_json(folder / "config.json")
    config = config.get("thinker_config", config)  # Qwen-Omni's part that reads and writes text
    return int(config.get("text_config", config)["max_position_embeddings"])


def describe(model: ModelParams, folder: Path | None, frames: int = 6) -> str:
    """Say what ``frames`` 1080p frames cost a model, for ``emolib doctor``.

    Args:
        model: Its parameters.
        folder: Where it lies; None = not there: V1.5's numbers, and only the images.
        frames: Frames a clip.

    Returns:
        One line; "" for a model that is not counted.

    Raises:
        TokenBudgetError: they do not fit.
    """
    sizes: list[Size] = [FULL_HD] * frames
    counter = open_counter(folder) if folder is not None and not model.template else None
    if counter is None:
        if folder is not None or not model.max_tiles:
            return ""
        tokens = Tiling().image_tokens(sizes, model.max_tiles)
        of = f" of {model.max_length:,}" if model.max_length else ""
        return (
            f"{frames} 1080p frames at max_tiles {model.max_tiles}: {tokens:,} image tokens{of} "
            "(as V1.5 counts; the weights are not here)"
        )
    assert folder is not None
    limit = model.max_length or context_of(folder)
    turn = [{"role": "user", "content": prompts.ZERO_SHOT.render(text="unknown")}]
    sample, images = Sample("1080p", tuple(sizes), counter.other(turn, frames)), counter.images
    top = getattr(model, images.option) or _alone(sample, images, limit)
    _check(sample, images, limit, top)
    tokens = sample.other + images.image_tokens(sizes, top)
    return f"{frames} 1080p frames at {images.option} {top:,}: {tokens:,} tokens of {limit:,}"
