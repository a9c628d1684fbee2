"""The audio tower of ImageBind: a small pre-LayerNorm transformer over mel patches.

In no library, so written here from its description. Weights are CC-BY-NC-SA 4.0.

Source: ImageBind (Girdhar et al., CVPR 2023); checked against the published numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from emolib.models.affectgpt.configuration import ImageBindAudioConfig


class ImageBindAudioEmbeddings(nn.Module):
    """Overlapping patches of a mel spectrogram, a class token and positions."""

    def __init__(self, config: ImageBindAudioConfig) -> None:
        super().__init__()
        rows, columns = config.patch_grid
        width = config.hidden_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.projection = nn.Conv2d(1, width, config.kernel_size, config.stride, bias=False)
        self.norm = nn.LayerNorm(width, eps=config.stem_layer_norm_eps)
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + rows * columns, width))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Mel [n, 1, bins, frames] -> tokens [n, 1 + patches, width]."""
        patches = self.projection(mel.to(self.projection.weight.dtype)).flatten(2).transpose(1, 2)
        cls_token = self.cls_token.expand(len(mel), -1, -1)
        return torch.cat([cls_token, self.norm(patches)], dim=1) + self.position_embedding


class ImageBindAudioAttention(nn.Module):
    """Self-attention in which every query also sees one learned key and value."""

    def __init__(self, config: ImageBindAudioConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.head_dim = width // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = False
        self.qkv = nn.Linear(width, 3 * width)
        self.bias_k = nn.Parameter(torch.zeros(1, 1, width))
        self.bias_v = nn.Parameter(torch.zeros(1, 1, width))
        self.projection = nn.Linear(width, width)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """[n, tokens, width] -> the same shape."""
        n, tokens, width = hidden_states.shape
        query, key, value = self.qkv(hidden_states).chunk(3, dim=-1)
        key = torch.cat([key, self.bias_k.expand(n, -1, -1)], dim=1)
        value = torch.cat([value, self.bias_v.expand(n, -1, -1)], dim=1)
        heads = [
            states.view(n, -1, width // self.head_dim, self.head_dim).transpose(1, 2)
            for states in (query, key, value)
        ]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, _eager_attention
        )
        dropout = self.attention_dropout if self.training else 0.0
        mixed, _ = attend(self, *heads, None, dropout=dropout, scaling=self.scaling, **kwargs)
        return self.projection(mixed.reshape(n, tokens, width))


def _eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    weights = (query @ key.transpose(-1, -2) * scaling).softmax(dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


class ImageBindAudioLayer(GradientCheckpointingLayer):
    """One pre-LayerNorm transformer block."""

    def __init__(self, config: ImageBindAudioConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = ImageBindAudioAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """[n, tokens, width] -> the same shape."""
        hidden_states = hidden_states + self.attention(self.norm1(hidden_states), **kwargs)
        return hidden_states + self.fc2(self.activation(self.fc1(self.norm2(hidden_states))))


class ImageBindAudioModel(PreTrainedModel):
    """Mel spectrograms of two-second clips -> embeddings in ImageBind's joint space.

    There is no drop-path: the published code leaves it active in this frozen tower while
    training, which makes the features of a clip change from step to step.
    """

    config: ImageBindAudioConfig
    config_class = ImageBindAudioConfig
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ("ImageBindAudioLayer", "ImageBindAudioEmbeddings")

    def __init__(self, config: ImageBindAudioConfig) -> None:
        super().__init__(config)
        self.embeddings = ImageBindAudioEmbeddings(config)
        self.layers = nn.ModuleList(
            [ImageBindAudioLayer(config) for _ in range(config.num_hidden_layers)]
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, config.output_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, ImageBindAudioEmbeddings):
            init.normal_(module.cls_token, std=std)
            init.normal_(module.position_embedding, std=std)
        elif isinstance(module, ImageBindAudioAttention):
            init.normal_(module.bias_k, std=std)
            init.normal_(module.bias_v, std=std)

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding."""
        return self.embeddings

    def forward(self, input_features: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Embed clips.

        Args:
            input_features: float [n, 1, mel bins, frames], normalised mel.
            **kwargs: Passed on to the attention function.

        Returns:
            float [n, output_size], each row of length ``logit_scale``.
        """
        hidden_states = self.embeddings(input_features)
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        pooled = self.projection(self.norm(hidden_states[:, 0]))
        return nn.functional.normalize(pooled, dim=-1) * self.config.logit_scale
