"""Sounds of the world's clips as mel spectrograms on disk: spoken once, heard by every training.

Every voice goes through AAC, as in the clips' files, and is cut and transformed by the model's own
feature extractor.
"""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

from emolib.datasets.demo import spec, voice, world
from emolib.demo.pictures import World
from emolib.files import write_json
from emolib.hashing import key_of
from emolib.models.affectgpt.sound import ImageBindFeatureExtractor
from emolib.progress import Progress

VERSION = 1  # raised when the same parameters would give other sounds
_BATCH = 50
STATES = {"core": 16, "voice": 8, "noun": 2}


@dataclass(frozen=True)
class Sounds:
    """Spoken clips.

    Attributes:
        world: Which; pictures have no part in it.
        mel: float16 [clips, pieces, 1, bins, frames], on disk.
        states: Name -> int64 [clips], see :data:`STATES`; "voice" 0 = nothing of the kind.
    """

    world: World
    mel: np.ndarray
    states: dict[str, np.ndarray]


def spoken(wanted: World, pieces: int, cache: Path, workers: int = 1) -> Sounds:
    """Open the sounds of a world, making them on first use (some 50 ms a clip and core).

    Args:
        wanted: Which clips; ``frames`` and ``size`` do not count.
        pieces: Two-second pieces a clip.
        cache: Folder of all sounds; 52 kB a piece.
        workers: Processes.
    """
    about = {"version": VERSION, "pieces": pieces} | {
        key: value for key, value in asdict(wanted).items() if key not in ("frames", "size")
    }
    folder = cache / f"sounds-{key_of(**about)[:12]}"
    if not (folder / "done.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        shape = (wanted.clips, pieces, 1, 128, 204)
        mel = np.lib.format.open_memmap(folder / "mel.npy", "w+", np.float16, shape)
        parts = [range(i, min(i + _BATCH, wanted.clips)) for i in range(0, wanted.clips, _BATCH)]
        with (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
            Progress("sounds", wanted.clips, unit="clip") as bar,
        ):
            jobs = pool.map(_speak, [wanted] * len(parts), [pieces] * len(parts), parts)
            for part, made in zip(parts, jobs, strict=True):
                mel[part.start : part.stop] = made
                bar.advance(len(part))
        mel.flush()
        write_json(folder / "done.json", about)
    return Sounds(wanted, np.load(folder / "mel.npy", mmap_mode="r"), states(wanted))


def _speak(wanted: World, pieces: int, part: range) -> np.ndarray:
    extractor = ImageBindFeatureExtractor(num_clips=pieces)
    found = []
    for index in part:
        clip = wanted.spec(index)
        samples = coded(voice.synthesise(clip, spec.speech(clip)))
        found.append(extractor.extract(samples[None], spec.RATE).astype(np.float16))
    return np.stack(found)


def coded(samples: np.ndarray) -> np.ndarray:
    """Encode and decode as the clips' files do: float32 [samples] at 16 kHz."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=spec.RATE, layout="mono")
        stream.bit_rate = 40_000
        block = stream.codec_context.frame_size or 1024
        for start in range(0, len(samples), block):
            piece = np.ascontiguousarray(samples[None, start : start + block])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = spec.RATE, start
            frame.time_base = Fraction(1, spec.RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.concatenate(parts)[: len(samples)].astype(np.float32)


def states(wanted: World) -> dict[str, np.ndarray]:
    """What an audio tower learns to tell."""
    cores = [f"core.{name}.{degree}" for name in world.CORES for degree in ("mild", "strong")]
    voices = ["", *(state.name for state in world.SECONDARY["voice"])]
    rows = []
    for index in range(wanted.clips):
        clip = wanted.spec(index)
        core = cores.index(clip.latent.concept("core"))
        rows.append((core, voices.index(clip.latent.voice), int(clip.who.noun == "woman")))
    return {
        name: np.array(values) for name, values in zip(STATES, zip(*rows, strict=True), strict=True)
    }
