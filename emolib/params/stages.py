"""One schema a notebook. What a value means stands here; the paper's values are in ``params/``."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from emolib.params.affectgpt import Answer, Perspective, Preset, SftParams
from emolib.params.baselines import Baselines
from emolib.params.discriminative import ClassifierParams, FeatureParams, ProtocolParams
from emolib.params.fusion import CurveParams, FusionParams, check_systems
from emolib.params.media import FaceParams
from emolib.params.schemas import DataParams
from emolib.params.stage import Grouping, StageParams
from emolib.params.training import GateParams, LoraParams


class DataCheck(StageParams):
    """Notebook 00: what there is.

    Attributes:
        gallery: Clips shown as pictures; 0 = none.
        check_media: Open every file and read its header and tracks.
    """

    gallery: int = Field(default=6, ge=0)
    check_media: bool = True

    @model_validator(mode="after")
    def _no_videos_to_look_at(self) -> Self:
        if self.data.media == "none" and (self.gallery or self.check_media):
            field = "check_media" if self.check_media else "gallery"
            raise ValueError(
                f"{field}: data.media is none, there are no videos to look at: set "
                "check_media: false and gallery: 0"
            )
        return self


class DataGeneration(StageParams):
    """Notebook 01: captions of images by several models (paper section 3.1.2).

    Attributes:
        split: Only clips of this split; "" = all.
        generators: Names under ``models``, at least two different ones.
        frames: Images taken of each clip, one at random from each of as many equal parts.
    """

    MODELS: ClassVar[tuple[str, ...]] = ("generators",)

    split: str = ""
    generators: tuple[str, ...] = Field(min_length=2)
    frames: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.generators)) != len(self.generators):
            raise ValueError(f"generators: {list(self.generators)} names one model twice")
        return self


class CaptionFilter(StageParams):
    """Notebook 02: the judge and its threshold (paper section 3.1.2).

    Attributes:
        captions: Run folder of notebook 01.
        judge: Name under ``models``.
        threshold: Pairs whose similarity is below are dropped; exactly at it they stay.
        max_pairs: At most this many pairs are kept, drawn at random; 0 = all.
        scoring: Where the similarity is read: "text", the number in the answer (paper);
            "expected", the mean of the numbers the judge might have written; "yes-no", its
            probability of yes to a question of its own. The last two need token probabilities.
        both_orders: Ask about each pair twice, the captions swapped; the mean decides.
        audit_pairs: Pairs on the page for people to look at; 0 = no page.
        marks: ``marks.csv`` saved from that page; "" = nobody has looked yet.
    """

    INPUTS: ClassVar[tuple[str, ...]] = ("captions",)
    MODELS: ClassVar[tuple[str, ...]] = ("judge",)

    captions: str
    judge: str
    threshold: float = Field(default=0.9, ge=0, le=1)
    max_pairs: int = Field(default=26_000, ge=0)
    scoring: Literal["text", "expected", "yes-no"] = "text"
    both_orders: bool = False
    audit_pairs: int = Field(default=100, ge=0)
    marks: str = ""

    def input_paths(self) -> dict[str, Path]:
        """The file of marks counts as an input: its content is part of the run's key."""
        return super().input_paths() | ({"marks": Path(self.marks)} if self.marks else {})


class InternVLLora(StageParams):
    """Notebook 03: zero-shot, LoRA fine-tuning, fine-tuned (paper sections 2.1 and 3.2).

    Attributes:
        split: Only clips of this split; "" = all.
        pairs: Run folder of notebook 02. "" = the demo set's own image descriptions.
        min_pairs: With fewer kept pairs the demo set's own descriptions are used instead, and
            the notebook says so; any other data set stops with an error.
        model: Name under ``models``.
        frames: Frames of each test clip, one at random from each of as many equal parts.
        lora: Training recipe; None = nothing is trained, zero-shot predictions alone.
        gate: Parity gate before the fine-tuned model is scored.
        grouping: How synonyms are grouped for the score.
        groups: Stored answers of "cached", or the folder of the wheel tables; "" = none needed.
    """

    INPUTS: ClassVar[tuple[str, ...]] = ("pairs",)
    MODELS: ClassVar[tuple[str, ...]] = ("model",)

    pairs: str = ""
    split: str = ""
    min_pairs: int = Field(default=8, ge=1)
    model: str
    frames: int = Field(default=6, ge=1)
    lora: LoraParams | None = LoraParams()
    gate: GateParams = GateParams()
    grouping: Grouping = "lexicon"
    groups: str = ""

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        if self.lora is not None and self.models[self.model].engine == "server":
            raise ValueError(f"model: {self.model!r} is behind a server and cannot be trained here")
        if self.models[self.model].load_in_4bit:
            raise ValueError(
                f"model: {self.model!r} has load_in_4bit, and training merges into whole weights"
            )
        return self


class AffectGPTSft(StageParams):
    """Notebook 04: AffectGPT's branches trained, then asked from every side (paper section 2.2).

    Attributes:
        model: Name under ``models``: a converted AffectGPT or Video-LLaMA folder.
        summarisers: Names under ``models`` of LLMs that turn descriptions into labels (paper:
            InternVL). Labels found without an LLM are always scored as well.
        test: Test clips to draw (paper: 66 of 332); 0 = the data set's own split.
        val: Validation clips to draw from the training clips; 0 = the data set's own, if any.
        pictures: Folder of MiniGPT-4's captioned pictures (``cc_sbu_align``); "" = frames of the
            demo set, which other data sets do not have.
        picture_share: Part of all training rows that are pictures (published code: one half).
        preset: Prompt of training and of inference alike; "" = the one the model's folder names.
        answer: What is learnt and asked: the description, the label list alone (2025), or both,
            each a training row of its own; then the list is what is scored.
        view: What a model sees of a video: the whole frames, or the face cut out of them (2025).
        face: How it is cut out.
        views: What of a clip predictions see; each is scored by itself.
        views_before: The same for the model as it was before training.
        recipe: Training recipe.
        seeds: One training each.
        checkpoint: "best" on validation, "last", or epochs like "30-60", each tested by itself.
        grouping: How synonyms are grouped for the score.
        groups: Stored answers of "cached", or the folder of the wheel tables; "" = none needed.
    """

    MODELS: ClassVar[tuple[str, ...]] = ("model", "summarisers")

    model: str
    summarisers: tuple[str, ...] = ()
    test: int = Field(default=0, ge=0)
    val: int = Field(default=0, ge=0)
    pictures: str = ""
    picture_share: float = Field(default=0.5, ge=0, lt=1)
    preset: Preset = ""
    answer: Answer = "description"
    view: Literal["whole", "face"] = "whole"
    face: FaceParams = FaceParams(size=224)
    views: tuple[Perspective, ...] = ("all", "video", "audio", "text")
    views_before: tuple[Perspective, ...] = ("all", "video", "audio", "text")
    recipe: SftParams = SftParams()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    checkpoint: str = Field(default="best", pattern=r"^(best|last|\d+-\d+)$")
    grouping: Grouping = "lexicon"
    groups: str = ""

    @model_validator(mode="after")
    def _all_together(self) -> Self:
        for name in ("views", "views_before"):
            if "all" not in getattr(self, name):
                raise ValueError(f"{name}: 'all' is what the paper reports: keep it in the list")
        for name in ("views", "views_before", "seeds", "summarisers"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name}: {list(getattr(self, name))} names one twice")
        if any(seed < 0 for seed in self.seeds):
            raise ValueError("seeds: no negative ones")
        return self

    @model_validator(mode="after")
    def _a_checkpoint_will_be_there(self) -> Self:
        # A drawn split has no validation clips but drawn ones; else the data set may have some.
        self.recipe.check_policy(self.checkpoint, validation=bool(self.val or not self.test))
        return self


class FaceAblation(StageParams):
    """Notebook 05: whole image, aligned face crop, and both (paper section 3.2.2).

    Attributes:
        split: Only clips of this split; "" = all.
        model: Name under ``models``. Its ``max_tiles`` is a most here: all arms share the finest
            tiling at which both pictures of every frame fit.
        frames: Frames of each clip, the same ones in all arms.
        face: Detector and crop.
        face_px: Bounds between small and large faces, pixels of the video, ascending; [] = such
            that each third of the clips with a face makes a part.
        grouping: How synonyms are grouped for the score.
        groups: Stored answers of "cached", or the folder of the wheel tables; "" = none needed.
    """

    MODELS: ClassVar[tuple[str, ...]] = ("model",)

    model: str
    split: str = ""
    frames: int = Field(default=6, ge=1)
    face: FaceParams = FaceParams()
    face_px: tuple[float, ...] = ()
    grouping: Grouping = "lexicon"
    groups: str = ""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(a >= b for a, b in pairwise((0.0, *self.face_px))):
            raise ValueError(f"face_px: {list(self.face_px)}: give ascending numbers above 0")
        return self


class DiscriminativeModel(StageParams):
    """Notebook 06: six classes from features, out-of-fold and as published (system S9).

    Attributes:
        classes: CSV with ``name, discrete`` (MER2024's ``label-disdim.csv``); "" reduces the
            clips' open-vocabulary labels to classes.
        unlabelled: Further clips without class (the SEMI track's unlabelled set), which get
            predictions, and pseudo-labels with ``classifier.pseudo_threshold``; None = none.
        features: Extractors.
        classifier: The model.
        baseline: Also train the linear model under the same protocol.
        protocol: Folds and repeats.
        as_published: Also reproduce the contaminated variant, whose models have seen the clips.
        resamples: Bootstrap resamples behind every interval.
    """

    classes: str = ""
    unlabelled: DataParams | None = None
    features: tuple[FeatureParams, ...] = Field(min_length=1)
    classifier: ClassifierParams = ClassifierParams()
    baseline: bool = True
    protocol: ProtocolParams = ProtocolParams()
    as_published: bool = True
    resamples: int = Field(default=10_000, ge=100)

    def input_paths(self) -> dict[str, Path]:
        """The file of classes counts as an input: its content is part of the run's key."""
        return {"classes": Path(self.classes)} if self.classes else {}


class FusionAnalysis(StageParams):
    """Notebook 07: co-judgment and the paper's tables (paper section 2.3).

    Attributes:
        split: Only clips of this split; "" = all.
        lora_run: Run folder of notebook 03 (zero-shot and fine-tuned predictions).
        face_run: Run folder of notebook 05 (face-crop predictions).
        discriminative_run: Run folder of notebook 06 (six-class predictions).
        affectgpt_run: Run folder of notebook 04 (AffectGPT on its own test clips); "" = none.
        affectgpt_system: Which system of that run.
        text_data: A set with one of six classes and a transcript for each clip. A text model
            learns from those that are not scored and is the system "text"; transcripts of scored
            clips are taken from it. None = no such system.
        fusion: What is fused and how.
        sets: Further sets of systems, fused in the same way and compared: name -> systems.
        curves: Learning curves.
        co_judges: Names under ``models`` of LLMs that are shown the candidates and choose.
        gallery: Clips shown with frames, words and labels: half won, half lost; 0 = none.
        grouping: How synonyms are grouped for the score.
        groups: Stored answers of "cached", or the folder of the wheel tables; "" = none needed.
        resamples: Bootstrap resamples behind every interval.
    """

    INPUTS: ClassVar[tuple[str, ...]] = (
        *("lora_run", "face_run", "discriminative_run"),
        "affectgpt_run",
    )
    MODELS: ClassVar[tuple[str, ...]] = ("co_judges",)

    lora_run: str = ""
    face_run: str = ""
    discriminative_run: str = ""
    affectgpt_run: str = ""
    affectgpt_system: str = "AffectGPT-SFT"
    text_data: DataParams | None = None
    fusion: FusionParams = FusionParams()
    sets: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    curves: CurveParams = CurveParams()
    co_judges: tuple[str, ...] = ()
    gallery: int = Field(default=6, ge=0)
    split: str = ""
    grouping: Grouping = "lexicon"
    groups: str = ""
    resamples: int = Field(default=10_000, ge=100)

    @field_validator("sets")
    @classmethod
    def _systems_known(cls, sets: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for systems in sets.values():
            check_systems(systems)
        return sets

    @model_validator(mode="after")
    def _something_to_read(self) -> Self:
        runs = ("lora_run", "face_run", "discriminative_run")
        for field in runs if self.released is None else ():
            if not getattr(self, field):
                raise ValueError(
                    f"{field}: empty: give the run folder of the earlier notebook, e.g. "
                    f"`-p {field} outputs/...` to papermill; `emolib run` fills it in. Without "
                    "runs, name published outputs (`released`)"
                )
        return self


SCHEMAS: dict[str, type[StageParams]] = {
    "00_data_check": DataCheck,
    "01_data_generation": DataGeneration,
    "02_caption_filtering": CaptionFilter,
    "03_internvl_lora": InternVLLora,
    "04_affectgpt_sft": AffectGPTSft,
    "05_face_crop_ablation": FaceAblation,
    "06_discriminative_model": DiscriminativeModel,
    "07_fusion_analysis": FusionAnalysis,
    "08_baselines": Baselines,
}
