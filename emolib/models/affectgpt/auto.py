"""Everything of AffectGPT, known to transformers' Auto classes. Loads torch."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoVideoProcessor,
)

from emolib.models.affectgpt.audio import ImageBindAudioModel
from emolib.models.affectgpt.configuration import AffectGPTConfig, ImageBindAudioConfig
from emolib.models.affectgpt.frames import AffectGPTVideoProcessor
from emolib.models.affectgpt.modeling import AffectGPTForConditionalGeneration
from emolib.models.affectgpt.processing import AffectGPTProcessor
from emolib.models.affectgpt.sound import ImageBindFeatureExtractor

AutoConfig.register("affectgpt", AffectGPTConfig, exist_ok=True)
AutoConfig.register("imagebind_audio", ImageBindAudioConfig, exist_ok=True)
AutoModel.register(ImageBindAudioConfig, ImageBindAudioModel, exist_ok=True)
AutoModel.register(AffectGPTConfig, AffectGPTForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(
    AffectGPTConfig, AffectGPTForConditionalGeneration, exist_ok=True
)
AutoVideoProcessor.register(AffectGPTConfig, AffectGPTVideoProcessor, exist_ok=True)
AutoFeatureExtractor.register(AffectGPTConfig, ImageBindFeatureExtractor, exist_ok=True)
AutoProcessor.register(AffectGPTConfig, AffectGPTProcessor, exist_ok=True)

__all__ = [
    "AffectGPTConfig",
    "AffectGPTForConditionalGeneration",
    "AffectGPTProcessor",
    "AffectGPTVideoProcessor",
    "ImageBindAudioConfig",
    "ImageBindAudioModel",
    "ImageBindFeatureExtractor",
]
