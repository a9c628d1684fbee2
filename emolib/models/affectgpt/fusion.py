"""The trained parts of the design of 2025: one token a modality, and pre-fusion of two.

Source: the AffectGPT paper of 2025 (arXiv 2501.16566). Its released code pools and fuses by
learned weights that are linear in the features, without a softmax; so does this. Weights are the
ones it lists, which is why there is nothing non-linear between two of its layers either.
"""

from __future__ import annotations

import torch
from torch import nn

from emolib.models.affectgpt.branch import (
    AffectGPTBranch,
    AffectGPTQFormer,
    masked_mean,
    positions_of,
)
from emolib.models.affectgpt.configuration import AffectGPTConfig


class PooledBranch(nn.Module):
    """The trained part of one modality: a weighted sum or mean over time, and a projection."""

    def __init__(self, fusion: str, inner: int, width: int) -> None:
        super().__init__()
        self.weighting = nn.Linear(inner, 1) if fusion == "attention" else None
        self.projection = nn.Linear(inner, width)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """As :meth:`AffectGPTBranch.forward`; float [n, 1, LLM width]."""
        return self.projection(self.pool(states, mask))[:, None]

    def pool(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """One vector of a tower's features.

        Args:
            states: float [n, positions, tokens, width].
            mask: bool [n, positions]; None: all are real.

        Returns:
            float [n, width].
        """
        states = states.to(self.projection.weight.dtype)
        if self.weighting is None:
            return masked_mean(states, mask)
        vectors = states.mean(2)
        weights = self.weighting(vectors)
        if mask is not None:
            weights = weights * mask.to(weights.dtype)[..., None]
        return (weights * vectors).sum(1)

    def zero_with_gradients(self) -> torch.Tensor:
        """As :meth:`AffectGPTBranch.zero_with_gradients`."""
        width = self.projection.in_features
        return self(self.projection.weight.new_zeros(1, 1, 1, width)).sum() * 0.0


class AttentionPreFusion(nn.Module):
    """Video's and audio's pooled vectors, weighted by what both say: one token."""

    def __init__(self, config: AffectGPTConfig, width: int) -> None:
        super().__init__()
        inner = config.pre_fusion_size
        self.video_embedding = nn.Linear(config.frame_width, inner)
        self.audio_embedding = nn.Linear(config.clip_width, inner)
        self.mixing = nn.Linear(2 * inner, inner)
        self.weighting = nn.Linear(inner, 2)
        self.projection = nn.Linear(inner, width)

    def forward(
        self,
        branches: tuple[nn.Module, nn.Module],
        frames: torch.Tensor,
        frame_mask: torch.Tensor | None,
        clips: torch.Tensor,
    ) -> torch.Tensor:
        """Fuse samples that have both.

        Args:
            branches: The video and the audio branch, which pool as they do for themselves.
            frames: float [n, frames, tokens, frame width].
            frame_mask: bool [n, frames]; None: all are real.
            clips: float [n, clips, clip width].

        Returns:
            float [n, 1, LLM width].
        """
        both = torch.stack(
            [
                self.audio_embedding(branches[1].pool(clips[:, :, None])),
                self.video_embedding(branches[0].pool(frames, frame_mask)),
            ],
            dim=1,
        )  # [n, 2, inner]
        weights = self.weighting(self.mixing(both.flatten(1)))
        return self.projection((weights[..., None] * both).sum(1))[:, None]

    def zero_with_gradients(self, branches: tuple[nn.Module, nn.Module]) -> torch.Tensor:
        """As :meth:`AffectGPTBranch.zero_with_gradients`."""
        return _touched(self, branches)


class QFormerPreFusion(nn.Module):
    """A Q-Former that reads all frames and all audio clips of a sample together."""

    def __init__(self, config: AffectGPTConfig, width: int) -> None:
        super().__init__()
        inner = config.pre_fusion_size
        self.video_embedding = nn.Linear(config.frame_width, inner)
        self.audio_embedding = nn.Linear(config.clip_width, inner)
        self.video_position = nn.Embedding(config.max_frames, inner)
        self.audio_position = nn.Embedding(config.max_clips, inner)
        self.qformer = AffectGPTQFormer._from_config(config.multi_qformer_config)
        self.projection = nn.Linear(config.multi_qformer_config.hidden_size, width)

    def forward(
        self,
        branches: tuple[nn.Module, nn.Module],
        frames: torch.Tensor,
        frame_mask: torch.Tensor | None,
        clips: torch.Tensor,
    ) -> torch.Tensor:
        """As :meth:`AttentionPreFusion.forward`; float [n, num_query_tokens, LLM width]."""
        n, _, tokens = frames.shape[:3]
        dtype = self.projection.weight.dtype
        seen = self.video_embedding(frames.to(dtype))
        seen = seen + positions_of(self.video_position, frames)[:, None]
        heard = self.audio_embedding(clips.to(dtype))
        heard = heard + positions_of(self.audio_position, clips)
        mask = None
        if frame_mask is not None:
            real = frame_mask.bool().repeat_interleave(tokens, dim=1)
            mask = torch.cat([real, real.new_ones(n, clips.shape[1])], dim=1)
        return self.projection(self.qformer.read(torch.cat([seen.flatten(1, 2), heard], 1), mask))

    def zero_with_gradients(self, branches: tuple[nn.Module, nn.Module]) -> torch.Tensor:
        """As :meth:`AffectGPTBranch.zero_with_gradients`."""
        return _touched(self, branches)


def _touched(
    fusion: AttentionPreFusion | QFormerPreFusion, branches: tuple[nn.Module, nn.Module]
) -> torch.Tensor:
    zeros = fusion.projection.weight.new_zeros
    frames = zeros(1, 1, 1, fusion.video_embedding.in_features)
    clips = zeros(1, 1, fusion.audio_embedding.in_features)
    return fusion(branches, frames, None, clips).sum() * 0.0


def build_branch(config: AffectGPTConfig, name: str) -> nn.Module:
    """One of a model's trained parts: "video_branch", "audio_branch" or "multi_branch"."""
    width = config.text_config.hidden_size
    if name == "multi_branch":
        kind = AttentionPreFusion if config.pre_fusion == "attention" else QFormerPreFusion
        return kind(config, width)
    video = name == "video_branch"
    qformer = config.video_qformer_config if video else config.audio_qformer_config
    if qformer is None:
        inner = config.frame_width if video else config.clip_width
        return PooledBranch(config.fusion, inner, width)
    return AffectGPTBranch(qformer, config.max_frames if video else config.max_clips, width)


def branch_tensors(config: AffectGPTConfig) -> int:
    """How many tensors a model's trained parts have: 116 in the design of 2024."""
    names = ("video_branch", "audio_branch")
    with torch.device("meta"):
        parts = [build_branch(config, name) for name in names]
        if config.pre_fusion != "none":
            parts.append(build_branch(config, "multi_branch"))
    return sum(len(list(part.parameters())) for part in parts)
