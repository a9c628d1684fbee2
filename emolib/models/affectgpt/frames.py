"""Decoded frames -> the pixels the image tower was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.video_processing_utils import BaseVideoProcessor

from emolib.errors import MediaError
from emolib.models.affectgpt.media import sample_indices


def random_crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.5, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draw the published training crop: a box (left, top, right, bottom).

    Area and log aspect ratio are uniform; after ten boxes that do not fit, the largest
    central box of allowed ratio.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w = min(width, round(height * aspect))
    h = min(height, round(w / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


class AffectGPTVideoProcessor(BaseVideoProcessor):
    """Samples frames, resizes them to a square and normalises.

    The aspect ratio is not kept, as published, unless ``do_center_crop``: then the middle is cut
    out first, as CLIP's own processor does. Resizing is Pillow's bicubic, rounded and clamped to
    0..255 (the published training crop lets overshoot wrap around, which leaves speckles).
    """

    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"height": 224, "width": 224}  # noqa: RUF012  (the library's own convention)
    num_frames = 8
    do_resize = True
    do_center_crop = False
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    model_input_names = ("pixel_values_videos", "video_mask")

    def preprocess(
        self,
        videos: Sequence[np.ndarray],
        rng: np.random.Generator | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare videos and still images, also mixed.

        Args:
            videos: Each uint8 RGB [frames, height, width, 3], or [height, width, 3] for a
                still image. Give more frames than needed or just the sampled ones.
            rng: Draw one training crop per video; None: no crop.
            return_tensors: As everywhere in transformers.
            **kwargs: ``num_frames`` replaces the setting.

        Returns:
            ``pixel_values_videos``: float32 [n, frames, 3, height, width]; and where videos
            differ in length (stills among videos) ``video_mask``: bool [n, frames].

        Raises:
            MediaError: not an array as above; names its position.
        """
        wanted = kwargs.pop("num_frames", None) or self.num_frames
        if kwargs:
            raise TypeError(f"unknown arguments {sorted(kwargs)}")
        done = [self._one(video, number, wanted, rng) for number, video in enumerate(videos)]
        longest = max(len(pixels) for pixels in done)
        batch = np.zeros((len(done), longest, *done[0].shape[1:]), np.float32)
        mask = np.zeros((len(done), longest), bool)
        for row, pixels in enumerate(done):
            batch[row, : len(pixels)] = pixels
            mask[row, : len(pixels)] = True
        data = {"pixel_values_videos": batch}
        if not mask.all():
            data["video_mask"] = mask
        return BatchFeature(data, tensor_type=return_tensors)

    def _one(
        self, video: np.ndarray, number: int, wanted: int, rng: np.random.Generator | None
    ) -> np.ndarray:
        """float32 [frames, 3, height, width] of one video or still."""
        video = np.asarray(video)
        still = video.ndim == 3
        frames = video[None] if still else video
        if (
            frames.ndim != 4
            or frames.shape[-1] != 3
            or frames.dtype != np.uint8
            or 0 in video.shape
        ):
            raise MediaError(
                f"video {number}: {video.dtype} {list(video.shape)}, expected uint8 "
                "[frames, height, width, 3] or [height, width, 3], not empty"
            )
        indices = np.zeros(1, np.int64) if still else sample_indices(len(frames), wanted)
        size = (self.size["width"], self.size["height"])
        height, width = frames.shape[1:3]
        box = None if rng is None else random_crop(height, width, rng)
        if box is None and self.do_center_crop:
            side = min(height, width)
            left, top = (width - side) // 2, (height - side) // 2
            box = (left, top, left + side, top + side)
        pictures = {index: _resized(frames[index], size, box) for index in set(indices.tolist())}
        pixels = np.stack([pictures[index] for index in indices.tolist()])
        mean, std = np.float32(self.image_mean), np.float32(self.image_std)
        return ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)


def _resized(
    frame: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int] | None
) -> np.ndarray:
    """uint8 [height, width, 3] at the wanted size; the very same when it has it already."""
    picture = Image.fromarray(frame)
    if box is not None:
        picture = picture.crop(box)
    if picture.size == size:
        return np.asarray(picture)
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
