"""Statistics of a voice: melody, loudness, tempo, timbre, unsteadiness. No learned weights.

Every frame (40 ms, every 10 ms) gives :data:`DESCRIPTORS`; a whole clip gives statistics of
them and a few numbers only the whole has (:data:`NAMES`). The signal's level enters one number
alone, ``level_db``: all others stay the same when the recording is made louder or softer.

Cost: proportional to the duration, about 15 ms a second of sound on one core.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct
from scipy.signal import find_peaks, medfilt

RATE = 16_000  # Hz
HOP, WINDOW = 160, 640  # samples: 10 and 40 ms
_FFT = 1024
PITCH_HZ = (62.5, 500.0)
VOICED_FROM = 0.45  # least height of the autocorrelation peak
ACTIVE_DB = 35.0  # a frame this far below the loudest ones is a pause
_FLOOR = 1e-10
_BLOCK = 2_000  # frames held at once
N_MFCC = 13
_MELS = 26

DESCRIPTORS = (
    *("energy_db", "pitch", "voicing", "zero_crossings", "centroid", "spread", "slope"),
    *("flux", "rolloff", "flatness", "alpha_ratio", "hammarberg"),
    *(f"mfcc{k}" for k in range(1, N_MFCC)),
)
_VOICED_ONLY = ("pitch",)
_STATISTICS = ("mean", "sd", "p10", "p50", "p90", "drift")
_DELTAS = ("energy_db", "pitch", "centroid", *(f"mfcc{k}" for k in range(1, 5)))
_WHOLE = (
    *("level_db", "duration_s", "voiced_share", "pause_share", "voiced_runs_per_s"),
    *("voiced_run_s", "peaks_per_s", "jitter", "shimmer", "pitch_tremor", "energy_tremor"),
    *("pitch_range", "pitch_end"),
)
NAMES = (
    *(f"{name}_{how}" for name in DESCRIPTORS for how in _STATISTICS),
    *(f"{name}_change" for name in _DELTAS),
    *_WHOLE,
)


def voice_frames(sound: np.ndarray) -> np.ndarray:
    """Describe every 10 ms of a sound.

    Args:
        sound: float [samples] in [-1, 1] at 16 kHz; any length.

    Returns:
        float32 [frames, 24], columns :data:`DESCRIPTORS`, finite. ``energy_db`` is relative to
        the loud part of the clip (0 dB), ``pitch`` in semitones above 62.5 Hz (0 where there
        is no voice), ``centroid, spread, rolloff`` in kHz, ``slope`` in dB per kHz.
        At least one frame.
    """
    power, spectra, pitch, voicing, crossings = _analyse(sound)
    frequencies = np.fft.rfftfreq(_FFT, 1 / RATE) / 1000
    loud = max(float(np.quantile(power, 0.95)), _FLOOR)
    energy = 10 * np.log10(np.maximum(power, loud * 1e-6) / loud)
    total = spectra.sum(axis=1, keepdims=True)
    share = np.where(total > _FLOOR, spectra / np.maximum(total, _FLOOR), 0.0)
    centroid = share @ frequencies
    spread = np.sqrt(np.maximum(share @ frequencies**2 - centroid**2, 0.0))
    rolloff = frequencies[np.minimum((np.cumsum(share, axis=1) < 0.85).sum(axis=1), 512)]
    flux = np.zeros(len(share))
    flux[1:] = np.sqrt(np.square(np.diff(share, axis=0)).sum(axis=1))
    # 80 dB below the frame's total: numbers below are rounding, and zero has no logarithm.
    decibels = 10 * np.log10(share + 1e-8)
    band = frequencies <= 5
    centred = frequencies[band] - frequencies[band].mean()
    slope = decibels[:, band] @ centred / (centred @ centred)
    flatness = np.exp(np.log(share + 1e-8).mean(axis=1)) / (share.mean(axis=1) + 1e-8)
    low, high = (frequencies >= 0.05) & (frequencies < 1), (frequencies >= 1) & (frequencies < 5)
    alpha = 10 * np.log10((share[:, high].sum(axis=1) + 1e-6) / (share[:, low].sum(axis=1) + 1e-6))
    below, above = frequencies < 2, (frequencies >= 2) & (frequencies < 5)
    hammarberg = decibels[:, below].max(axis=1) - decibels[:, above].max(axis=1)
    mels = 10 * np.log10(share @ _mel_filters().T + 1e-8)
    cepstrum = dct(mels, type=2, norm="ortho", axis=1)[:, 1:N_MFCC]
    columns = (energy, pitch, voicing, crossings, centroid, spread, slope, flux, rolloff)
    more = (flatness, alpha, hammarberg)
    return np.column_stack([*columns, *more, cepstrum]).astype(np.float32)


def voice_features(sound: np.ndarray) -> np.ndarray:
    """Describe a whole clip's voice.

    Args:
        sound: float [samples] in [-1, 1] at 16 kHz; silence and nothing at all are allowed.

    Returns:
        float32 [164], columns :data:`NAMES`, finite.
    """
    table = voice_frames(sound).astype(np.float64)
    column = {name: table[:, k] for k, name in enumerate(DESCRIPTORS)}
    active = column["energy_db"] > -ACTIVE_DB
    voiced = active & (column["voicing"] >= VOICED_FROM)
    values: list[float] = []
    for name in DESCRIPTORS:
        values += _statistics(column[name][voiced if name in _VOICED_ONLY else active])
    for name in _DELTAS:
        where = voiced if name in _VOICED_ONLY else active
        steps = np.abs(np.diff(column[name]))[where[1:] & where[:-1]]
        values.append(float(steps.mean()) if steps.size else 0.0)
    values += _whole(sound, column, active, voiced)
    return np.asarray(values, dtype=np.float32)


def _analyse(sound: np.ndarray) -> tuple[np.ndarray, ...]:
    """Power, power spectrum, pitch, voicing and zero crossings of each frame."""
    x = np.asarray(sound, dtype=np.float64).ravel()
    x = x - x.mean() if x.size else x
    # Scale first: then every threshold is relative and gain plays no part.
    peak = float(np.abs(x).max()) if x.size else 0.0
    x = x / peak if peak > 1e-6 else np.zeros_like(x)
    x = np.pad(x, (0, max(0, WINDOW - x.size)))
    frames = np.lib.stride_tricks.sliding_window_view(x, WINDOW)[::HOP]
    parts = [_analyse_block(frames[k : k + _BLOCK]) for k in range(0, len(frames), _BLOCK)]
    power, spectra, pitch, voicing, crossings = (
        np.concatenate([part[k] for part in parts]) for k in range(5)
    )
    smooth = medfilt(pitch, 5) if len(pitch) >= 5 else pitch
    pitch = np.where(voicing >= VOICED_FROM, np.where(smooth > 0, smooth, pitch), 0.0)
    return power, spectra, pitch, voicing, crossings


def _analyse_block(frames: np.ndarray) -> tuple[np.ndarray, ...]:
    """One block [n, 640]. Pitch: autocorrelation over that of the window (Boersma 1993)."""
    window = np.hanning(WINDOW)
    centred = (frames - frames.mean(axis=1, keepdims=True)) * window
    power = np.square(frames).mean(axis=1)
    spectra = np.square(np.abs(np.fft.rfft(centred, _FFT, axis=1)))
    size = 2 * _FFT  # no wrap-around within the lags used
    own = np.fft.irfft(np.square(np.abs(np.fft.rfft(window, size))))
    lags = np.fft.irfft(np.square(np.abs(np.fft.rfft(centred, size, axis=1))), axis=1)
    first, last = round(RATE / PITCH_HZ[1]), round(RATE / PITCH_HZ[0])
    stop = last + 2
    height = lags[:, :stop] / np.maximum(lags[:, :1], _FLOOR) * (own[0] / own[:stop])
    inside = height[:, first : last + 1]
    rising = inside >= height[:, first - 1 : last]
    falling = inside >= height[:, first + 1 : last + 2]
    lag = np.arange(first, last + 1)
    # Among peaks of nearly one height the shortest lag is the true period.
    cost = 0.02 * np.log2(lag / first)
    candidate = np.where(rising & falling, inside - cost, -1.0)
    best = candidate.argmax(axis=1)
    row = np.arange(len(frames))
    at = best + first
    left, middle, right = height[row, at - 1], height[row, at], height[row, at + 1]
    bend = left - 2 * middle + right
    shift = np.where(np.abs(bend) > 1e-12, 0.5 * (left - right) / np.where(bend == 0, 1, bend), 0.0)
    hertz = RATE / (at + np.clip(shift, -0.5, 0.5))
    heard = (candidate[row, best] > 0) & (power > 1e-8)
    voicing = np.where(heard, np.clip(middle, 0.0, 1.0), 0.0)
    pitch = np.where(voicing >= VOICED_FROM, np.maximum(12 * np.log2(hertz / PITCH_HZ[0]), 0), 0.0)
    crossings = np.mean(frames[:, 1:] * frames[:, :-1] < 0, axis=1)
    return power, spectra, pitch, voicing, crossings


def _statistics(values: np.ndarray) -> list[float]:
    """Mean, deviation, three quantiles, and drift from first to last (in units of the value)."""
    if not values.size:
        return [0.0] * len(_STATISTICS)
    time = np.linspace(-0.5, 0.5, values.size)
    drift = float(time @ values / (time @ time)) if values.size > 2 else 0.0
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return [
        float(values.mean()),
        float(values.std()),
        float(low),
        float(middle),
        float(high),
        drift,
    ]


def _whole(
    sound: np.ndarray, column: dict[str, np.ndarray], active: np.ndarray, voiced: np.ndarray
) -> list[float]:
    seconds = max(np.size(sound) / RATE, HOP / RATE)
    level = float(np.sqrt(np.square(np.asarray(sound, np.float64)).mean())) if sound.size else 0.0
    runs = _runs(voiced)
    pitch = column["pitch"]
    energy = np.where(active, column["energy_db"], -ACTIVE_DB)
    amplitude = 10 ** (column["energy_db"] / 20)
    smooth = np.convolve(energy, np.hanning(9) / np.hanning(9).sum(), mode="same")
    peaks = find_peaks(smooth, prominence=3.0)[0]
    span = np.quantile(pitch[voiced], (0.05, 0.95)) if voiced.any() else np.zeros(2)
    end = 0.0
    if len(runs):
        start, stop = runs[-1]
        tail = pitch[max(start, stop - 15) : stop]
        end = float(tail.mean() - np.median(pitch[voiced]))
    edge = np.flatnonzero(active)
    inside = active[edge[0] : edge[-1] + 1] if edge.size else active
    return [
        20 * float(np.log10(max(level, 1e-5))),
        float(seconds),
        float(voiced.mean()),
        float(1 - inside.mean()) if edge.size else 1.0,
        len(runs) / seconds,
        float(np.mean([stop - start for start, stop in runs])) * HOP / RATE if len(runs) else 0.0,
        len(peaks) / seconds,
        _wobble(2.0 ** (-pitch / 12), runs),
        _wobble(amplitude, runs),
        _tremor(pitch, runs),
        _tremor(column["energy_db"], runs),
        float(span[1] - span[0]),
        end,
    ]


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Stretches [start, stop) of at least 50 ms in which ``mask`` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= 5]


def _wobble(values: np.ndarray, runs: list[tuple[int, int]]) -> float:
    """Mean change from frame to frame over the mean: jitter of periods, shimmer of amplitudes."""
    steps = [np.abs(np.diff(values[a:b])) for a, b in runs]
    level = [values[a:b] for a, b in runs]
    if not runs:
        return 0.0
    return float(np.concatenate(steps).mean() / max(np.concatenate(level).mean(), 1e-9))


def _tremor(values: np.ndarray, runs: list[tuple[int, int]]) -> float:
    """Share of a contour's movement that lies at 4 to 12 Hz, over runs of at least 0.2 s."""
    fast = total = 0.0
    for a, b in runs:
        if b - a < 20:
            continue
        time = np.arange(b - a)
        line = np.polyval(np.polyfit(time, values[a:b], 1), time)
        power = np.square(np.abs(np.fft.rfft((values[a:b] - line) * np.hanning(b - a), 256)))
        hertz = np.fft.rfftfreq(256, HOP / RATE)
        fast += float(power[(hertz >= 4) & (hertz <= 12)].sum())
        total += float(power[1:].sum())
    return fast / total if total > 1e-12 else 0.0


def _mel_filters() -> np.ndarray:
    """Triangles on the mel scale, float64 [26, 513], 50 to 7,600 Hz."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (50.0, 7600.0))
    edges = 700 * (10 ** (np.linspace(low, high, _MELS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(_FFT, 1 / RATE)
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    up, down = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    return np.maximum(0.0, np.minimum(up, down))
