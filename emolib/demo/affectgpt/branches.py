"""Give the two branches a start, as a checkpoint brings that was trained on captions.

The branches learn to write notes where the language model reads them: the words for person, place,
face, posture, surroundings and voice, from the frozen towers' output and by no other way than that
a note's words are the nearest. A very short training on the base domain alone: they are begun. To
write clearly and surely, to look at other people and places, and what of it all a description
needs is left to the training in notebook 04.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from emolib.datasets.demo.spec import ClipSpec
from emolib.demo.affectgpt import cameras, texts, towers
from emolib.demo.affectgpt.language import HEARD, SEEN, SKY
from emolib.demo.affectgpt.sounds import Sounds
from emolib.demo.pictures import Pictures

_SILENT = 0.35  # cosine below which a place says nothing
_SHARP = 8.0  # of the softmax over cosines
_FILMED = 0.5  # of the frames
FRAMES = 8  # of a video, as its processor samples them


def notes_of(clip: ClipSpec) -> dict[str, str]:
    """The notes of a clip by place; "" where there is nothing to say."""
    notes = texts.heard_notes(clip) | texts.seen_notes(clip, clip.latent.concept("core"))
    notes["sky"] = next((notes[kind] for kind in SKY if kind in notes), "")
    return {kind: notes.get(kind, "") for kind in (*SEEN, *HEARD)}


class Words:
    """The words a kind of note can be, as the language model embeds them.

    Args:
        model: Its embeddings.
        tokenizer: Its own.
        values: Words by kind.
    """

    def __init__(self, model: Any, tokenizer: Any, values: dict[str, list[str]]) -> None:
        table = model.get_input_embeddings().weight.detach()
        self.values = values
        self.vectors = {
            kind: torch.stack(
                [table[tokenizer.encode(f" {w}", add_special_tokens=False)].mean(0) for w in words]
            )
            for kind, words in values.items()
        }
        self.size = float(table.square().sum(1).mean().sqrt())

    def miss(self, written: torch.Tensor, kind: str, wanted: Sequence[str]) -> torch.Tensor:
        """How far a place is from the right word, and how near to others of its kind.

        The distance keeps places quiet that have nothing to say and makes a note as clear as it is
        sure; the choice among words alone leaves three quarters of a place to chance.

        Args:
            written: float [n, width], what the branch put there.
            kind: Of the notes.
            wanted: n words; "" where there is nothing to say.
        """
        known = self.values[kind]
        right = torch.tensor([known.index(w) if w in known else len(known) for w in wanted])
        vectors = self.vectors[kind]
        likeness = functional.normalize(written, dim=1) @ functional.normalize(vectors, dim=1).T
        likeness = functional.pad(likeness, (0, 1), value=_SILENT)
        distance = (written - functional.pad(vectors, (0, 0, 0, 1))[right]).square().sum(1).mean()
        return functional.cross_entropy(_SHARP * likeness, right) + distance / self.size**2


def features(
    model: Any, pictures: Pictures, sounds: Sounds, clips: Sequence[int], seed: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the frozen towers make of clips, half of their frames taken with other cameras.

    Returns:
        float [clips, 8, queries, width] and float [clips, pieces, width]; of fewer than
        eight frames some come twice.
    """
    rng = np.random.default_rng(seed)
    frames = np.arange(FRAMES) * pictures.world.frames // FRAMES
    seen, heard = [], []
    with torch.no_grad():
        for part in np.array_split(np.asarray(clips), max(1, len(clips) // 16)):
            pixels = pictures.pixels[part]
            flat = cameras.filmed(pixels.reshape(-1, *pixels.shape[2:]), rng, _FILMED)
            own = model.encode_frames(towers.normalised(flat).unflatten(0, pixels.shape[:2]))
            seen.append(own[:, frames])
            mel = torch.from_numpy(sounds.mel[part].astype(np.float32))
            heard.append(model.encode_clips(mel))
    return torch.cat(seen), torch.cat(heard)


def loss(
    model: Any,
    processor: Any,
    specs: Sequence[ClipSpec],
    seen: torch.Tensor,
    heard: torch.Tensor,
    batch: int,
    seed: int,
) -> Callable[[int], torch.Tensor]:
    """Make the loss of a step.

    Args:
        model: The whole AffectGPT.
        processor: Its processor.
        specs: The clips of ``seen`` and ``heard``.
        seen: From :func:`features`.
        heard: Likewise.
        batch: Clips a step; half of the steps show one frame alone, as a picture is.
        seed: Of the draws.
    """
    notes = [notes_of(clip) for clip in specs]
    values = {kind: sorted({n[kind] for n in notes} - {""}) for kind in {*SEEN, *HEARD}}
    words = Words(model, processor.tokenizer, values)

    def at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, step, 5))
        rows = rng.integers(0, len(specs), batch)
        frames = seen[rows]
        if rng.random() < 0.5:
            frames = frames[:, [int(rng.integers(frames.shape[1]))]]
        video = model.get_video_features(frame_features=frames)
        audio = model.get_audio_features(clip_features=heard[rows])
        total = torch.zeros(())
        for written, kinds in ((video, SEEN), (audio, HEARD)):
            for place, kind in enumerate(kinds):
                total = total + words.miss(written[:, place], kind, [notes[r][kind] for r in rows])
            free = written[:, len(kinds) :]  # quiet, so that what is learnt later is heard
            total = total + 0.2 * (free.norm(dim=2) / words.size - 0.5).square().mean()
        return total

    return at
