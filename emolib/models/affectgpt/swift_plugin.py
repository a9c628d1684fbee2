"""AffectGPT for ms-swift: ``swift sft``, its engines, its multi-GPU training.

Importing this module registers model type and template ``affectgpt``; on a command line give
it as ``--external_plugins``. Rows hold finished prompts, so a data file shows what is learned:

    {"messages": [{"role": "user", "content": "###Human: … <AudioHere> … <ImageHere> …"},
                  {"role": "assistant", "content": "In the video, …"}],
     "videos": ["clip.mp4"], "audios": ["clip.mp4"]}

``videos`` may name a picture. The paper's training is ``--tuner_type full --freeze_llm true
--freeze_vit true --freeze_aligner false``: ms-swift's "aligner" are the two branches.

Environment: ``AFFECTGPT_CACHE`` names a folder of cached features
(:mod:`emolib.models.affectgpt.cache`), which then take the place of decoding and towers for
the media in it; ``AFFECTGPT_CROP=1`` draws the published training crops otherwise.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from swift.model import ModelGroup, ModelLoader, ModelMeta, MultiModelKeys, register_model
from swift.model import register_model_arch as register_arch
from swift.template import StdTemplateInputs, Template, TemplateMeta, register_template

from emolib.errors import DataError
from emolib.hashing import sha_file
from emolib.models.affectgpt import AffectGPTForConditionalGeneration
from emolib.models.affectgpt.cache import FeatureCache, Kind, pack_frames
from emolib.models.affectgpt.media import read_clip, read_sound
from emolib.models.affectgpt.modeling import FROZEN, TRAINED
from emolib.models.affectgpt.prompts import AUDIO, MULTI, STOP, VIDEO, media_fault

TYPE = "affectgpt"


class AffectGPTLoader(ModelLoader):
    """Loads a converted folder; no code in it is run."""

    default_trust_remote_code = False
    auto_model_cls: Any

    def get_model(self, model_dir: str, *args: Any, **kwargs: Any) -> Any:
        """The model, by its own class."""
        if self.auto_model_cls is None:
            self.auto_model_cls = AffectGPTForConditionalGeneration
        return super().get_model(model_dir, *args, **kwargs)


class AffectGPTTemplate(Template):
    """Tokenises as :class:`AffectGPTProcessor` does, and loads media."""

    placeholder_tokens = [VIDEO, AUDIO, MULTI]  # noqa: RUF012  (ms-swift's own convention)
    support_padding_free = False

    @cached_property
    def cache(self) -> FeatureCache | None:
        """Cached features, when ``AFFECTGPT_CACHE`` names some."""
        folder = os.environ.get("AFFECTGPT_CACHE")
        return FeatureCache(Path(folder)) if folder else None

    def _preprocess_inputs(self, inputs: StdTemplateInputs) -> None:
        """Media stay paths until they are needed, and text is taken as it is."""

    def _encode(self, inputs: StdTemplateInputs) -> dict[str, Any]:
        turns = _turns(inputs)
        ids, labels = self.processor.encode(turns)
        encoded: dict[str, Any] = {"input_ids": ids, "loss_scale": None}
        encoded["labels"] = labels if self.is_training else None
        fault = media_fault(
            [prompt for prompt, _ in turns],
            len(inputs.videos) == 1,
            len(inputs.audios) == 1,
            self.processor.multi_tokens,
        )
        if max(len(inputs.videos), len(inputs.audios)) > 1:
            fault = f"{len(inputs.videos)} videos and {len(inputs.audios)} audios: one at most"
        if fault:
            raise DataError(f"{fault}. The text begins {turns[0][0][:60]!r}")
        media: tuple[tuple[Kind, list[str]], ...] = (
            ("video", inputs.videos),
            ("audio", inputs.audios),
        )
        for kind, paths in media:
            if paths:
                encoded |= self._medium(kind, Path(paths[0]))
        return encoded

    def _medium(self, kind: Kind, path: Path) -> dict[str, torch.Tensor]:
        """Features of one file from the cache, else what the towers need."""
        if self.cache is not None:
            features = self.cache.get(kind, sha_file(path))
            if features is None:
                raise DataError(f"{path}: its {kind} is not in {self.cache.folder}: compute it")
            return {f"{kind}_features": features}
        if kind == "audio":
            extractor = self.processor.feature_extractor
            sound = read_sound(path, extractor.reference_compat)
            if sound is None:
                raise DataError(f"{path}: has no audio track; leave it out of `audios` and text")
            return {"sound": extractor([sound])["input_features"][0]}
        crop = self.is_training and os.environ.get("AFFECTGPT_CROP") == "1"
        # torch is seeded in every data-loading process
        rng = np.random.default_rng(int(torch.randint(2**31, ()))) if crop else None
        processor = self.processor.video_processor
        clip = read_clip(path, processor.num_frames)
        return {"frames": processor([clip], rng=rng)["pixel_values_videos"][0]}

    def _data_collator_mm_data(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Pack what the rows that have media bring, in the rows' order."""

        def there(name: str) -> list[torch.Tensor]:
            return [row[name] for row in batch if row.get(name) is not None]

        data: dict[str, Any] = {}
        if frames := there("frames"):
            packed = pack_frames(frames)
            data["pixel_values_videos"] = packed.pop("frame_features")
            data |= packed
        if features := there("video_features"):
            data |= pack_frames(features)
        if sounds := there("sound"):
            data["input_features"] = torch.stack(sounds)
        if features := there("audio_features"):
            data["clip_features"] = torch.stack(features)
        return data


def _turns(inputs: StdTemplateInputs) -> list[tuple[str, str | None]]:
    """The dialogue as (prompt, answer) pairs; ms-swift leaves the last answer empty to ask."""
    roles = [message["role"] for message in inputs.messages]
    texts = [message["content"] for message in inputs.messages]
    if len(roles) % 2:
        roles, texts = [*roles, "assistant"], [*texts, None]
    if roles != ["user", "assistant"] * (len(roles) // 2) or inputs.system:
        raise DataError(f"roles {roles}: expected user and assistant in turn, no system message")
    return list(zip(texts[::2], texts[1::2], strict=True))


register_arch(
    MultiModelKeys(
        TYPE,
        language_model="language_model",
        aligner=list(TRAINED),
        vision_tower=[name for name in FROZEN if name != "language_model"],
    ),
    exist_ok=True,
)
register_template(
    TemplateMeta(
        TYPE,
        prefix=[["bos_token_id"]],
        prompt=["{{QUERY}}"],
        chat_sep=[STOP],
        suffix=[STOP],
        template_cls=AffectGPTTemplate,
    ),
    exist_ok=True,
)
register_model(
    ModelMeta(
        TYPE,
        [ModelGroup([])],
        AffectGPTLoader,
        template=TYPE,
        model_arch=TYPE,
        architectures=["AffectGPTForConditionalGeneration"],
        is_multimodal=True,
        tags=["video", "audio"],
    ),
    exist_ok=True,
)
