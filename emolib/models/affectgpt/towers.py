"""The frozen image and audio towers: any of several architectures behind one call each.

Image: EVA-ViT-g with BLIP-2's Q-Former (2024), or a tower whose pooled vector stands for a frame
(CLIP with its projection, SigLIP, DINOv2; 2025). Audio: ImageBind on mel spectrograms (2024), or
HuBERT, wav2vec 2.0, WavLM on waveforms (2025).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CLIPVisionModelWithProjection,
    Dinov2Model,
    HubertModel,
    PreTrainedModel,
    SiglipVisionModel,
    Wav2Vec2Model,
    WavLMModel,
)

from emolib.models.affectgpt.audio import ImageBindAudioModel
from emolib.models.affectgpt.branch import AffectGPTVisionModel

VISION_TOWERS: dict[str, Any] = {
    "affectgpt_vision": AffectGPTVisionModel,
    "clip_vision_model": CLIPVisionModelWithProjection,
    "siglip_vision_model": SiglipVisionModel,
    "dinov2": Dinov2Model,
}
AUDIO_TOWERS: dict[str, Any] = {
    "imagebind_audio": ImageBindAudioModel,
    "hubert": HubertModel,
    "wav2vec2": Wav2Vec2Model,
    "wavlm": WavLMModel,
}


def frame_vectors(tower: PreTrainedModel, pixels: torch.Tensor) -> torch.Tensor:
    """One vector a frame: CLIP's projected image embedding, else the pooled output.

    Args:
        tower: An image tower that gives one.
        pixels: float [frames, 3, height, width], normalised.

    Returns:
        float [frames, 1, width].
    """
    found = tower(pixels.to(tower.dtype))
    vector = getattr(found, "image_embeds", None)
    return (found.pooler_output if vector is None else vector)[:, None]


def clip_vectors(tower: PreTrainedModel, waveforms: torch.Tensor, layers: int) -> torch.Tensor:
    """One vector an audio clip: mean over the last hidden layers and over time.

    Args:
        tower: An audio tower on waveforms.
        waveforms: float [clips, samples], normalised as the tower was trained.
        layers: How many of the last hidden layers.

    Returns:
        float [clips, width].

    Source: the design of 2025 takes the mean of HuBERT's last four layers.
    """
    found = tower(waveforms.to(tower.dtype), output_hidden_states=True)
    return torch.stack(found.hidden_states[-layers:]).mean(dim=(0, 2))
