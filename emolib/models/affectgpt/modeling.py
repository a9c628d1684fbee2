"""AffectGPT: frozen image and audio towers, two trained Q-Former branches, a frozen LLM.

Library classes do the work: BLIP-2's vision tower and Q-Formers, any causal language model.
Written here: the audio tower (:mod:`emolib.models.affectgpt.audio`), the branches, and the
placement of their tokens.

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

from emolib.models.affectgpt.audio import ImageBindAudioModel
from emolib.models.affectgpt.branch import AffectGPTBranch, AffectGPTQFormer, AffectGPTVisionModel
from emolib.models.affectgpt.configuration import AffectGPTConfig, AffectGPTQFormerConfig

TRAINED = ("video_branch", "audio_branch")
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
    # Trained weights stay in fp32 whatever the towers use, as in the published recipe.
    _keep_in_fp32_modules_strict = ("image_qformer", "video_branch", "audio_branch")


class AffectGPTForConditionalGeneration(AffectGPTPreTrainedModel, GenerationMixin):
    """Video, audio and text in, text out; every sample may lack any of them.

    Media are packed: ``pixel_values_videos`` and ``input_features`` hold only the samples
    that have a video or audio, in batch order. Where they go is told by the placeholders in
    ``input_ids``: a run of ``num_query_tokens`` placeholder ids per video or audio.

    Cost: the image tower dominates (1 G parameters a frame); then the LLM.
    """

    def __init__(self, config: AffectGPTConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        # Asked-for flash attention reaches the towers and the LLM only.
        for qformer in (
            config.image_qformer_config,
            config.video_qformer_config,
            config.audio_qformer_config,
        ):
            if "flash" in (qformer._attn_implementation or ""):
                qformer._attn_implementation = "sdpa"
        self.vision_tower = AffectGPTVisionModel._from_config(config.vision_config)
        self.image_qformer = AffectGPTQFormer._from_config(config.image_qformer_config)
        self.video_branch = AffectGPTBranch(config.video_qformer_config, config.max_frames, width)
        self.audio_tower = ImageBindAudioModel._from_config(config.audio_config)
        self.audio_branch = AffectGPTBranch(config.audio_qformer_config, config.max_clips, width)
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
        """Leave exactly the paper's trainable set trainable: both branches, nothing else.

        Returns:
            Names of the trainable parameters: 116 tensors, 44,959,744 numbers at the
            published sizes.

        Raises:
            RuntimeError: the branches hold other tensors than published (adapters, ties).
        """
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINED))
        self.train(self.training)
        trained = [name for name, p in self.named_parameters() if p.requires_grad]
        configs = (self.config.video_qformer_config, self.config.audio_qformer_config)
        expected = sum(_branch_tensors(config) for config in configs)
        if len(trained) != expected:
            raise RuntimeError(
                f"{len(trained)} trainable tensors in {TRAINED}, the published set has {expected}: "
                "freeze before adding adapters"
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
            for name in FROZEN:
                part = getattr(self, name)
                if any(parameter.requires_grad for parameter in part.parameters()):
                    continue
                part.eval()
                if name == "language_model":
                    for module in part.modules():
                        if isinstance(module, GradientCheckpointingLayer):
                            module.training = module.gradient_checkpointing
        return self

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        super().gradient_checkpointing_enable(*args, **kwargs)
        self.train(self.training)

    # Towers --------------------------------------------------------------------------------

    def encode_frames(
        self, pixel_values_videos: torch.Tensor, video_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Frozen image tower and image Q-Former, frame by frame.

        Args:
            pixel_values_videos: float [n, frames, 3, height, width], normalised.
            video_mask: bool [n, frames]; only True frames are computed, others are zeros.

        Returns:
            float [n, frames, image queries, image Q-Former width].
        """
        n, frames = pixel_values_videos.shape[:2]
        pixels = pixel_values_videos.flatten(0, 1)
        keep = None if video_mask is None else video_mask.flatten().bool()
        with _grad_if_trained(self.vision_tower, self.image_qformer):
            states = self.vision_tower(pixels if keep is None else pixels[keep]).last_hidden_state
            states = self.image_qformer.read(states)
        if keep is not None:
            full = states.new_zeros(n * frames, *states.shape[1:])
            full[keep] = states
            states = full
        return states.unflatten(0, (n, frames))

    def encode_clips(self, input_features: torch.Tensor) -> torch.Tensor:
        """Frozen audio tower, clip by clip.

        Args:
            input_features: float [n, clips, 1, mel bins, frames], normalised mel.

        Returns:
            float [n, clips, audio width].
        """
        with _grad_if_trained(self.audio_tower):
            states = self.audio_tower(input_features.flatten(0, 1))
        return states.unflatten(0, input_features.shape[:2])

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Language-model embeddings of videos: float [n, video queries, LLM width].

        ``frame_features`` (from :meth:`encode_frames`) replaces the pixels.
        """
        if frame_features is None:
            frame_features = self.encode_frames(pixel_values_videos, video_mask)
        return self.video_branch(frame_features, video_mask)

    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        clip_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Language-model embeddings of audio: float [n, audio queries, LLM width].

        ``clip_features`` (from :meth:`encode_clips`) replaces the mel.
        """
        if clip_features is None:
            clip_features = self.encode_clips(input_features)
        return self.audio_branch(clip_features[:, :, None])

    # Forward -------------------------------------------------------------------------------

    def embed(
        self,
        input_ids: torch.Tensor,
        video: torch.Tensor | None = None,
        audio: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Token embeddings with the placeholder rows overwritten.

        Args:
            input_ids: int [batch, length].
            video: Output of :meth:`get_video_features`, or None.
            audio: Output of :meth:`get_audio_features`, or None.

        Returns:
            float [batch, length, LLM width].

        Raises:
            ValueError: placeholders and media do not match.
        """
        embeds = self.get_input_embeddings()(input_ids)
        for kind, token, features, queries in (
            ("video", self.config.video_token_id, video, self.config.video_qformer_config),
            ("audio", self.config.audio_token_id, audio, self.config.audio_qformer_config),
        ):
            here = input_ids == token
            _check_placeholders(kind, here, features, queries.num_query_tokens)
            if features is not None:
                features = features.to(embeds.device, embeds.dtype)
                embeds = embeds.masked_scatter(here[..., None], features)
        return embeds

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
                inputs_embeds = self.embed(
                    input_ids,
                    self.get_video_features(pixel_values_videos, video_mask, frame_features)
                    if has_video
                    else None,
                    self.get_audio_features(input_features, clip_features) if has_audio else None,
                )
            else:
                inputs_embeds = self.get_input_embeddings()(input_ids)
        elif has_video or has_audio:
            raise ValueError("media go with input_ids, not with inputs_embeds")
        if self.training and torch.is_grad_enabled():
            for branch, used in ((self.video_branch, has_video), (self.audio_branch, has_audio)):
                if not used and any(p.requires_grad for p in branch.parameters()):
                    inputs_embeds = inputs_embeds + branch.zero_with_gradients().to(inputs_embeds)

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


def _branch_tensors(config: AffectGPTQFormerConfig) -> int:
    """Tensors of one branch: positions, queries, LayerNorm, projection, and the blocks."""
    layers = config.num_hidden_layers
    crossed = len(range(0, layers, config.cross_attention_frequency))
    return 6 + 16 * layers + 10 * crossed


def _grad_if_trained(*parts: nn.Module) -> torch.set_grad_enabled:
    """Frozen parts keep no activations."""
    trained = any(parameter.requires_grad for part in parts for parameter in part.parameters())
    return torch.set_grad_enabled(torch.is_grad_enabled() and trained)


def _check_placeholders(
    kind: str, here: torch.Tensor, features: torch.Tensor | None, queries: int
) -> None:
    """Every video or audio needs one unbroken run of ``queries`` placeholders."""
    starts = here.clone()
    starts[:, 1:] &= ~here[:, :-1]
    tokens, runs = torch.stack([here.sum(), starts.sum()]).tolist()
    given = 0 if features is None else len(features)
    if (tokens, runs) != (given * queries, given):
        raise ValueError(
            f"{given} {kind} inputs need {given} runs of {queries} {kind} placeholders, but "
            f"input_ids hold {tokens} in {runs} runs: build the ids with AffectGPTProcessor"
        )
