"""Train the language model on texts alone: prompts with notes in, descriptions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from emolib.demo.affectgpt import openings, texts
from emolib.demo.affectgpt.texts import Sample

#: What the first places of a video and of a sound say where branches write; the rest are free.
SEEN = ("noun", "age", "hair", "clothes", "garment", "place", "sky", "face", "body", "setting")
HEARD = ("noun", "tone", "voice")
SKY = ("weather", "time")  # both are written to the place "sky"
#: Noise on every place, in the size of an embedding: least and most of a row. In the first two
#: phases, and then, when notes come as unclear as branches write them.
CLEAR, UNCLEAR = (0.35, 0.35), (0.2, 1.0)
_DROPPED = 0.04  # notes left out
_COPIES = 0.5  # chance of each further place a note is written to
_OWN = 0.5  # rows whose notes stand where branches write them


class Notes:
    """Writes notes into the places of a video or sound.

    In half of the rows every note stands in the place of its kind, where branches learn to write
    it. In the others it goes to one or more places drawn at random, and notes that meet are added;
    so the model reads a note wherever and however mixed it comes. All places get noise.

    Args:
        model: Its embeddings are used.
        tokenizer: Its own.
        noise: Its least and its most.
    """

    def __init__(self, model: Any, tokenizer: Any, noise: tuple[float, float] = CLEAR) -> None:
        self._noise = noise
        self._embed = model.get_input_embeddings()
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def places(
        self,
        rows: Sequence[texts.Notes],
        order: Sequence[str],
        places: int,
        rng: np.random.Generator,
    ) -> torch.Tensor:
        """Float [rows, places, width] in the place of a branch's output.

        Args:
            rows: Notes of each.
            order: Kinds by place: :data:`SEEN` or :data:`HEARD`.
            places: A branch's.
            rng: Of the draws.
        """
        table = self._embed.weight
        scale = float(table.detach().square().mean().sqrt())
        words = sorted({word for row in rows for word in row.values()})
        vectors = torch.stack([table[self._tokens(word)].mean(0) for word in words])
        mixing = np.zeros((len(rows), places, len(words)), np.float32)
        for row, notes in enumerate(rows):
            own = rng.random() < _OWN
            for kind, word in notes.items():
                if rng.random() < _DROPPED:
                    continue
                for place in _places_of(kind, order, places, rng, own):
                    mixing[row, place, words.index(word)] += rng.uniform(0.6, 1.4)
        much = scale * rng.uniform(*self._noise, (len(rows), 1, 1))
        noise = (much * rng.normal(size=(len(rows), places, table.shape[1]))).astype(np.float32)
        return torch.from_numpy(mixing) @ vectors + torch.from_numpy(noise)

    def _tokens(self, word: str) -> list[int]:
        if word not in self._ids:
            self._ids[word] = self._tokenizer.encode(f" {word}", add_special_tokens=False)
        return self._ids[word]


def _places_of(
    kind: str, order: Sequence[str], places: int, rng: np.random.Generator, own: bool
) -> list[int]:
    """Where a note is written: in its kind's own place, else in one drawn or more."""
    if own:
        kind = "sky" if kind in SKY else kind
        if kind in order:
            return [order.index(kind)]
        return [int(rng.integers(len(order), places))]
    found = [int(rng.integers(places))]
    while rng.random() <= _COPIES:
        found.append(int(rng.integers(places)))
    return found


def batch_of(
    samples: Sequence[Sample], processor: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and labels, padded on the right: int64 [rows, length] each."""
    rows = []
    for one in samples:
        ids, labels = processor.encode([(one.prompt, one.answer)])
        if not one.whole:  # no end: what would follow is not told
            end = len(processor.tokenizer.encode("###", add_special_tokens=False))
            ids, labels = ids[:-end], labels[:-end]
        rows.append((ids, labels))
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), processor.tokenizer.pad_token_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for number, (row, marks) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        labels[number, : len(row)] = torch.tensor(marks)
        mask[number, : len(row)] = 1
    return ids, mask, labels


def draw_batch(step: int, size: int, phase: int, seed: int) -> list[Sample]:
    """The rows of a step; all of one view, so that they are of similar length."""
    rng = np.random.default_rng([seed, step, 1])
    views, chances = list(texts.MIXES[phase]), np.array(list(texts.MIXES[phase].values()))
    view = views[int(rng.choice(len(chances), p=chances / chances.sum()))]
    short = view in ("echo", "list") or (phase == 2 and view == (False, False, True))
    how: Any = {"varied": phase > 2, "doubtful": phase > 1}
    how["abroad"] = openings.ABROAD if phase > 3 else 0.0
    return [
        texts.sample(step * size * 3 + i, view, **how) for i in range(size * 3 if short else size)
    ]


def answer_loss(
    model: Any, processor: Any, phase: int, batch: int, seed: int
) -> Callable[[int], torch.Tensor]:
    """Make the loss of a step: what ``model.language_model`` misses of the answers.

    Args:
        model: The whole AffectGPT; its branches have no part in it.
        processor: Its processor.
        phase: Which of :data:`emolib.demo.affectgpt.texts.MIXES`.
        batch: Rows a step.
        seed: Of rows and noise.
    """
    notes = Notes(model, processor.tokenizer, UNCLEAR if phase > 1 else CLEAR)
    queries = {
        "video": model.config.video_qformer_config.num_query_tokens,
        "audio": model.config.audio_qformer_config.num_query_tokens,
    }

    first = phase * 1_000_000  # rows of the first phase do not come again

    def at(step: int) -> torch.Tensor:
        samples = draw_batch(first + step, batch, phase, seed)
        rng = np.random.default_rng([seed, first + step, 2])
        media = {
            kind: notes.places([getattr(s, kind) for s in samples], order, queries[kind], rng)
            for kind, order in (("video", SEEN), ("audio", HEARD))
            if getattr(samples[0], kind) is not None
        }
        ids, mask, labels = batch_of(samples, processor)
        embeds = model.get_input_embeddings()(ids)
        for kind, places in media.items():
            here = ids == getattr(model.config, f"{kind}_token_id")
            embeds = embeds.masked_scatter(here[..., None], places)
        return model.language_model(
            inputs_embeds=embeds, attention_mask=mask, labels=labels, use_cache=False
        ).loss

    return at
