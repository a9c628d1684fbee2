"""Random weights that answer: a stand-in's language model says one of a few sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from emolib.rehearsal.words import ANSWER

_GAIN = 5.0  # of the next piece's logit over all others
_CHOICE = 2.0  # how far what was read decides between pieces
_RESIDUAL = 0.3  # scale of what attention and MLP add, so that the last token weighs most
_OUT = ("o_proj.weight", "down_proj.weight", "dense.weight", "dense_4h_to_h.weight")


def teach(
    embeddings: Any,
    head: Any,
    outputs: Iterable[Any],
    pieces: list[list[int]],
    starts: list[int],
    end: int,
) -> None:
    """Set embeddings and output layer so that an answer is one of the sentences.

    Each token of an answer leads to the next one, because its embedding is one direction and
    the next token's output row the same; between several next tokens decides what else the
    model has read. Layers of all kinds stay in between, with random weights.

    Args:
        embeddings: Float [vocabulary, width] of an untied model; changed.
        head: Float [vocabulary, width], the output layer; changed.
        outputs: Weights through which attention and MLP add to the stream; changed.
        pieces: Ids a step of the answer may be, see :data:`emolib.rehearsal.words.ANSWER`.
        starts: Ids after which an answer begins: what a prompt's turn mark ends with.
        end: Id that ends an answer.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    width = embeddings.shape[1]
    basis, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    with torch.no_grad():
        for weight in outputs:
            weight.mul_(_RESIDUAL)
        head.mul_(0.02)
        steps = [starts, *pieces, [end]]
        known = basis[: len(steps)]
        for number, (now, following) in enumerate(pairwise(steps)):
            direction = basis[number]
            embeddings[now] = (direction * width**0.5).to(embeddings.dtype)
            for token in following:
                choice = torch.randn(width, generator=generator)
                choice -= known.T @ (known @ choice)  # what leads to another step stays out
                row = _GAIN * direction + (_CHOICE * choice if len(following) > 1 else 0.0)
                head[token] = row.to(head.dtype)


def teach_model(model: Any, pieces: list[list[int]], starts: list[int], end: int) -> None:
    """Do the same to a causal language model of transformers, as long as it is not tied."""
    teach(
        model.get_input_embeddings().weight,
        model.get_output_embeddings().weight,
        [weight for name, weight in model.named_parameters() if name.endswith(_OUT)],
        *(pieces, starts, end),
    )


def piece_ids(vocabulary: Mapping[str, int], written: Callable[[str], str]) -> list[list[int]]:
    """Ids of the answer's pieces: ``written`` turns a text into its entry of the vocabulary."""
    return [[vocabulary[written(piece)] for piece in choices] for choices in ANSWER]
