"""Waveforms -> what the audio towers were trained on.

Eight two-second clips of a recording, each a 128-bin Kaldi log-mel spectrogram for ImageBind, or
a normalised waveform for HuBERT and its kind.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.audio_utils import mel_filter_bank, window_function

from emolib.errors import MediaError

_FRAME, _HOP, _FFT = 400, 160, 512  # 25 ms, 10 ms and the next power of two, at 16 kHz
_PREEMPHASIS = 0.97
_FLOOR = 1.1920929e-07  # float32's epsilon, as Kaldi


def resample(waveform: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Change the sampling rate by a windowed sinc (Hann, width 6, roll-off 0.99).

    Args:
        waveform: float [..., samples].
        rate: Its rate in Hz.
        target: The wanted rate in Hz.

    Returns:
        float32 [..., ceil(samples · target / rate)].

    Cost: samples × 12 × max(1, rate / target) multiplications, computed as one convolution.

    Source: torchaudio's ``resample`` with its default settings.
    """
    if rate == target:
        return np.asarray(waveform, np.float32)
    common = math.gcd(rate, target)
    step, phases = rate // common, target // common
    kernel, half = _sinc_kernel(step, phases)
    signal = torch.from_numpy(np.ascontiguousarray(waveform, np.float32))
    samples = signal.shape[-1]
    flat = torch.nn.functional.pad(signal.reshape(-1, 1, samples), (half, half + step))
    out = torch.nn.functional.conv1d(flat, kernel, stride=step)  # [rows, phases, steps]
    length = math.ceil(samples * phases / step)
    return out.transpose(1, 2).reshape(*signal.shape[:-1], -1)[..., :length].numpy()


@lru_cache(maxsize=16)
def _sinc_kernel(step: int, phases: int) -> tuple[torch.Tensor, int]:
    """One filter per output phase: float32 [phases, 1, taps], and its half width."""
    zeros, rolloff = 6, 0.99
    cutoff = min(step, phases) * rolloff
    half = math.ceil(zeros * step / cutoff)
    taps = np.arange(-half, half + step) / step
    t = (taps[None] - np.arange(phases)[:, None] / phases) * cutoff
    t = t.clip(-zeros, zeros)
    kernel = np.sinc(t) * np.cos(t * math.pi / zeros / 2) ** 2 * (cutoff / step)
    return torch.from_numpy(kernel.astype(np.float32))[:, None], half


def clip_starts(
    samples: int, clips: int, length: int, reference_compat: bool = False
) -> np.ndarray:
    """First sample of each clip.

    Args:
        samples: Length of the recording.
        clips: How many clips.
        length: Samples of one clip.
        reference_compat: Published spacing, which divides by ``clips`` and so never reaches
            the end; otherwise the last clip ends with the recording.

    Returns:
        int64 [clips], not decreasing; all 0 when the recording is no longer than a clip.
    """
    slack = max(samples - length, 0)
    parts = clips if reference_compat else max(clips - 1, 1)
    return np.arange(clips, dtype=np.int64) * slack // parts


def log_mel(clips: np.ndarray, bins: int = 128, rate: int = 16_000) -> np.ndarray:
    """Kaldi log-mel spectrograms (Hann window, pre-emphasis, no dither, energy floor).

    Args:
        clips: float [n, samples] in [-1, 1] at ``rate``.
        bins: Mel bins between 20 Hz and half the rate.
        rate: Hz; frame and hop are 25 and 10 ms at 16 kHz.

    Returns:
        float32 [n, bins, frames], natural logarithm.
    """
    frames = np.lib.stride_tricks.sliding_window_view(clips, _FRAME, axis=-1)[:, ::_HOP]
    frames = frames.astype(np.float64)
    frames -= frames.mean(-1, keepdims=True)
    before = np.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
    frames = (frames - _PREEMPHASIS * before) * window_function(_FRAME, "hann", periodic=False)
    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2
    energies = power @ _mel_filters(bins, rate)
    return np.log(np.maximum(energies, _FLOOR)).astype(np.float32).swapaxes(1, 2)


@lru_cache(maxsize=4)
def _mel_filters(bins: int, rate: int) -> np.ndarray:
    with warnings.catch_warnings():
        # The lowest of 128 filters are narrower than an FFT bin and so empty: published so.
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero")
        return mel_filter_bank(
            num_frequency_bins=_FFT // 2 + 1,
            num_mel_filters=bins,
            min_frequency=20.0,
            max_frequency=rate / 2,
            sampling_rate=rate,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )


class ImageBindFeatureExtractor(FeatureExtractionMixin):
    """Recordings of any length, rate and channel count -> mel of evenly spaced clips.

    Args:
        sampling_rate: Rate the model was trained at, Hz.
        num_mel_bins: Mel bins.
        target_length: Frames per clip after padding with zeros (before normalisation).
        num_clips: Clips per recording.
        clip_seconds: Length of a clip; shorter recordings are padded with silence.
        mean: Subtracted from the log-mel.
        std: Then divided by.
        reference_compat: Published behaviour: clips spaced so that the tail is never heard,
            the mean of each clip taken out of the shared recording in place (so that it
            shifts parts of later, overlapping clips), and of several channels only the
            first heard. Otherwise even spacing, untouched clips, channels averaged.
    """

    model_input_names = ("input_features",)

    def __init__(
        self,
        sampling_rate: int = 16_000,
        num_mel_bins: int = 128,
        target_length: int = 204,
        num_clips: int = 8,
        clip_seconds: float = 2.0,
        mean: float = -4.268,
        std: float = 9.138,
        reference_compat: bool = False,
        **kwargs: Any,
    ) -> None:
        self.sampling_rate = sampling_rate
        self.num_mel_bins = num_mel_bins
        self.target_length = target_length
        self.num_clips = num_clips
        self.clip_seconds = clip_seconds
        self.mean = mean
        self.std = std
        self.reference_compat = reference_compat
        super().__init__(**kwargs)

    def __call__(
        self,
        audio: Sequence[np.ndarray],
        sampling_rate: int | Sequence[int] = 16_000,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Extract features.

        Args:
            audio: Each float [samples] or [channels, samples] in [-1, 1], or int16.
            sampling_rate: Hz, one for all or one each.
            return_tensors: As everywhere in transformers.

        Returns:
            ``input_features``: float32 [n, num_clips, 1, num_mel_bins, target_length], or
            [n, num_clips, samples] of waveforms.

        Raises:
            MediaError: empty or non-finite audio; names its position.
        """
        rates = [sampling_rate] * len(audio) if isinstance(sampling_rate, int) else sampling_rate
        features = [
            self.extract(_checked(wave, number), rate)
            for number, (wave, rate) in enumerate(zip(audio, rates, strict=True))
        ]
        return BatchFeature({"input_features": np.stack(features)}, tensor_type=return_tensors)

    def extract(self, waveform: np.ndarray, rate: int) -> np.ndarray:
        """Features of one recording: float32 [num_clips, 1, num_mel_bins, target_length]."""
        mel = log_mel(self.clips(waveform, rate), self.num_mel_bins, self.sampling_rate)
        mel = mel[..., : self.target_length]
        mel = np.pad(mel, ((0, 0), (0, 0), (0, self.target_length - mel.shape[-1])))
        return ((mel - self.mean) / self.std)[:, None].astype(np.float32)

    def clips(self, waveform: np.ndarray, rate: int) -> np.ndarray:
        """Cut a recording [channels, samples]: float32 [num_clips, samples of a clip]."""
        length = round(self.clip_seconds * self.sampling_rate)
        if not self.reference_compat:
            waveform = waveform.mean(0, keepdims=True)
        waveform = resample(waveform, rate, self.sampling_rate)
        waveform = np.pad(waveform, ((0, 0), (0, max(length - waveform.shape[1], 0))))
        starts = clip_starts(waveform.shape[1], self.num_clips, length, self.reference_compat)
        if not self.reference_compat:
            return np.stack([waveform[0, start : start + length] for start in starts])
        clips = []
        for start in starts:
            view = waveform[:, start : start + length]
            view -= view.mean()
            clips.append(view[0].copy())
        return np.stack(clips)


class WaveformFeatureExtractor(ImageBindFeatureExtractor):
    """Recordings -> evenly spaced clips as waveforms, for HuBERT and its kind.

    Args:
        do_normalize: Bring every clip to mean 0 and variance 1, as the audio tower was trained
            (its ``preprocessor_config.json`` says so). Silence stays 0.
        **kwargs: As :class:`ImageBindFeatureExtractor`'s; those of spectrograms play no part.
    """

    def __init__(self, do_normalize: bool = True, **kwargs: Any) -> None:
        self.do_normalize = do_normalize
        super().__init__(**kwargs)

    def extract(self, waveform: np.ndarray, rate: int) -> np.ndarray:
        """Waveforms of one recording: float32 [num_clips, samples of a clip]."""
        clips = self.clips(waveform, rate).astype(np.float32)
        if self.do_normalize:
            clips = clips - clips.mean(-1, keepdims=True)
            clips = clips / np.sqrt(clips.var(-1, keepdims=True) + 1e-7)
        return clips


def _checked(waveform: np.ndarray, number: int) -> np.ndarray:
    """The recording as float32 [channels, samples]."""
    wave = np.asarray(waveform)
    if wave.dtype == np.int16:
        wave = wave.astype(np.float32) / 32768
    wave = np.atleast_2d(wave.astype(np.float32))
    if wave.ndim != 2 or wave.shape[1] == 0:
        raise MediaError(
            f"audio {number}: shape {list(np.shape(waveform))}, expected [samples] or "
            "[channels, samples] with at least one sample; give None where there is no track"
        )
    if not np.isfinite(wave).all():
        raise MediaError(f"audio {number}: holds NaN or infinite samples")
    return wave
