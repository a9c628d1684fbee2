"""Parameters of what is cut out of the pictures, and of what is heard."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from emolib.params.schemas import OPERATIONAL, Schema


class FaceParams(Schema):
    """How faces are found, chosen and cut out.

    Attributes:
        detector: "haar" (OpenCV's own cascades, nothing to download) or "face_alignment" (the
            package of that name: S3FD boxes and 68 landmarks, weights needed).
        size: Side of the crop, pixels.
        choose: Of several faces the "largest" or the most "central" one; within a clip the
            one nearest to the face before it goes first.
        missing: What a frame without a face gives: the whole frame inside a black
            square of the same side ("letterbox"), or as it is, in its own size ("frame").
        eye_distance: Distance between the eyes in the crop, as a fraction of its side.
        eye_height: Height of the eyes in the crop from its top, as a fraction of its side.
        margin: Without eyes: side of the cut square over the side of the face box.
        min_face: Smallest face searched, as a fraction of the frame's shorter side.
        detect_side: Frames are searched at this longer side at most, pixels ("haar").
        neighbours: Overlapping hits a face needs ("haar"): more means fewer false faces and
            more missed ones.
        min_score: Least probability of a face ("face_alignment").
        device: Where "face_alignment" runs: "cpu", "cuda", "cuda:1".
        weights: Folder in torch hub's layout (``checkpoints/s3fd-619a316812.pth`` and
            ``checkpoints/2DFAN4-11f355bf06.pth.tar``) for "face_alignment"; "" = torch hub's own.
        allow_download: "face_alignment" may fetch missing weights.
        flip: "face_alignment" averages over the mirrored picture too: twice the time.
        compile: "face_alignment" compiles its network: slow start, faster after.
        batch: Pictures, and faces, "face_alignment" takes at once.
    """

    detector: Literal["haar", "face_alignment"] = "haar"
    size: int = Field(default=448, ge=16, le=4096)
    choose: Literal["largest", "central"] = "largest"
    missing: Literal["letterbox", "frame"] = "letterbox"
    eye_distance: float = Field(default=0.32, gt=0.05, lt=0.9)
    eye_height: float = Field(default=0.42, gt=0.05, lt=0.95)
    margin: float = Field(default=1.25, ge=1, le=4)
    min_face: float = Field(default=0.1, gt=0, le=1)
    detect_side: int = Field(default=640, ge=64)
    neighbours: int = Field(default=4, ge=1)
    min_score: float = Field(default=0.5, ge=0, le=1)
    device: str = "cpu"
    weights: str = ""
    allow_download: bool = False
    flip: bool = False
    compile: bool = False
    batch: int = Field(default=8, ge=1)


class DecodeParams(Schema):
    """How video and sound files are decoded; no result depends on it.

    Attributes:
        isolate: In worker processes, where a crash or a hang costs one file; false = in the
            notebook's own process.
        timeout_s: Seconds one file may take before its worker is ended and it is quarantined.
        workers: Files decoded side by side where a stage reads many.
        retry: Try quarantined files again.
    """

    isolate: Annotated[bool, OPERATIONAL] = True
    timeout_s: Annotated[float, OPERATIONAL] = Field(default=180.0, gt=0)
    workers: Annotated[int, OPERATIONAL] = Field(default=2, ge=1)
    retry: bool = False


class AsrParams(Schema):
    """How words are heard where no official subtitle is known.

    Attributes:
        engine: "whisper" (openai-whisper) or "faster-whisper" (CTranslate2; its package is not
            part of any extra).
        model: "whisper": checkpoint file (``large-v3.pt``), or an official name whose file lies
            in whisper's cache. "faster-whisper": folder of a converted model. "" = nothing is
            heard.
        allow_download: Fetch an official name that is not there.
        device: "cpu", "cuda", "cuda:1", ...; "auto" = a GPU when there is one.
        language: Two letters ("zh", "en"); "" = found out for each clip.
        prompt: Text the decoder believes to have been said before; a sentence in simplified
            characters makes it write them. "" = none.
        beam_size: Hypotheses kept at temperature 0.
        temperatures: Tried in turn while an answer is too repetitive or too unsure; above 0
            words are sampled, with a fixed seed.
        silence_db: Sound that is never louder is not shown to the model, dB of full scale.
        min_speech_s: A clip with less sound than this above ``silence_db`` has no words.
        no_speech_prob: A segment is silence when the model gives silence more than this ...
        min_logprob: ... and its words less than this on average (log probability a token).
        max_compression: A segment that compresses better than this is a loop and dropped.
        phrases: Drop phrases speech models are known to invent (``emolib/media/phrases.csv``).
        simplified: Write Chinese in simplified characters.
    """

    engine: Literal["whisper", "faster-whisper"] = "whisper"
    model: str = ""
    allow_download: Annotated[bool, OPERATIONAL] = False
    device: Annotated[str, OPERATIONAL] = "auto"
    language: str = ""
    prompt: str = ""
    beam_size: int = Field(default=5, ge=1)
    temperatures: tuple[float, ...] = Field(default=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), min_length=1)
    silence_db: float = Field(default=-50.0, ge=-120, le=0)
    min_speech_s: float = Field(default=0.2, ge=0)
    no_speech_prob: float = Field(default=0.6, ge=0, le=1)
    min_logprob: float = Field(default=-1.0, le=0)
    max_compression: float = Field(default=2.4, gt=1)
    phrases: bool = True
    simplified: bool = True
