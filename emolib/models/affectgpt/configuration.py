"""Configuration of AffectGPT: five towers and a language model.

The defaults are the published sizes, so ``AffectGPTConfig()`` is the full-size model.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.models.blip_2.configuration_blip_2 import Blip2QFormerConfig, Blip2VisionConfig


@strict
class AffectGPTVisionConfig(Blip2VisionConfig):
    """EVA-ViT-g/14 without its last block, closed by a LayerNorm of its own epsilon.

    Attributes:
        post_layernorm_eps: Epsilon of the closing LayerNorm. BLIP-2's published code uses
            torch's default there and 1e-6 inside the blocks.
    """

    model_type = "affectgpt_vision"

    initializer_range: float = 0.02
    post_layernorm_eps: float = 1e-5


@strict
class AffectGPTQFormerConfig(Blip2QFormerConfig):
    """A Q-Former with its own queries.

    Attributes:
        num_query_tokens: Learned queries, hence output tokens.
    """

    model_type = "affectgpt_qformer"

    num_query_tokens: int = 32


@strict
class ImageBindAudioConfig(PreTrainedConfig):
    """The audio tower of ImageBind-Huge.

    Attributes:
        num_mel_bins: Height of the spectrogram.
        target_length: Width of the spectrogram in 10 ms frames (two seconds, padded).
        kernel_size: Side of the square patches, in spectrogram cells.
        stride: Step between patches; smaller than ``kernel_size``, so they overlap.
        output_size: Width of the joint embedding.
        layer_norm_eps: Epsilon of the blocks and the head.
        stem_layer_norm_eps: Epsilon of the LayerNorm after the patch projection.
        logit_scale: Length of the embedding after L2 normalisation.
    """

    model_type = "imagebind_audio"
    base_config_key = "audio_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_mel_bins: int = 128
    target_length: int = 204
    kernel_size: int = 16
    stride: int = 10
    output_size: int = 1024
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    stem_layer_norm_eps: float = 1e-5
    logit_scale: float = 20.0
    attention_dropout: float = 0.0
    initializer_range: float = 0.02

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Patches along frequency and time: (12, 19) at the published sizes."""
        rows = (self.num_mel_bins - self.kernel_size) // self.stride + 1
        columns = (self.target_length - self.kernel_size) // self.stride + 1
        return rows, columns


_QFORMERS: dict[str, dict[str, int]] = {
    "image_qformer_config": {},
    "video_qformer_config": {
        "num_hidden_layers": 2,
        "cross_attention_frequency": 1,
        "encoder_hidden_size": 768,
    },
    "audio_qformer_config": {
        "num_hidden_layers": 2,
        "cross_attention_frequency": 1,
        "encoder_hidden_size": 1024,
        "num_query_tokens": 8,
    },
}


@strict
class AffectGPTConfig(PreTrainedConfig):
    """AffectGPT, version of 2024.

    Attributes:
        vision_config: Per-frame image tower (frozen).
        image_qformer_config: BLIP-2's Q-Former, 32 tokens a frame (frozen).
        video_qformer_config: Reads all frames' tokens (trained).
        audio_config: Per-clip audio tower (frozen).
        audio_qformer_config: Reads all clips' embeddings (trained).
        text_config: Any decoder-only language model (frozen).
        max_frames: Rows of the frame position embedding.
        max_clips: Rows of the audio clip position embedding.
        video_token_id: Id of ``<ImageHere>``, the placeholder of images and videos.
        audio_token_id: Id of ``<AudioHere>``.
        suppressed_token_ids: Vocabulary rows that conversion added. They have no trained
            output weights, so they take no part in the softmax and are never generated.
    """

    model_type = "affectgpt"
    sub_configs = {  # noqa: RUF012  (the library's own convention)
        "vision_config": AffectGPTVisionConfig,
        "image_qformer_config": AffectGPTQFormerConfig,
        "video_qformer_config": AffectGPTQFormerConfig,
        "audio_config": ImageBindAudioConfig,
        "audio_qformer_config": AffectGPTQFormerConfig,
        "text_config": AutoConfig,
    }

    # Given as dictionaries, configurations or not at all; configurations from then on.
    vision_config: Any = None
    image_qformer_config: Any = None
    video_qformer_config: Any = None
    audio_config: Any = None
    audio_qformer_config: Any = None
    text_config: Any = None
    max_frames: int = 32
    max_clips: int = 8
    video_token_id: int = 32000
    audio_token_id: int = 32001
    suppressed_token_ids: list[int] | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn dictionaries into configurations, fill in what is missing, check that all fit."""
        if self.suppressed_token_ids is None:
            self.suppressed_token_ids = [self.video_token_id, self.audio_token_id]
        self.vision_config = _built(AffectGPTVisionConfig, self.vision_config)
        self.audio_config = _built(ImageBindAudioConfig, self.audio_config)
        for name, defaults in _QFORMERS.items():
            value = getattr(self, name)
            if isinstance(value, dict) or value is None:
                value = AffectGPTQFormerConfig(**{**defaults, **(value or {})})
            setattr(self, name, value)
        if isinstance(self.text_config, dict):
            kind = self.text_config.get("model_type", "llama")
            self.text_config = CONFIG_MAPPING[kind](**self.text_config)
        elif self.text_config is None:
            # Vicuna-7B v0 with its [PAD] row left out and the two placeholders added.
            self.text_config = CONFIG_MAPPING["llama"](
                vocab_size=32002, max_position_embeddings=2048, rms_norm_eps=1e-6, pad_token_id=2
            )
        super().__post_init__(**kwargs)
        self._check_widths()

    def _check_widths(self) -> None:
        pairs = (
            ("image_qformer_config", self.vision_config.hidden_size, "vision_config.hidden_size"),
            (
                "video_qformer_config",
                self.image_qformer_config.hidden_size,
                "image_qformer_config.hidden_size",
            ),
            ("audio_qformer_config", self.audio_config.output_size, "audio_config.output_size"),
        )
        for name, width, origin in pairs:
            got = getattr(self, name).encoder_hidden_size
            if got != width:
                raise ValueError(
                    f"{name}.encoder_hidden_size is {got} but {origin} is {width}: make them equal"
                )


def _built(kind: type[PreTrainedConfig], value: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    return kind(**(value or {})) if isinstance(value, dict) or value is None else value
