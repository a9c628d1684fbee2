"""Configuration of AffectGPT: towers, branches and a language model.

The defaults are the published sizes of 2024: ``AffectGPTConfig()`` is that full-size model.
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


# Image towers that give one vector a frame, and audio towers that read waveforms.
POOLED_TOWERS = ("clip_vision_model", "siglip_vision_model", "dinov2")
WAVE_TOWERS = ("hubert", "wav2vec2", "wavlm")
FUSIONS = ("qformer", "attention", "mean")
PRE_FUSIONS = ("none", "attention", "qformer")

# What a Q-Former is when nothing is said of it; its width of input follows from its tower.
_BRANCH = {"num_hidden_layers": 2, "cross_attention_frequency": 1}
_QUERIES = {"video": 32, "audio": 8, "multi": 32}


@strict
class AffectGPTConfig(PreTrainedConfig):
    """AffectGPT: the design of 2024 by default, that of 2025 by other parts.

    2024: EVA-ViT-g and BLIP-2's Q-Former, ImageBind, Q-Former branches, LLaMA. 2025: CLIP-L,
    HuBERT-large, branches and pre-fusion by attention, Qwen2.5
    (:func:`emolib.models.affectgpt.assemble.assemble` puts it together).

    Attributes:
        vision_config: Per-frame image tower (frozen): "affectgpt_vision", or one of
            :data:`POOLED_TOWERS`, which gives one vector a frame and has no image Q-Former.
        image_qformer_config: BLIP-2's Q-Former, 32 tokens a frame (frozen); None with a tower
            that gives one vector.
        video_qformer_config: Reads all frames' tokens (trained); None unless ``fusion`` is
            "qformer".
        audio_config: Per-clip audio tower (frozen): "imagebind_audio" on mel spectrograms, or
            one of :data:`WAVE_TOWERS` on waveforms.
        audio_qformer_config: Reads all clips' vectors (trained); as ``video_qformer_config``.
        multi_qformer_config: Reads frames and clips together (trained); None unless
            ``pre_fusion`` is "qformer".
        text_config: Any decoder-only language model (frozen, or with LoRA).
        fusion: How a branch makes tokens of its tower's vectors: "qformer", or one token by a
            learned weighted sum ("attention") or by the mean.
        pre_fusion: Whether video and audio are also fused before the language model:
            "none", "attention" (one token) or "qformer".
        pre_fusion_size: Width in which they are.
        audio_layers: Last hidden layers averaged; waveform towers only.
        max_frames: Rows of the frame position embedding.
        max_clips: Rows of the audio clip position embedding.
        video_token_id: Id of ``<ImageHere>``, the placeholder of images and videos.
        audio_token_id: Id of ``<AudioHere>``.
        multi_token_id: Id of ``<MultiHere>``, the placeholder of pre-fused video and audio;
            None without pre-fusion.
        suppressed_token_ids: Vocabulary rows that conversion added. They have no trained
            output weights, so they take no part in the softmax and are never generated.

    Raises:
        ValueError: unknown kinds of towers or fusion, or widths that do not fit.
    """

    model_type = "affectgpt"
    sub_configs = {  # noqa: RUF012  (the library's own convention)
        "vision_config": AutoConfig,
        "image_qformer_config": AffectGPTQFormerConfig,
        "video_qformer_config": AffectGPTQFormerConfig,
        "audio_config": AutoConfig,
        "audio_qformer_config": AffectGPTQFormerConfig,
        "multi_qformer_config": AffectGPTQFormerConfig,
        "text_config": AutoConfig,
    }

    # Given as dictionaries, configurations or not at all; configurations or None from then on.
    vision_config: Any = None
    image_qformer_config: Any = None
    video_qformer_config: Any = None
    audio_config: Any = None
    audio_qformer_config: Any = None
    multi_qformer_config: Any = None
    text_config: Any = None
    fusion: str = "qformer"
    pre_fusion: str = "none"
    pre_fusion_size: int = 1024
    audio_layers: int = 4
    max_frames: int = 32
    max_clips: int = 8
    video_token_id: int = 32000
    audio_token_id: int = 32001
    multi_token_id: int | None = None
    suppressed_token_ids: list[int] | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn dictionaries into configurations, fill in what is missing, check that all fit."""
        for name, choices in (("fusion", FUSIONS), ("pre_fusion", PRE_FUSIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose from {choices}")
        if (self.pre_fusion == "none") is not (self.multi_token_id is None):
            raise ValueError("multi_token_id goes with pre_fusion: give both or none")
        if self.suppressed_token_ids is None:
            ids = (self.video_token_id, self.audio_token_id, self.multi_token_id)
            self.suppressed_token_ids = [token for token in ids if token is not None]
        self.vision_config = _tower(
            self.vision_config, AffectGPTVisionConfig, POOLED_TOWERS, "vision_config"
        )
        self.audio_config = _tower(
            self.audio_config, ImageBindAudioConfig, WAVE_TOWERS, "audio_config"
        )
        if not self.pooled_frames:
            self.image_qformer_config = _qformer(self.image_qformer_config, {})
        elif self.image_qformer_config is not None:
            kind = self.vision_config.model_type
            raise ValueError(f"image_qformer_config: {kind} gives one vector a frame; leave it out")
        widths = {
            "video": self.frame_width,
            "audio": self.clip_width,
            "multi": self.pre_fusion_size,
        }
        for name, width in widths.items():
            how = self.pre_fusion if name == "multi" else self.fusion
            given = getattr(self, f"{name}_qformer_config")
            defaults = {
                **_BRANCH,
                "encoder_hidden_size": width,
                "num_query_tokens": _QUERIES[name],
            }
            built = _qformer(given, defaults) if how == "qformer" else None
            setattr(self, f"{name}_qformer_config", built)
        if isinstance(self.text_config, dict):
            kind = self.text_config.get("model_type", "llama")
            self.text_config = CONFIG_MAPPING[kind](**self.text_config)
        elif self.text_config is None:
            # Vicuna-7B v0 with its [PAD] row left out and the two placeholders added.
            self.text_config = CONFIG_MAPPING["llama"](
                vocab_size=32002, max_position_embeddings=2048, rms_norm_eps=1e-6, pad_token_id=2
            )
        super().__post_init__(**kwargs)
        self._check_widths(widths)

    @property
    def pooled_frames(self) -> bool:
        """The image tower gives one vector a frame, not patches for an image Q-Former."""
        return self.vision_config.model_type in POOLED_TOWERS

    @property
    def waveforms(self) -> bool:
        """The audio tower reads waveforms, not mel spectrograms."""
        return self.audio_config.model_type in WAVE_TOWERS

    @property
    def frame_width(self) -> int:
        """Width of what the video branch reads."""
        if not self.pooled_frames:
            return self.image_qformer_config.hidden_size
        if self.vision_config.model_type == "clip_vision_model":
            return self.vision_config.projection_dim
        return self.vision_config.hidden_size

    @property
    def clip_width(self) -> int:
        """Width of what the audio branch reads."""
        return self.audio_config.hidden_size if self.waveforms else self.audio_config.output_size

    @property
    def video_tokens(self) -> int:
        """Language-model tokens of a video."""
        config = self.video_qformer_config
        return 1 if config is None else config.num_query_tokens

    @property
    def audio_tokens(self) -> int:
        """Language-model tokens of an audio."""
        config = self.audio_qformer_config
        return 1 if config is None else config.num_query_tokens

    @property
    def multi_tokens(self) -> int:
        """Language-model tokens of pre-fused video and audio; 0 without pre-fusion."""
        config = self.multi_qformer_config
        return int(self.pre_fusion != "none") if config is None else config.num_query_tokens

    def _check_widths(self, widths: dict[str, int]) -> None:
        wanted = {f"{name}_qformer_config": (width, name) for name, width in widths.items()}
        wanted["image_qformer_config"] = (self.vision_config.hidden_size, "vision_config")
        origins = {
            "video": "what is made of a frame",
            "audio": "what is made of an audio clip",
            "multi": "pre_fusion_size",
        }
        for name, (width, origin) in wanted.items():
            config = getattr(self, name)
            if config is not None and config.encoder_hidden_size != width:
                raise ValueError(
                    f"{name}.encoder_hidden_size is {config.encoder_hidden_size} but "
                    f"{origins.get(origin, 'vision_config.hidden_size')} is {width} wide: "
                    "make them equal"
                )


def _tower(
    value: Any, default: type[PreTrainedConfig], others: tuple[str, ...], name: str
) -> PreTrainedConfig:
    if value is None:
        return default()
    if not isinstance(value, dict):
        kind = value.model_type
    elif (kind := value.get("model_type", default.model_type)) == default.model_type:
        value = default(**value)
    elif kind in others:
        value = CONFIG_MAPPING[kind](**value)
    if kind not in (default.model_type, *others):
        raise ValueError(f"{name}: {kind!r}: choose from {(default.model_type, *others)}")
    return value


def _qformer(value: Any, defaults: dict[str, Any]) -> AffectGPTQFormerConfig:
    if isinstance(value, dict) or value is None:
        return AffectGPTQFormerConfig(**{**defaults, **(value or {})})
    return value
