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
            query_embeds=self.query_tokens.expand(len(states), -1, -1),
            encoder_hidden_states=states.to(self.query_tokens.dtype),
            encoder_attention_mask=mask,
        ).last_hidden_state


class AffectGPTBranch(nn.Module):
    """The trained part of one modality: positions, Q-Former, projection to the LLM."""

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
        positions, tokens = states.shape[1:3]
        if positions > self.position_embedding.num_embeddings:
            raise ValueError(
                f"{positions} frames or clips given, at most "
                f"{self.position_embedding.num_embeddings} have a position: sample fewer"
            )
        where = torch.arange(positions, device=states.device)
        states = states.to(self.projection.weight.dtype) + self.position_embedding(where)[:, None]
        if mask is not None:
            mask = mask.bool().repeat_interleave(tokens, dim=1)
        return self.projection(self.qformer.read(states.flatten(1, 2), mask))

    def zero_with_gradients(self) -> torch.Tensor:
        """A zero scalar with a (zero) gradient for every parameter of the branch.

        Added to the embeddings of a batch that lacks the modality, so that every rank of a
        distributed run reduces the same gradients whatever its batch holds.
        """
        width = self.position_embedding.embedding_dim
        nothing = self.projection.weight.new_zeros(1, 1, 1, width)
        return self(nothing).sum() * 0.0
