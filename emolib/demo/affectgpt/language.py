"""Train the language model on texts alone: prompts with notes in, descriptions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from emolib.demo.affectgpt import texts
from emolib.demo.affectgpt.texts import Sample

_NOISE = 0.35  # of the embeddings' own size, on every place of a note
_DROPPED = 0.04  # notes left out
_COPIES = 0.5  # chance of each further place a note is written to


class Notes:
    """Writes notes into the places of a video or sound, as a branch would.

    Every note goes to one or more places drawn at random; notes that meet in a place are added,
    and all places get noise. So the model reads a note wherever and however mixed it comes.

    Args:
        model: Its embeddings are used.
        tokenizer: Its own.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._embed = model.get_input_embeddings()
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def places(
        self, rows: Sequence[tuple[str, ...]], places: int, rng: np.random.Generator
    ) -> torch.Tensor:
        """Float [rows, places, width] in the place of a branch's output."""
        table = self._embed.weight
        scale = float(table.detach().square().mean().sqrt())
        words = sorted({word for row in rows for word in row})
        vectors = torch.stack([table[self._tokens(word)].mean(0) for word in words])
        mixing = np.zeros((len(rows), places, len(words)), np.float32)
        for row, notes in enumerate(rows):
            for word in notes:
                if rng.random() < _DROPPED:
                    continue
                while True:
                    weight = rng.uniform(0.6, 1.4)
                    mixing[row, rng.integers(places), words.index(word)] += weight
                    if rng.random() > _COPIES:
                        break
        noise = rng.normal(0, _NOISE * scale, (len(rows), places, table.shape[1]))
        return torch.from_numpy(mixing) @ vectors + torch.from_numpy(noise.astype(np.float32))

    def _tokens(self, word: str) -> list[int]:
        if word not in self._ids:
            self._ids[word] = self._tokenizer.encode(f" {word}", add_special_tokens=False)
        return self._ids[word]


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
    short = view == "echo" or (phase == 1 and view == (False, False, True))
    return [
        texts.sample(step * size * 3 + i, view, varied=phase == 2)
        for i in range(size * 3 if short else size)
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
    notes = Notes(model, processor.tokenizer)
    queries = {
        "video": model.config.video_qformer_config.num_query_tokens,
        "audio": model.config.audio_qformer_config.num_query_tokens,
    }

    first = phase * 1_000_000  # rows of the first phase do not come again

    def at(step: int) -> torch.Tensor:
        samples = draw_batch(first + step, batch, phase, seed)
        rng = np.random.default_rng([seed, first + step, 2])
        media = {
            kind: notes.places([getattr(s, kind) for s in samples], queries[kind], rng)
            for kind in queries
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
