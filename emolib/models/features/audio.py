"""Speech models: HuBERT, wav2vec 2.0, WavLM, data2vec and Whisper's encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.hashing import sha_file
from emolib.models.features.base import ModelExtractor, join_layers
from emolib.params.discriminative import FeatureParams

_LEAST = 400  # samples one output frame of the convolutions needs
_WHISPER_S = 30.0  # seconds Whisper always sees
_WHISPER_FRAME = 320  # samples a frame of its encoder


class AudioExtractor(ModelExtractor):
    """The last hidden layers of a speech model, joined; averaged over time for an utterance.

    Sounds longer than ``chunk_s`` are computed in pieces, a last piece too short to stand alone
    joined to the one before. Results do not depend on what else is in a batch: models that
    normalise over time (wav2vec 2.0 base, HuBERT base) are given pieces of one length only;
    the others get an attention mask.

    Whisper gives the states of its encoder over the real sound, not over the padding to 30 s.
    (The MER baselines used the decoder's states of two start tokens instead.)
    """

    def __init__(self, params: FeatureParams) -> None:
        super().__init__(params, "audio")
        self.identity |= {
            "last_layers": params.last_layers,
            "join": params.join,
            "chunk_s": params.chunk_s,
        }
        self._front: Any = None

    def content(self, clip: Clip) -> dict[str, Any]:
        """The sound's file."""
        return {"audio": sha_file(clip.audio or clip.video)}

    def load(self, clip: Clip) -> np.ndarray:
        """float32 [samples] at 16 kHz."""
        from emolib.media.audio import read_audio

        sound = read_audio(clip.audio or clip.video)
        if sound.size < _LEAST:
            raise MediaError(f"{clip.name}: {sound.size} samples of sound are too few")
        return sound

    def _open_front(self) -> None:
        from transformers import AutoFeatureExtractor

        self._front = self.local(AutoFeatureExtractor)

    def _load(self, torch_dtype: Any) -> Any:
        from transformers import AutoConfig, AutoModel

        config = self.local(AutoConfig)
        self._open_front()
        self._whisper = config.model_type == "whisper"
        # Group normalisation sees the padding; layer normalisation does not.
        self._masked = getattr(config, "feat_extract_norm", "group") == "layer"
        model = self.local(AutoModel, dtype=torch_dtype)
        return model.encoder if self._whisper else model

    def extract(self, items: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float32 [width] or [frames, width] a sound."""
        self.model()
        seconds = min(self.params.chunk_s, _WHISPER_S) if self._whisper else self.params.chunk_s
        pieces: list[np.ndarray] = []
        owner: list[int] = []
        for number, sound in enumerate(items):
            for piece in cut(sound, round(seconds * 16_000)):
                pieces.append(piece)
                owner.append(number)
        states: list[np.ndarray | None] = [None] * len(pieces)
        for batch in self._batches(pieces):
            for k, one in zip(batch, self._compute([pieces[k] for k in batch]), strict=True):
                states[k] = one
        results = []
        for number in range(len(items)):
            own = [s for s, who in zip(states, owner, strict=True) if who == number]
            frames = np.concatenate([s for s in own if s is not None])
            results.append(frames if self.params.level == "frame" else frames.mean(axis=0))
        return results

    def _batches(self, pieces: Sequence[np.ndarray]) -> list[list[int]]:
        """Positions computed together: any lengths where padding is masked, else equal ones."""
        order = sorted(range(len(pieces)), key=lambda k: pieces[k].size)
        batches: list[list[int]] = []
        for k in order:
            fits = batches and len(batches[-1]) < self.params.batch_size
            same = fits and pieces[batches[-1][0]].size == pieces[k].size
            if fits and (same or self._masked or self._whisper):
                batches[-1].append(k)
            else:
                batches.append([k])
        return batches

    def _compute(self, pieces: Sequence[np.ndarray]) -> list[np.ndarray]:
        import torch

        model = self.model()
        place = next(model.parameters())
        options: dict[str, Any] = {"sampling_rate": 16_000, "return_tensors": "pt"}
        if self._whisper:
            values = self._front(list(pieces), **options)["input_features"]
            mask = None
            lengths = [-(-piece.size // _WHISPER_FRAME) for piece in pieces]
        else:
            made = self._front(
                list(pieces), padding=True, return_attention_mask=self._masked, **options
            )
            values, mask = made["input_values"], made.get("attention_mask")
            sizes = torch.tensor([piece.size for piece in pieces])
            lengths = model._get_feat_extract_output_lengths(sizes).tolist()
        inputs = {"attention_mask": mask.to(place.device)} if mask is not None else {}
        with torch.inference_mode():
            out = model(values.to(place.device, place.dtype), output_hidden_states=True, **inputs)
        joined = join_layers(out.hidden_states, self.params.last_layers, self.params.join)
        table = joined.cpu().numpy()
        return [table[k, : max(1, length)] for k, length in enumerate(lengths)]


def cut(sound: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut float [samples] into pieces of ``size``; a tail too short for a model joins the last."""
    edges = list(range(0, sound.size, size))
    if len(edges) > 1 and sound.size - edges[-1] < _LEAST:
        edges.pop()
    return np.split(sound, edges[1:])
