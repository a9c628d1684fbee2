"""Where video, audio and their pre-fusion go among a prompt's tokens."""

from __future__ import annotations

import torch


def rows_with(input_ids: torch.Tensor, *tokens: int | None) -> torch.Tensor:
    """Which rows hold any of these tokens: bool [batch]."""
    here = torch.zeros_like(input_ids, dtype=torch.bool)
    for token in tokens:
        if token is not None:
            here |= input_ids == token
    return here.any(dim=1)


def placed(
    embeds: torch.Tensor,
    input_ids: torch.Tensor,
    kind: str,
    token: int | None,
    features: torch.Tensor | None,
    count: int,
) -> torch.Tensor:
    """Overwrite a medium's placeholders with its embeddings.

    Args:
        embeds: float [batch, length, width].
        input_ids: int [batch, length].
        kind: "video", "audio" or "multi", for messages.
        token: The placeholder's id; None: the model has no such medium.
        features: float [media, count, width], in the order of the rows; None: none.
        count: Placeholders a medium takes.

    Returns:
        float [batch, length, width].

    Raises:
        ValueError: a medium does not have one unbroken run of ``count`` placeholders.
    """
    if token is None:
        return embeds
    here = input_ids == token
    starts = here.clone()
    starts[:, 1:] &= ~here[:, :-1]
    tokens, runs = torch.stack([here.sum(), starts.sum()]).tolist()
    given = 0 if features is None else len(features)
    if (tokens, runs) != (given * count, given):
        raise ValueError(
            f"{given} {kind} inputs need {given} runs of {count} {kind} placeholders, but "
            f"input_ids hold {tokens} in {runs} runs: build the ids with AffectGPTProcessor"
        )
    if features is None:
        return embeds
    here = here.to(embeds.device)[..., None]
    return embeds.masked_scatter(here, features.to(embeds.device, embeds.dtype))
