"""Words from sound with Whisper, behind a gate that does not ask about silence.

Speech models invent words where nothing is said. Four things are done about it: silence is
never shown to the model, no window sees the words of the one before, segments the model itself
doubts are dropped, and so are phrases known to be invented.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emolib.errors import EngineError, MissingDependencyError, MissingModelError
from emolib.files import load_tensors
from emolib.hashing import sha_file, sha_files
from emolib.media.audio import RATE, read_audio
from emolib.media.transcript import Segment, Transcript, make_transcript, simplify
from emolib.params.media import AsrParams

WINDOW_S = 0.03
# Pauses shorter than this are part of the speech around them: cutting at them costs context
# and a whole decoder window each.
PAUSE_S = 2.0
EDGE_S = 0.25
# Samples a frame of openai-whisper's spectrogram.
FRAME = 160
# Log probability given to words the model could not weigh.
UNSURE = -100.0
_FIELDS = ("start", "end", "text", "no_speech_prob", "avg_logprob", "compression_ratio")
Span = tuple[float, float]


def speech_spans(sound: np.ndarray, threshold_db: float, rate: int = RATE) -> list[Span]:
    """Find the stretches with sound in them.

    Stretches parted by less than :data:`PAUSE_S` are one; each gets :data:`EDGE_S` more at both
    ends. A constant offset is not sound.

    Args:
        sound: float32 [samples] in [-1, 1].
        threshold_db: Root-mean-square level of a 30 ms window that counts as sound, in dB of
            full scale.
        rate: Hz.

    Returns:
        (start, end) in seconds, in order, not touching each other, inside the sound.
    """
    size = max(1, round(WINDOW_S * rate))
    if sound.size == 0:
        return []
    padded = np.pad(sound.astype(np.float64), (0, -sound.size % size), mode="edge")
    blocks = padded.reshape(-1, size) - float(np.mean(sound, dtype=np.float64))
    loud = np.flatnonzero(np.square(blocks).mean(axis=1) >= 10 ** (threshold_db / 10))
    if loud.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(loud) * WINDOW_S >= PAUSE_S)
    starts = loud[np.r_[0, breaks + 1]] * size / rate
    ends = (loud[np.r_[breaks, loud.size - 1]] + 1) * size / rate
    length = sound.size / rate
    return [
        (max(0.0, float(start) - EDGE_S), min(length, float(end) + EDGE_S))
        for start, end in zip(starts, ends, strict=True)
    ]


def loud_seconds(sound: np.ndarray, threshold_db: float, rate: int = RATE) -> float:
    """Seconds of sound in 30 ms windows at or above a level, pauses and edges not counted."""
    size = max(1, round(WINDOW_S * rate))
    whole = sound[: sound.size // size * size].astype(np.float64).reshape(-1, size)
    if whole.size == 0:
        return 0.0
    powers = np.square(whole - float(np.mean(sound, dtype=np.float64))).mean(axis=1)
    return float((powers >= 10 ** (threshold_db / 10)).sum()) * size / rate


class Recognizer(ABC):
    """A speech model; its weights are loaded when it is first asked.

    Attributes:
        params: How it hears.
        name: The model's name in ``Clip.subtitle_source``.
    """

    def __init__(self, params: AsrParams, name: str) -> None:
        self.params = params
        self.name = name

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the weights."""

    @abstractmethod
    def hear(self, sound: np.ndarray, spans: Sequence[Span]) -> tuple[list[Segment], str]:
        """Transcribe the spans of 16 kHz sound; give the segments and the language."""

    @property
    def identity(self) -> dict[str, Any]:
        """All an answer depends on besides the sound: plain values, part of ledger keys."""
        options = self.params.model_dump(mode="json", exclude={"model", "device", "allow_download"})
        return {"kind": "asr", "weights": self.fingerprint, **options}

    def transcribe(self, path: Path) -> Transcript:
        """Read a file's sound and hear its words; silence is not shown to the model.

        Cost: about one model window (30 s) a span of sound and 30 s of it.

        Raises:
            NoAudioError: there is no sound track.
            MediaError: it cannot be decoded.
        """
        sound = read_audio(path, RATE)
        spans = speech_spans(sound, self.params.silence_db)
        if not spans or loud_seconds(sound, self.params.silence_db) < self.params.min_speech_s:
            return Transcript("", silent=True)
        segments, language = self.hear(sound, spans)
        return make_transcript(segments, language, self.params)


def open_recognizer(params: AsrParams) -> Recognizer:
    """Find the model; nothing is loaded yet.

    Raises:
        MissingModelError: no such checkpoint on this machine.
        MissingDependencyError: the engine's package, or OpenCC, is not installed.
    """
    if params.simplified and params.language in ("", "zh", "yue"):
        simplify("國")  # ask for OpenCC now, not after the first hour
    if params.engine == "faster-whisper":
        return FasterWhisper(params)
    return Whisper(params)


class Whisper(Recognizer):
    """openai-whisper with a checkpoint file of its own format."""

    def __init__(self, params: AsrParams) -> None:
        self.path = _checkpoint(params)
        super().__init__(params, self.path.stem)
        self._model: Any = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint file."""
        return sha_file(self.path)

    def hear(self, sound: np.ndarray, spans: Sequence[Span]) -> tuple[list[Segment], str]:
        """Transcribe the spans; the same sound gives the same words (sampling is seeded)."""
        import torch

        edges = _in_frames(spans, sound.size)
        if not edges:  # openai-whisper takes no edges for the whole
            return [], self.params.language
        whisper = _whisper()
        self._model = self._model or _load(self.path, _device(self.params.device))
        params, device = self.params, self._model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            result = whisper.transcribe(
                self._model,
                sound,
                verbose=None,
                language=params.language or None,
                task="transcribe",
                temperature=params.temperatures,
                beam_size=params.beam_size,
                condition_on_previous_text=False,
                initial_prompt=params.prompt or None,
                no_speech_threshold=params.no_speech_prob,
                logprob_threshold=params.min_logprob,
                compression_ratio_threshold=params.max_compression,
                clip_timestamps=edges,
                fp16=device.type == "cuda",
            )
        segments = [_segment(**{name: row[name] for name in _FIELDS}) for row in result["segments"]]
        return segments, str(result["language"])


class FasterWhisper(Recognizer):
    """faster-whisper with a folder in CTranslate2's format."""

    def __init__(self, params: AsrParams) -> None:
        self.folder = Path(params.model).expanduser()
        if not (self.folder / "model.bin").is_file() and not params.allow_download:
            raise MissingModelError(
                f"asr.model {params.model!r}: no folder with model.bin; faster-whisper needs a "
                "converted model (ct2-transformers-converter) at a local path"
            )
        super().__init__(params, self.folder.name)
        self._model: Any = None

    @property
    def fingerprint(self) -> str:
        """One hash over the folder's files; the name when they are yet to be fetched."""
        if not self.folder.is_dir():
            return self.params.model
        return sha_files([p for p in self.folder.iterdir() if p.is_file()], self.folder)

    def hear(self, sound: np.ndarray, spans: Sequence[Span]) -> tuple[list[Segment], str]:
        """Transcribe the spans of sound."""
        params = self.params
        edges = _in_frames(spans, sound.size)
        if not edges:
            return [], params.language
        if self._model is None:
            try:
                from faster_whisper import WhisperModel
            except ImportError:
                raise MissingDependencyError(
                    "asr.engine faster-whisper: pip install faster-whisper, or use 'whisper'"
                ) from None
            device, _, index = params.device.partition(":")
            self._model = WhisperModel(
                str(self.folder) if self.folder.is_dir() else params.model,
                device=device,
                device_index=int(index or 0),
                local_files_only=not params.allow_download,
            )
        found, info = self._model.transcribe(
            sound,
            language=params.language or None,
            task="transcribe",
            beam_size=params.beam_size,
            temperature=list(params.temperatures),
            condition_on_previous_text=False,
            initial_prompt=params.prompt or None,
            no_speech_threshold=params.no_speech_prob,
            log_prob_threshold=params.min_logprob,
            compression_ratio_threshold=params.max_compression,
            clip_timestamps=edges,
        )
        segments = [_segment(**{name: getattr(one, name) for name in _FIELDS}) for one in found]
        return segments, str(info.language)


def _in_frames(spans: Sequence[Span], samples: int) -> list[float]:
    """Give start, end, start, end, ... on openai-whisper's 10 ms frames, none beyond the last.

    It rounds what it is given, and asked for a frame that does not exist it never returns.
    """
    last = samples // FRAME
    per_second = RATE / FRAME
    edges: list[float] = []
    before = 0
    for start, end in spans:
        first, stop = int(start * per_second), min(last, math.ceil(end * per_second))
        if (first := max(first, before)) < stop:
            edges += [first / per_second, stop / per_second]
            before = stop
    return edges


def _segment(
    *,
    start: float,
    end: float,
    text: str,
    no_speech_prob: float,
    avg_logprob: float,
    compression_ratio: float,
) -> Segment:
    """Make a segment; a model that overflowed (NaN) is as unsure as can be."""
    return Segment(
        start_s=float(start),
        end_s=float(end),
        text=text,
        no_speech_prob=float(no_speech_prob) if np.isfinite(no_speech_prob) else 1.0,
        avg_logprob=float(avg_logprob) if np.isfinite(avg_logprob) else UNSURE,
        compression_ratio=float(compression_ratio),
    )


def _checkpoint(params: AsrParams) -> Path:
    """The checkpoint file: as given, or an official name's in whisper's cache."""
    if not params.model:
        raise MissingModelError("asr.model is empty: name a Whisper checkpoint (large-v3.pt)")
    path = Path(params.model).expanduser()
    if path.is_file():
        return path
    whisper = _whisper()
    if params.model not in whisper.available_models():
        raise MissingModelError(
            f"asr.model {params.model!r}: no such file (`emolib doctor PROFILE` gives the command "
            f"that gets it), and no official name ({', '.join(whisper.available_models())})"
        )
    cached = Path.home() / ".cache" / "whisper" / f"{params.model}.pt"
    if not cached.is_file() and params.allow_download:
        whisper.load_model(params.model, device="cpu", download_root=str(cached.parent))
    if not cached.is_file():
        raise MissingModelError(
            f"asr.model {params.model!r}: not in {cached.parent}; copy the checkpoint there, name "
            "its path, or set asr.allow_download"
        )
    return cached


def _load(path: Path, device: str) -> Any:
    """Load a checkpoint ``{"dims", "model_state_dict"}``, running no code of the file's.

    Raises:
        EngineError: not such a file.
    """
    import torch

    whisper = _whisper()
    try:
        checkpoint = load_tensors(path)
        dims = whisper.ModelDimensions(**checkpoint["dims"])
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
            model = whisper.Whisper(dims)
        model.load_state_dict(checkpoint["model_state_dict"])
    except Exception as error:
        why = str(error).removeprefix(f"{path}: ") or type(error).__name__
        raise EngineError(
            f"{path}: not a Whisper checkpoint (a .pt file with 'dims' and 'model_state_dict'): "
            f"{why.splitlines()[0]}"
        ) from None
    return model.eval().to(device)


def _whisper() -> Any:
    try:
        import whisper
    except ImportError:
        raise MissingDependencyError(
            "hearing words needs openai-whisper: pip install -e '.[train]' -c constraints.txt"
        ) from None
    return whisper


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
