"""Everything of AffectGPT, known to transformers' Auto classes. Loads torch."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoVideoProcessor,
    PreTrainedConfig,
)

from emolib.models.affectgpt.audio import ImageBindAudioModel
from emolib.models.affectgpt.configuration import AffectGPTConfig, ImageBindAudioConfig
from emolib.models.affectgpt.frames import AffectGPTVideoProcessor
from emolib.models.affectgpt.modeling import AffectGPTForConditionalGeneration
from emolib.models.affectgpt.processing import AffectGPTProcessor
from emolib.models.affectgpt.sound import (
    ImageBindFeatureExtractor,
    WaveformFeatureExtractor,
)


class _Waveforms(PreTrainedConfig):
    """Under which :class:`WaveformFeatureExtractor` is found by its name.

    Feature extractors are registered by configuration, one each, and HuBERT's own must stay.
    """

    model_type = "affectgpt_waveforms"


AutoConfig.register("affectgpt", AffectGPTConfig, exist_ok=True)
AutoConfig.register("imagebind_audio", ImageBindAudioConfig, exist_ok=True)
AutoModel.register(ImageBindAudioConfig, ImageBindAudioModel, exist_ok=True)
AutoModel.register(AffectGPTConfig, AffectGPTForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(
    AffectGPTConfig, AffectGPTForConditionalGeneration, exist_ok=True
)
AutoVideoProcessor.register(AffectGPTConfig, AffectGPTVideoProcessor, exist_ok=True)
AutoFeatureExtractor.register(AffectGPTConfig, ImageBindFeatureExtractor, exist_ok=True)
AutoFeatureExtractor.register(_Waveforms, WaveformFeatureExtractor, exist_ok=True)
AutoProcessor.register(AffectGPTConfig, AffectGPTProcessor, exist_ok=True)

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
