"""The library's parts with what AffectGPT changes in them, and a trained branch made of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel, Blip2VisionModel

from emolib.models.affectgpt.configuration import AffectGPTQFormerConfig, AffectGPTVisionConfig


class AffectGPTVisionModel(Blip2VisionModel):
    """EVA-ViT-g/14 as BLIP-2 uses it, with the published epsilon of the last LayerNorm."""

    config: AffectGPTVisionConfig
    config_class = AffectGPTVisionConfig

    def __init__(self, config: AffectGPTVisionConfig) -> None:
        super().__init__(config)
        self.post_layernorm.eps = config.post_layernorm_eps


class AffectGPTQFormer(Blip2QFormerModel):
    """BLIP-2's Q-Former with its own learned queries."""

    config: AffectGPTQFormerConfig
    config_class = AffectGPTQFormerConfig

    def __init__(self, config: AffectGPTQFormerConfig) -> None:
        super().__init__(config)
        self.query_tokens = nn.Parameter(
            torch.zeros(1, config.num_query_tokens, config.hidden_size)
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AffectGPTQFormer):
            init.normal_(module.query_tokens, std=self.config.initializer_range)

    def get_correct_attn_implementation(
        self, requested_attention: str | None, *args: Any, **kwargs: Any
    ) -> str:
        """The requested attention, or SDPA where flash was asked for: Q-Formers stay in fp32."""
        if requested_attention is not None and "flash" in requested_attention:
            requested_attention = "sdpa"
        return super().get_correct_attn_implementation(requested_attention, *args, **kwargs)

    def read(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Let the queries read a sequence.

        Args:
            states: float [n, length, encoder_hidden_size].
            mask: bool [n, length], True where there is something; None: everywhere.

        Returns:
            float [n, num_query_tokens, hidden_size].
        """
        return self(
            encoder_hidden_states=states.to(self.query_tokens.dtype), encoder_attention_mask=mask
        ).last_hidden_state

    def forward(self, query_embeds: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """As the library's; without ``query_embeds`` the learned queries read."""
        # Taken here, not by the caller: an offloaded module has its weights only in its forward.
        if query_embeds is None:
            n = len(kwargs["encoder_hidden_states"])
            query_embeds = self.query_tokens.expand(n, -1, -1)
        return super().forward(query_embeds=query_embeds, **kwargs)


class AffectGPTBranch(nn.Module):
    """The trained part of one modality, design of 2024: positions, Q-Former, projection."""

    def __init__(self, config: AffectGPTQFormerConfig, positions: int, width: int) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(positions, config.encoder_hidden_size)
        self.qformer = AffectGPTQFormer._from_config(config)
        self.projection = nn.Linear(config.hidden_size, width)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Turn a tower's features into language-model embeddings.

        Args:
            states: float [n, positions, tokens, encoder_hidden_size]; a position is a frame
                or an audio clip.
            mask: bool [n, positions], True for real positions; None: all are real.

        Returns:
            float [n, num_query_tokens, LLM width].
        """
        states = states.to(self.projection.weight.dtype)
        states = states + positions_of(self.position_embedding, states)[:, None]
        if mask is not None:
            mask = mask.bool().repeat_interleave(states.shape[2], dim=1)
        return self.projection(self.qformer.read(states.flatten(1, 2), mask))

    def pool(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The mean of a tower's features, for pre-fusion: float [n, width]."""
        return masked_mean(states.to(self.projection.weight.dtype), mask)

    def zero_with_gradients(self) -> torch.Tensor:
        """A zero scalar with a (zero) gradient for every parameter of the branch.

        Added to the embeddings of a batch that lacks the modality, so that every rank of a
        distributed run reduces the same gradients whatever its batch holds.
        """
        width = self.position_embedding.embedding_dim
        return self(self.projection.weight.new_zeros(1, 1, 1, width)).sum() * 0.0


def positions_of(embedding: nn.Embedding, states: torch.Tensor) -> torch.Tensor:
    """Vectors of the positions in ``states`` [n, positions, ...]: float [positions, width].

    Raises:
        ValueError: there are not as many.
    """
    count = states.shape[1]
    if count > embedding.num_embeddings:
        raise ValueError(
            f"{count} frames or clips given, at most {embedding.num_embeddings} have a position: "
            "sample fewer"
        )
    return embedding(torch.arange(count, device=states.device))


def masked_mean(states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over real positions and their tokens.

    Args:
        states: float [n, positions, tokens, width].
        mask: bool [n, positions]; None: all are real.

    Returns:
        float [n, width].
    """
    vectors = states.mean(2)
    if mask is None:
        return vectors.mean(1)
    real = mask.to(vectors.dtype)[..., None]
    return (vectors * real).sum(1) / real.sum(1)
