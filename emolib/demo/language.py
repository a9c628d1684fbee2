"""Teach a nano model's language model to answer, its vision tower done and its tokens kept.

What the tower says of every picture is computed once; steps then cost the language model alone.
A step asks one kind of question, so that its prompts are about equally long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from emolib.demo import texts
from emolib.demo.pictures import Pictures
from emolib.demo.texts import Sample
from emolib.demo.tower import varied
from emolib.filtering import parse_similarity
from emolib.labels import parse_labels
from emolib.progress import Progress

IGNORED = -100


@dataclass(frozen=True)
class Speaker:
    """A language model with its way of writing a conversation.

    Attributes:
        language: The model without its output layer; takes ``inputs_embeds``.
        head: Output layer.
        tokenizer: Of the checkpoint.
        image_id: Token in whose place a picture's tokens go.
        image_tokens: Tokens a picture.
        write: (prompt, pictures) -> the text before the answer.
        end: What follows an answer; its first token ends generation.
    """

    language: torch.nn.Module
    head: torch.nn.Module
    tokenizer: Any
    image_id: int
    image_tokens: int
    write: Callable[[str, int], str]
    end: str

    def ids(self, text: str) -> list[int]:
        """Tokens of a text, nothing added."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def question(self, sample: Sample) -> list[int]:
        """Tokens up to where the answer begins."""
        return self.ids(self.write(sample.prompt, len(sample.frames)))

    def answer(self, sample: Sample) -> list[int]:
        """Tokens of the answer with its end."""
        return self.ids(sample.answer + self.end)


Draw = Callable[[np.random.Generator], Sample]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question.

    Attributes:
        name: For logs.
        share: How often a step asks it.
        batch: Questions a step.
        draw: Gives one.
    """

    name: str
    share: float
    batch: int
    draw: Draw


def kinds(pictures: Pictures, style: int, shares: dict[str, tuple[float, int]]) -> list[Kind]:
    """Give the kinds of question about a rendering.

    Args:
        pictures: The rendering.
        style: Wording of the answers.
        shares: Name -> (share, batch) of "clip" (frames and words), "words" (the same with one
            frame only), "picture" (a caption), "judge" and "extract".
    """
    of = pictures.world

    def clip(rng: np.random.Generator) -> Sample:
        index = int(rng.integers(of.clips))
        return texts.clip_sample(of, index, bool(pictures.close[index]), style, rng)

    def words(rng: np.random.Generator) -> Sample:
        index = int(rng.integers(of.clips))
        return texts.clip_sample(of, index, bool(pictures.close[index]), style, rng, frames=1)

    def picture(rng: np.random.Generator) -> Sample:
        index, frame = int(rng.integers(of.clips)), int(rng.integers(of.frames))
        time, close = float(pictures.times[index, frame]), bool(pictures.close[index])
        return texts.picture_sample(of, index, frame, time, close, style)

    def judge(rng: np.random.Generator) -> Sample:
        one, other = rng.integers(0, of.clips, 2).tolist()
        return texts.judge_sample(of, (one, other), rng)

    def extract(rng: np.random.Generator) -> Sample:
        return texts.extract_sample(of, int(rng.integers(of.clips)))

    draws: dict[str, Draw] = {
        "clip": clip,
        "words": words,
        "picture": picture,
        "judge": judge,
        "extract": extract,
    }
    return [Kind(name, share, batch, draws[name]) for name, (share, batch) in shares.items()]


@torch.no_grad()
def seen(
    pictures: Pictures, tokens: Callable[[np.ndarray], torch.Tensor], seed: int | None
) -> torch.Tensor:
    """Compute every picture's tokens once: float16 [clips, frames, tokens, width].

    Args:
        pictures: The rendering.
        tokens: Projected tokens of uint8 pictures.
        seed: Pictures are varied a little first, as in the tower's training; None = as they are.
    """
    rows = []
    with Progress("picture tokens", pictures.world.clips, unit="clip") as bar:
        for start in range(0, pictures.world.clips, 10):
            pixels = pictures.pixels[start : start + 10]
            flat = pixels.reshape(-1, *pixels.shape[2:])
            if seed is not None:
                flat = varied(flat, np.random.default_rng((seed, start)))
            made = tokens(flat)
            rows.append(made.reshape(*pixels.shape[:2], *made.shape[1:]).to(torch.float16))
            bar.advance(len(pixels))
    return torch.cat(rows)


def kept(
    folder: Path, pictures: Pictures, tokens: Callable[[np.ndarray], torch.Tensor], seed: int
) -> torch.Tensor:
    """Do :func:`seen` once: the next call reads what this one left in ``folder``."""
    file = folder / f"seen-{pictures.world.clips}.pt"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".tmp")
        torch.save(seen(pictures, tokens, seed), draft)
        draft.replace(file)
    found: torch.Tensor = torch.load(file, weights_only=True)
    return found


def answer_loss(
    speaker: Speaker, tokens: torch.Tensor, asked: Sequence[Kind], seed: int
) -> Callable[[int], torch.Tensor]:
    """Make the loss of a step: cross-entropy of the answers' tokens.

    Args:
        speaker: The model.
        tokens: What :func:`seen` gave.
        asked: Kinds of question.
        seed: Of the draws.
    """
    shares = np.array([kind.share for kind in asked])

    def at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, step))
        kind = asked[int(rng.choice(len(asked), p=shares / shares.sum()))]
        samples = [kind.draw(rng) for _ in range(kind.batch)]
        return batch_loss(speaker, samples, tokens)

    return at


def batch_loss(speaker: Speaker, samples: Sequence[Sample], tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over all answer tokens of some samples."""
    rows = [(speaker.question(s), speaker.answer(s)) for s in samples]
    width = max(len(q) + len(a) for q, a in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, (question, answer) in enumerate(rows):
        whole = len(question) + len(answer)
        ids[i, :whole] = torch.tensor(question + answer)
        mask[i, :whole] = 1
        # the token at t is told from those before it
        labels[i, len(question) - 1 : whole - 1] = torch.tensor(answer)
    hidden = speaker.language(
        inputs_embeds=embedded(speaker, samples, ids, tokens), attention_mask=mask, use_cache=False
    ).last_hidden_state
    told = labels != IGNORED
    return functional.cross_entropy(speaker.head(hidden[told]), labels[told])


def embedded(
    speaker: Speaker, samples: Sequence[Sample], ids: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Embed ids [rows, width] and put the pictures' tokens in their places."""
    vectors = speaker.language.get_input_embeddings()(ids)
    chosen = [tokens[clip, frame] for sample in samples for clip, frame in sample.frames]
    if chosen:
        places = (ids == speaker.image_id)[..., None].expand_as(vectors)
        vectors = vectors.masked_scatter(places, torch.cat(chosen).to(vectors.dtype))
    return vectors


@torch.no_grad()
def answered(
    speaker: Speaker, samples: Sequence[Sample], tokens: torch.Tensor, most: int = 120
) -> list[str]:
    """Answer some samples greedily, all at once; equally long questions are grouped."""
    questions = [speaker.question(s) for s in samples]
    answers: list[str] = [""] * len(samples)
    end = speaker.ids(speaker.end)[0]
    for length in sorted({len(q) for q in questions}):
        group = [i for i, q in enumerate(questions) if len(q) == length]
        ids = torch.tensor([questions[i] for i in group])
        vectors = embedded(speaker, [samples[i] for i in group], ids, tokens)
        said: list[torch.Tensor] = []
        past = None
        done = torch.zeros(len(group), dtype=torch.bool)
        for _ in range(most):
            out = speaker.language(inputs_embeds=vectors, past_key_values=past, use_cache=True)
            past = out.past_key_values
            token = speaker.head(out.last_hidden_state[:, -1]).argmax(-1)
            token[done] = end
            said.append(token)
            done |= token == end
            if done.all():
                break
            vectors = speaker.language.get_input_embeddings()(token[:, None])
        for i, row in zip(group, torch.stack(said, 1).tolist(), strict=True):
            row = row[: row.index(end)] if end in row else row
            answers[i] = speaker.tokenizer.decode(row)
    return answers


def agreement(
    speaker: Speaker, tokens: torch.Tensor, asked: Sequence[Kind], count: int, seed: int
) -> dict[str, float]:
    """Ask ``count`` fresh questions of each kind, at most one a clip, and rate the answers.

    Returns:
        By kind: "clip" and "extract" the mean Jaccard index of the label lists, "picture" of
        the words after the last full sentence's verb, "judge" the share of scores within 0.1,
        and "judge_rule" the share on the right side of the 0.9 threshold.
    """
    found: dict[str, float] = {}
    for kind in asked:
        rng = np.random.default_rng((seed, len(kind.name)))
        samples = [kind.draw(rng) for _ in range(min(count, len(tokens)))]
        pairs = list(zip(samples, answered(speaker, samples, tokens), strict=True))
        if kind.name == "judge":
            scores = [(float(s.answer), parse_similarity(said)) for s, said in pairs]
            near = [said is not None and abs(said - right) < 0.11 for right, said in scores]
            rule = [said is not None and (said >= 0.9) == (right >= 0.9) for right, said in scores]
            found |= {"judge": float(np.mean(near)), "judge_rule": float(np.mean(rule))}
        else:
            hits = [_jaccard(_labels(s.answer), _labels(said)) for s, said in pairs]
            found[kind.name] = float(np.mean(hits))
    return {name: round(value, 3) for name, value in found.items()}


def _labels(text: str) -> set[str]:
    if "[" in text:
        return set(parse_labels(text).labels)
    told = re.findall(r"[\w-]+", text.rstrip(".").rpartition(".")[2])
    return set(told) - {"and", "seems", "appears", "to", "be"}


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0
