"""AffectGPT: frozen image and audio towers, trained branches, a language model.

Library classes do the work: BLIP-2's vision tower and Q-Formers or CLIP and HuBERT, any causal
language model. Written here: ImageBind's audio tower (:mod:`emolib.models.affectgpt.audio`), the
branches, pre-fusion, and the placement of their tokens.

Source: the AffectGPT paper (arXiv 2306.15401 and 2407.07653) and arXiv 2408.11286,
section 2.2; numbers checked against those of the published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Cache, GenerationMixin, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from emolib.models.affectgpt.branch import AffectGPTQFormer
from emolib.models.affectgpt.configuration import AffectGPTConfig
from emolib.models.affectgpt.encoding import MediaMixin
from emolib.models.affectgpt.fusion import branch_tensors, build_branch
from emolib.models.affectgpt.towers import AUDIO_TOWERS, VISION_TOWERS

TRAINED = ("video_branch", "audio_branch", "multi_branch")
LORA = ".lora_"  # in the names of the language model's adapters
MEDIA = ("pixel_values_videos", "video_mask", "input_features", "frame_features", "clip_features")
FROZEN = ("vision_tower", "image_qformer", "audio_tower", "language_model")


@dataclass
class AffectGPTOutput(CausalLMOutputWithPast):
    """What :class:`AffectGPTForConditionalGeneration` gives: see ``CausalLMOutputWithPast``."""


class AffectGPTPreTrainedModel(PreTrainedModel):
    """Loading, saving, initialising."""

    config: AffectGPTConfig
    config_class = AffectGPTConfig
    base_model_prefix = ""
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = "past_key_values"
    # Each small enough for one device; towers and language model bring their own.
    _no_split_modules = (
        "AffectGPTQFormer",
        "AffectGPTBranch",
        "PooledBranch",
        "AttentionPreFusion",
        "QFormerPreFusion",
    )
    # Trained weights stay in fp32 whatever the towers use, as in the published recipe.
    _keep_in_fp32_modules_strict = ("image_qformer", *TRAINED)


class AffectGPTForConditionalGeneration(MediaMixin, AffectGPTPreTrainedModel, GenerationMixin):
    """Video, audio and text in, text out; every sample may lack any of them.

    Media are packed: ``pixel_values_videos`` and ``input_features`` hold only the samples
    that have a video or audio, in batch order. Where they go is told by the placeholders in
    ``input_ids``: a run of ``num_query_tokens`` placeholder ids per video or audio.

    Cost: the image tower dominates (1 G parameters a frame); then the LLM.
    """

    def __init__(self, config: AffectGPTConfig) -> None:
        super().__init__(config)
        # Asked-for flash attention reaches the towers and the LLM only.
        for name in ("image", "video", "audio", "multi"):
            qformer = getattr(config, f"{name}_qformer_config")
            if qformer is not None and "flash" in (qformer._attn_implementation or ""):
                qformer._attn_implementation = "sdpa"
        vision, audio = config.vision_config, config.audio_config
        self.vision_tower = VISION_TOWERS[vision.model_type]._from_config(vision)
        if not config.pooled_frames:
            self.image_qformer = AffectGPTQFormer._from_config(config.image_qformer_config)
        self.video_branch = build_branch(config, "video_branch")
        self.audio_tower = AUDIO_TOWERS[audio.model_type]._from_config(audio)
        self.audio_branch = build_branch(config, "audio_branch")
        if config.pre_fusion != "none":
            self.multi_branch = build_branch(config, "multi_branch")
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    # Embeddings and modes ------------------------------------------------------------------

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embedding."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's output layer."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the language model's output layer."""
        self.language_model.set_output_embeddings(new_embeddings)

    def freeze_towers(self) -> list[str]:
        """Leave exactly the paper's trainable set trainable: the branches, and LoRA if added.

        Returns:
            Names of the trainable parameters: in the design of 2024 116 tensors, 44,959,744
            numbers at the published sizes.

        Raises:
            RuntimeError: the branches hold other tensors than the design has (adapters, ties).
        """
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINED) or _is_lora(name))
        self.train(self.training)
        trained = [name for name, p in self.named_parameters() if p.requires_grad]
        own = [name for name in trained if not _is_lora(name)]
        if len(own) != (expected := branch_tensors(self.config)):
            raise RuntimeError(
                f"{len(own)} trainable tensors in {TRAINED}, the design has {expected}: adapters "
                "belong into the language model only"
            )
        return trained

    def train(self, mode: bool = True) -> AffectGPTForConditionalGeneration:
        """Switch mode; frozen parts always stay in evaluation mode (no dropout).

        Gradients flow through the frozen language model, and gradient checkpointing asks
        each of its blocks for its own ``training`` flag: with checkpointing on, the blocks
        keep that one flag, and nothing inside them does.
        """
        super().train(mode)
        if mode:
            for part in self.parts(FROZEN):
                if any(parameter.requires_grad for parameter in part.parameters()):
                    continue
                part.eval()
                if part is self.language_model:
                    for module in part.modules():
                        if isinstance(module, GradientCheckpointingLayer):
                            module.training = module.gradient_checkpointing
        return self

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        super().gradient_checkpointing_enable(*args, **kwargs)
        self.train(self.training)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
        clip_features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> AffectGPTOutput:
        """Next-token logits, and the loss when ``labels`` are given.

        Args:
            input_ids: int [batch, length] with runs of placeholder ids.
            attention_mask: int [batch, length], 0 on padding of either side.
            position_ids: int [batch, length]; None: 0, 1, 2, … in every row.
            past_key_values: Cache of earlier tokens; media belong to the first call only.
            inputs_embeds: float [batch, length, LLM width] instead of ``input_ids`` and media.
            pixel_values_videos: float [videos, frames, 3, height, width].
            video_mask: bool [videos, frames], for videos of differing length.
            input_features: float [audios, clips, 1, mel bins, frames].
            frame_features: Output of :meth:`encode_frames`, instead of pixels.
            clip_features: Output of :meth:`encode_clips`, instead of mel.
            labels: int [batch, length], -100 where nothing is supervised.
            use_cache: Keep keys and values; off by default when ``labels`` are given.
            logits_to_keep: Compute only the last so many logits (0: all).
            **kwargs: For the language model and the loss (``num_items_in_batch``).

        Raises:
            ValueError: placeholders and media do not match, or both ids and embeddings given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        has_video = pixel_values_videos is not None or frame_features is not None
        has_audio = input_features is not None or clip_features is not None
        if inputs_embeds is None:
            if past_key_values is None or past_key_values.get_seq_length() == 0:
                if frame_features is None and has_video:
                    frame_features = self.encode_frames(pixel_values_videos, video_mask)
                if clip_features is None and has_audio:
                    clip_features = self.encode_clips(input_features)
                inputs_embeds = self.embed(input_ids, frame_features, video_mask, clip_features)
            else:
                inputs_embeds = self.get_input_embeddings()(input_ids)
        elif has_video or has_audio:
            raise ValueError("media go with input_ids, not with inputs_embeds")
        if self.training and torch.is_grad_enabled():
            for zero in self.untouched(has_video, has_audio):
                inputs_embeds = inputs_embeds + zero.to(inputs_embeds)

        loss_kwargs = {key: kwargs.pop(key) for key in ("num_items_in_batch",) if key in kwargs}
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=False if use_cache is None and labels is not None else use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        logits = outputs.logits
        for token in self.config.suppressed_token_ids or ():  # in place: logits are large
            logits[..., token] = torch.finfo(logits.dtype).min
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=logits.shape[-1], **loss_kwargs
            )
        return AffectGPTOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Hand the media to the first step only; later steps find them in the cache."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in MEDIA:
                inputs.pop(name, None)
        return inputs


def _is_lora(name: str) -> bool:
    return name.startswith("language_model.") and LORA in name
