"""What the frozen towers see, computed once and kept on disk.

The towers are 1.2 G parameters and never change, the trained part is 45 M: with their
outputs cached, an epoch costs only the language model. A cached training computes the
published loss without training crops (a crop is drawn anew each time it is seen).

One file a medium, memory-mapped, at most 0.8 MB for a video and 33 kB for its sound at the
published sizes. Files carry their own hash, which is checked when first read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers import PreTrainedConfig

from emolib.errors import DataError
from emolib.files import read_json, write_atomic, write_json
from emolib.hashing import key_of
from emolib.models.affectgpt.media import DECODING
from emolib.models.affectgpt.modeling import AffectGPTForConditionalGeneration
from emolib.models.affectgpt.processing import AffectGPTProcessor

Kind = Literal["video", "audio"]
_IDENTITY = "identity.json"
_CONFIGURATIONS = ("vision_config", "image_qformer_config", "audio_config")
# Where a configuration came from, how it is computed and what else is handed out with it.
_INCIDENTAL = {
    *("transformers_version", "architectures", "dtype", "torch_dtype", "attn_implementation"),
    *("output_attentions", "output_hidden_states", "return_dict"),
}


def tower_identity(
    model: AffectGPTForConditionalGeneration, processor: AffectGPTProcessor
) -> dict[str, str]:
    """Everything cached features depend on besides the media.

    Weights alone do not say what a tower computes: the number of heads or ``logit_scale`` leaves
    no trace in them.

    Returns:
        ``towers``, ``configurations`` and ``preprocessing`` as hashes, ``decoding`` as a version
        (:data:`emolib.models.affectgpt.media.DECODING`).

    Cost: hashes the towers' weights once, some 5 s at full size.
    """
    digest = hashlib.sha256()
    for part in model.parts(("vision_tower", "image_qformer", "audio_tower")):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(raw.numpy().tobytes())
    config = model.config
    settings = {
        "video": processor.video_processor.to_dict(),
        "audio": processor.feature_extractor.to_dict(),
    }
    return {
        "towers": digest.hexdigest(),
        "configurations": key_of(
            **{name: _computed_by(getattr(config, name)) for name in _CONFIGURATIONS},
            audio_layers=config.audio_layers if config.waveforms else None,
        ),
        "preprocessing": key_of(settings=settings),
        "decoding": str(DECODING),
    }


def _computed_by(config: PreTrainedConfig | None) -> dict[str, Any] | None:
    """What of a tower's configuration may change its output; weights tell their precision."""
    if config is None:
        return None
    values = config.to_dict()
    return {k: v for k, v in values.items() if k not in _INCIDENTAL and not k.startswith("_")}


class FeatureCache:
    """A folder of features of one set of towers and one way of preprocessing.

    Reading needs no model, so data-loading processes may open it as well. Several processes
    may write at once: files appear whole, and the same medium gives the same file.

    Args:
        folder: Made when missing.
        identity: From :func:`tower_identity`; None to read whatever is there.

    Raises:
        DataError: the folder holds features of other towers or settings, or ``identity`` is
            None and there is nothing.
    """

    def __init__(self, folder: Path, identity: dict[str, str] | None = None) -> None:
        self.folder = folder
        self._checked: set[Path] = set()
        path = folder / _IDENTITY
        if path.is_file():
            found = read_json(path)
            if identity is not None and found != identity:
                different = sorted(k for k in identity if found.get(k) != identity[k])
                raise DataError(
                    f"{folder}: features of another model or sampling ({', '.join(different)} "
                    "differ): give another folder, or delete this one"
                )
        elif identity is None:
            raise DataError(f"{folder}: no features cached here")
        else:
            write_json(path, identity)

    def path(self, kind: Kind, source: str) -> Path:
        """Where the features of a medium lie; ``source`` is its content hash."""
        key = key_of(kind=kind, source=source)
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, kind: Kind, source: str) -> torch.Tensor | None:
        """Features of a medium, memory-mapped; None when they are not cached.

        Raises:
            DataError: the file is damaged; delete it to have it computed again.
        """
        path = self.path(kind, source)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as opened:
                stored = (opened.metadata() or {}).get("sha256")
                features = opened.get_tensor("features")
        except SafetensorError as error:
            raise DataError(f"{path}: damaged ({error}): delete it") from None
        if path not in self._checked:
            if stored != _sha(features):
                raise DataError(f"{path}: damaged (its hash does not fit): delete it")
            self._checked.add(path)
        return features

    def put(self, kind: Kind, source: str, features: torch.Tensor) -> None:
        """Keep features of a medium."""
        features = features.detach().cpu().contiguous()
        data = save({"features": features}, metadata={"sha256": _sha(features)})
        write_atomic(self.path(kind, source), data)


def compute_features(
    cache: FeatureCache,
    model: AffectGPTForConditionalGeneration,
    processor: AffectGPTProcessor,
    kind: Kind,
    media: Iterable[tuple[str, Callable[[], np.ndarray]]],
) -> int:
    """Run the frozen towers over what is not cached yet.

    Args:
        cache: Opened with the identity of ``model`` and ``processor``.
        model: Evaluation mode is up to the caller; towers have no randomness.
        processor: Prepares the media; no training crop.
        kind: "video" or "audio".
        media: (content hash, function that decodes) pairs; only missing ones are decoded.

    Returns:
        How many were computed.
    """
    computed = 0
    for source, decode in media:
        if cache.path(kind, source).is_file():
            continue
        with torch.no_grad():
            if kind == "video":
                batch = processor.video_processor([decode()])
                pixels = batch["pixel_values_videos"].to(model.device)
                features = model.encode_frames(pixels)[0]
            else:
                batch = processor.feature_extractor([decode()])
                features = model.encode_clips(batch["input_features"].to(model.device))[0]
        cache.put(kind, source, features)
        computed += 1
    return computed


def pack_frames(features: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Batch cached videos, stills among them.

    Args:
        features: Each [frames, tokens, width].

    Returns:
        ``frame_features`` [n, frames, tokens, width], and ``video_mask`` bool [n, frames]
        when they differ in length.
    """
    longest = max(len(feature) for feature in features)
    packed = features[0].new_zeros(len(features), longest, *features[0].shape[1:])
    mask = torch.zeros(len(features), longest, dtype=torch.bool)
    for row, feature in enumerate(features):
        packed[row, : len(feature)] = feature
        mask[row, : len(feature)] = True
    data = {"frame_features": packed}
    return data if mask.all() else data | {"video_mask": mask}


def _sha(tensor: torch.Tensor) -> str:
    header = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    raw = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(header + raw.tobytes()).hexdigest()
