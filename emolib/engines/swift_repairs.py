"""What of ms-swift has to be set right before it is used.

``Qwen2AudioTemplate`` writes one ``<|AUDIO|>`` a sound and leaves it to the model to make room
for the sound's frames, which its authors declare for transformers below 4.49 only. On
transformers 5 the model makes that room in the first step and generation does not know of it:
single requests fail, and in a batch every word after the first is wrong. Here the template
writes as many marks as the sound has frames, as transformers' own processor does.

Qwen's vision-language templates scale images to at most 16,384 tokens, whatever the folder's
processor says, and only an environment variable changes that, for every model of the process.
Here the processor's own ``longest_edge`` holds, which ``max_pixels`` lowers.

``InternVLConfig`` of transformers 5.19 ties input and output embeddings unless the folder says
otherwise, which published InternVL3 ``-hf`` folders do not; all of their checkpoints are untied.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial, wraps
from pathlib import Path
from typing import Any

from emolib.files import read_json

_DONE = "_emolib_repaired"


def repair_templates() -> None:
    """Mend the templates of this process; a second call changes nothing."""
    from swift.model.models.internlm import InternVLHfLoader
    from swift.template.templates.qwen import (
        Qwen2_5OmniTemplate,
        Qwen2AudioTemplate,
        Qwen2VLTemplate,
    )

    if not hasattr(Qwen2AudioTemplate, _DONE):
        Qwen2AudioTemplate._encode = _encode_qwen2_audio
        setattr(Qwen2AudioTemplate, _DONE, True)
        for template in (Qwen2VLTemplate, Qwen2_5OmniTemplate):
            template.replace_tag = _within_pixels(template.replace_tag)
        InternVLHfLoader.get_config = _untied(InternVLHfLoader.get_config)


def _untied(get_config: Any) -> Any:
    """Believe the weights, not the class's default, that input and output embeddings differ."""

    @wraps(get_config)
    def corrected(self: Any, model_dir: str) -> Any:
        config = get_config(self, model_dir)
        if config.tie_word_embeddings and has_head(Path(model_dir)):
            config.tie_word_embeddings = False
        return config

    return corrected


def has_head(folder: Path) -> bool:
    """Whether a folder's safetensors files hold an ``lm_head``; their headers are read only."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names: Iterable[str] = read_json(index)["weight_map"]
    else:
        names = []
        for file in folder.glob("*.safetensors"):
            with safe_open(file, framework="pt") as weights:
                names = [*names, *weights.keys()]
    return any(name.endswith("lm_head.weight") for name in names)


def _within_pixels(replace_tag: Any) -> Any:
    """Scale images as the model's own processor would, where that is to fewer pixels."""

    @wraps(replace_tag)
    def limited(self: Any, media_type: str, index: int, inputs: Any) -> Any:
        images = self.processor.image_processor
        most = images.size["longest_edge"]
        if media_type == "image" and most < 16_384 * (images.patch_size * images.merge_size) ** 2:
            inputs.chat_template_kwargs.setdefault("max_pixels", most)
        return replace_tag(self, media_type, index, inputs)

    return limited


def repair_server() -> None:
    """Let ``swift deploy`` in this process take sound as OpenAI's protocol sends it.

    ms-swift reads ``audio_url`` parts; ``input_audio`` parts are turned into those.
    """
    from swift.infer_engine.protocol import ChatCompletionRequest

    if not hasattr(ChatCompletionRequest, _DONE):
        convert = ChatCompletionRequest.convert_to_base64

        def convert_to_base64(self: Any) -> None:
            for message in self.messages:
                content = message.get("content")
                for part in content if isinstance(content, list) else []:
                    _as_audio_url(part)
            convert(self)

        ChatCompletionRequest.convert_to_base64 = convert_to_base64
        setattr(ChatCompletionRequest, _DONE, True)


def _as_audio_url(part: dict[str, Any]) -> None:
    if part.get("type") != "input_audio":
        return
    given = part.pop("input_audio")
    url = f"data:audio/{given.get('format', 'wav')};base64,{given['data']}"
    part |= {"type": "audio_url", "audio_url": {"url": url}}


def audio_tokens(frames: int) -> int:
    """Tokens a sound of so many mel frames becomes: two convolutions halve it twice."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def _encode_qwen2_audio(self: Any, inputs: Any) -> dict[str, Any]:
    """Encode one request; a sound longer than the encoder's window is refused, not cut."""
    from swift.template.base import Template
    from swift.template.utils import findall
    from swift.template.vision_utils import load_audio, load_batch

    encoded: dict[str, Any] = Template._encode(self, inputs)
    if not inputs.audios:
        return encoded
    extractor = self.processor.feature_extractor
    rate = inputs.chat_template_kwargs.get("sampling_rate") or self.sampling_rate
    sounds = load_batch(inputs.audios, load_func=partial(load_audio, sampling_rate=rate))
    longest = max(len(sound) for sound in sounds)
    if longest > extractor.n_samples:
        raise ValueError(
            f"the sound lasts {longest / rate:.1f} s and the model hears "
            f"{extractor.n_samples / rate:.0f} s: cut it (seconds)"
        )
    heard = extractor(sounds, sampling_rate=rate, return_attention_mask=True, return_tensors="pt")
    mask = heard.pop("attention_mask")
    counts = [audio_tokens(int(frames)) for frames in mask.sum(-1)]
    [mark] = self._tokenize("<|AUDIO|>")
    places = findall(encoded["input_ids"], mark)
    ids, labels, scale = self._extend_tokens(
        encoded["input_ids"],
        encoded["labels"],
        encoded.get("loss_scale"),
        places,
        lambda i: [mark] * counts[i],
    )
    return {
        **encoded,
        "input_ids": ids,
        "labels": labels,
        "loss_scale": scale,
        "input_features": heard["input_features"],
        "feature_attention_mask": mask,
    }
