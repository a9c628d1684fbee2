"""Parameters of the discriminative model: features, model, protocol."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from emolib.params.media import FaceParams
from emolib.params.schemas import Schema


class FeatureParams(Schema):
    """One extractor.

    Attributes:
        kind: Weight-free "voice", "picture", "words", or a model by its modality:
            "audio_model" (HuBERT, wav2vec 2.0, WavLM, Whisper's encoder), "visual_model" (CLIP,
            DINOv2, VideoMAE), "text_model" (any encoder or causal language model).
        name: What it is called in tables; "" = the kind, or the model's folder.
        model: Local folder of the weights.
        level: One vector a clip ("utterance") or a sequence ("frame").
        frames: Frames of each clip, evenly spaced ("picture", "visual_model"; VideoMAE takes
            its own number).
        view: What a "visual_model" sees: the aligned "face" crop or the "whole" frame.
        face: How faces are found and cut.
        last_layers: Hidden layers joined, counted from the end ("audio_model", "text_model").
        join: How they are joined.
        chunk_s: Longer sounds are computed in pieces of this length, seconds ("audio_model").
        size: Columns of hashed n-grams, a power of two ("words").
        max_steps: Longer sequences are averaged down to this many steps ("frame").
        batch_size: Clips computed together.
        device: "cpu", "cuda", "cuda:1"; "auto" = a GPU when there is one.
        dtype: Weight type.
    """

    kind: Literal["voice", "picture", "words", "audio_model", "visual_model", "text_model"]
    name: str = ""
    model: str = ""
    level: Literal["utterance", "frame"] = "utterance"
    frames: int = Field(default=6, ge=1)
    view: Literal["face", "whole"] = "face"
    face: FaceParams = FaceParams(size=128)
    last_layers: int = Field(default=4, ge=1)
    join: Literal["sum", "mean"] = "sum"
    chunk_s: float = Field(default=10.0, gt=0)
    size: int = Field(default=2048, ge=2)
    max_steps: int = Field(default=64, ge=1)
    batch_size: int = Field(default=8, ge=1)
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _has_model(self) -> Self:
        if self.kind.endswith("_model") != bool(self.model):
            need = "needs a model folder" if not self.model else "takes no model folder"
            raise ValueError(f"kind {self.kind!r} {need}")
        if self.kind == "words" and self.level == "frame":
            raise ValueError("kind 'words' has no frame level: leave level at 'utterance'")
        if self.size & (self.size - 1):
            raise ValueError(f"size {self.size}: give a power of two")
        return self


class ClassifierParams(Schema):
    """The model and how it is trained.

    Attributes:
        kind: "attention" (MERBench: one encoder a modality, several features of one modality
            side by side), "attention_topn" (one encoder a feature), "lmf" (low-rank form of the
            outer product of the modalities) or "linear" (logistic regression).
        hidden: Width h of the encoders.
        dropout: On the input of every encoder.
        rank: Of "lmf".
        normalise: Softmax over the attention scores; False is the published model, whose
            scores are used as they are.
        standardise: Bring every feature to mean 0, deviation 1 of the training clips; the
            published model does not.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        batch_size: Clips a step; the published model takes 32.
        epochs: At most.
        patience: Epochs without a better inner score after which training stops.
        class_weights: Weigh classes by the inverse of their frequency.
        valence_weight: Weight of the squared error of the valence beside the class loss; 0 =
            no valence output.
        strengths: Inverse regularisation strengths "linear" chooses from.
        pseudo_threshold: Train again with unlabelled clips whose calibrated probability is at
            least this; 0 = never.
        search: Random draws from the published space (h 64, 128, 256; dropout 0.2 to 0.5; rate
            1e-3, 1e-4) tried inside every training set; 0 = take the values above.
    """

    kind: Literal["attention", "attention_topn", "lmf", "linear"] = "attention"
    hidden: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    rank: int = Field(default=4, ge=1)
    normalise: bool = True
    standardise: bool = True
    learning_rate: float = Field(default=1.0e-3, gt=0)
    weight_decay: float = Field(default=1.0e-5, ge=0)
    batch_size: int = Field(default=64, ge=1)
    epochs: int = Field(default=100, ge=1)
    patience: int = Field(default=8, ge=1)
    class_weights: bool = True
    valence_weight: float = Field(default=0.0, ge=0)
    strengths: tuple[float, ...] = Field(default=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0), min_length=1)
    pseudo_threshold: float = Field(default=0.0, ge=0, le=1)
    search: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "linear" and (self.search or self.valence_weight):
            raise ValueError("kind 'linear' has neither search nor valence_weight")
        if any(strength <= 0 for strength in self.strengths):
            raise ValueError("strengths must be above 0")
        return self


class ProtocolParams(Schema):
    """How clips are divided and how often all is repeated.

    Attributes:
        folds: Outer folds; each clip is predicted by the model that was trained without it.
        inner: Part of every training set kept for early stopping, choices and calibration.
        repeats: Runs with other folds and weights; probabilities are averaged.
        by_group: Keep all clips of one group (speaker, source video) in one fold.
    """

    folds: int = Field(default=5, ge=2)
    inner: float = Field(default=0.15, gt=0, lt=0.5)
    repeats: int = Field(default=1, ge=1)
    by_group: bool = True
