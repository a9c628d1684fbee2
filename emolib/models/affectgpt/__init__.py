"""AffectGPT (2024, 2025) as a transformers model: a folder loads with the Auto classes.

    model = AffectGPTForConditionalGeneration.from_pretrained(folder)
    processor = AffectGPTProcessor.from_pretrained(folder)

Importing this package is light; torch and transformers come with the first name taken from it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emolib.models.affectgpt.auto import (
        AffectGPTConfig,
        AffectGPTForConditionalGeneration,
        AffectGPTProcessor,
        AffectGPTVideoProcessor,
        ImageBindAudioConfig,
        ImageBindAudioModel,
        ImageBindFeatureExtractor,
        WaveformFeatureExtractor,
    )

__all__ = [
    "AffectGPTConfig",
    "AffectGPTForConditionalGeneration",
    "AffectGPTProcessor",
    "AffectGPTVideoProcessor",
    "ImageBindAudioConfig",
    "ImageBindAudioModel",
    "ImageBindFeatureExtractor",
    "WaveformFeatureExtractor",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("emolib.models.affectgpt.auto"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
