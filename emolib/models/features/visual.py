"""Image and video models on faces or whole frames: CLIP, DINOv2, VideoMAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emolib.datasets.clip import Clip
from emolib.hashing import sha_file
from emolib.models.features.base import ModelExtractor
from emolib.params.discriminative import FeatureParams


class VisualExtractor(ModelExtractor):
    """One vector a frame (CLIP: projected image features; others: the pooled or class token).

    VideoMAE takes all its frames (16) at once and gives the mean of its tokens, at frame level
    one vector a pair of frames. Frames are evenly spaced; a face that is not found is the whole
    frame, as everywhere in this project.
    """

    def __init__(self, params: FeatureParams) -> None:
        super().__init__(params, "visual")
        from transformers import AutoConfig

        config = self.local(AutoConfig)
        self._video = config.model_type == "videomae"
        self._clip = config.model_type in ("clip", "clip_vision_model", "siglip")
        self.frames = config.num_frames if self._video else params.frames
        self._tube = getattr(config, "tubelet_size", 1)
        self.identity |= {"frames": self.frames, "view": params.view}
        if params.view == "face":
            self.identity["face"] = params.face.model_dump(mode="json")
        self._detector: Any = None
        self.faces: dict[str, Any] = {}
        self._front: Any = None

    def content(self, clip: Clip) -> dict[str, Any]:
        """The video's file."""
        return {"video": sha_file(clip.video)}

    def load(self, clip: Clip) -> list[np.ndarray]:
        """Uint8 RGB pictures: face crops or whole frames."""
        from emolib.media.faces import crop_faces, face_record, open_detector
        from emolib.media.video import sample_frames

        images = sample_frames(clip.video, self.frames, rule="uniform").images
        if self.params.view == "whole":
            return list(images)
        if self._detector is None:
            self._detector = open_detector(self.params.face)
        crops = crop_faces(images, self.params.face, self._detector)
        self.faces[clip.name] = face_record(crops)
        return [crop.image for crop in crops]

    def _open_front(self) -> None:
        from transformers import AutoImageProcessor

        self._front = self.local(AutoImageProcessor)

    def _load(self, torch_dtype: Any) -> Any:
        from transformers import AutoModel, CLIPVisionModelWithProjection

        self._open_front()
        if self._clip and self.local(_config()).model_type.startswith("clip"):
            return self.local(CLIPVisionModelWithProjection, dtype=torch_dtype)
        return self.local(AutoModel, dtype=torch_dtype)

    def extract(self, items: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
        """float32 [width] or [frames, width] a clip."""
        self.model()
        rows = self._videos(items) if self._video else self._images(items)
        return rows if self.params.level == "frame" else [r.mean(axis=0) for r in rows]

    def _images(self, items: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
        flat = [image for images in items for image in images]
        parts = [
            self._forward(self._front(images=flat[k : k + 32], return_tensors="pt"))
            for k in range(0, len(flat), 32)
        ]
        table = np.concatenate(parts)
        return np.split(table, np.cumsum([len(images) for images in items])[:-1])

    def _videos(self, items: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
        made = self._front([list(images) for images in items], return_tensors="pt")
        tokens = self._forward(made)
        steps = self.frames // self._tube
        return list(tokens.reshape(len(items), steps, -1, tokens.shape[-1]).mean(axis=2))

    def _forward(self, made: Any) -> np.ndarray:
        import torch

        model = self.model()
        place = next(model.parameters())
        with torch.inference_mode():
            out = model(pixel_values=made["pixel_values"].to(place.device, place.dtype))
        if self._video:
            found = out.last_hidden_state
        elif getattr(out, "image_embeds", None) is not None:
            found = out.image_embeds
        elif getattr(out, "pooler_output", None) is not None:
            found = out.pooler_output
        else:
            found = out.last_hidden_state[:, 0]
        return np.asarray(found.float().cpu().numpy())


def _config() -> Any:
    from transformers import AutoConfig

    return AutoConfig
