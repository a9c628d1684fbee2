"""From parameters to an extractor, weight-free or a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from emolib.datasets.clip import Clip
from emolib.errors import MissingModelError, ParamsError
from emolib.features.cache import FeatureCache
from emolib.features.statistics import PictureStatistics, VoiceStatistics, WordStatistics
from emolib.features.table import Extractor, FeatureTable, feature_table
from emolib.params.cluster import ClusterParams
from emolib.params.discriminative import FeatureParams


def open_extractor(params: FeatureParams) -> Extractor:
    """Open the extractor ``params`` names; models are loaded when the first clip needs them.

    Raises:
        MissingModelError: no model in the folder.
    """
    made: Extractor
    if params.kind == "voice":
        made = VoiceStatistics(params.level)
    elif params.kind == "picture":
        made = PictureStatistics(params.level, params.frames, params.face)
    elif params.kind == "words":
        made = WordStatistics(params.size)
    elif params.kind == "audio_model":
        from emolib.models.features.audio import AudioExtractor

        made = AudioExtractor(params)
    elif params.kind == "visual_model":
        from emolib.models.features.visual import VisualExtractor

        made = cast(Extractor, VisualExtractor(params))
    else:
        from emolib.models.features.text import TextExtractor

        made = TextExtractor(params)
    if params.name:
        made.name = params.name
    return made


def feature_tables(
    clips: Sequence[Clip],
    features: Sequence[FeatureParams],
    cache: Path,
    *,
    cluster: ClusterParams | None = None,
) -> list[FeatureTable]:
    """Features of all clips by every extractor, from the cache where they are known.

    With a cluster its workers read the clips and compute, each with a copy of the extractor.
    Every model is opened but for its weights before the first feature is computed.

    Raises:
        ParamsError: two extractors have one name.
        MissingModelError: models that cannot be loaded, all of them by name.
        DataError: an extractor could not compute a single clip.
    """
    extractors = [open_extractor(params) for params in features]
    names = [extractor.name for extractor in extractors]
    if len(set(names)) != len(names):
        raise ParamsError(f"features: names {names} are not all different; give each a `name`")
    problems = []
    for extractor in extractors:
        try:
            getattr(extractor, "check", lambda: None)()
        except MissingModelError as error:
            problems.append(str(error))
    if problems:
        raise MissingModelError("features: " + "\n".join(problems))
    store = FeatureCache(cache)
    return [
        feature_table(
            clips,
            extractor,
            store,
            max_steps=params.max_steps,
            cluster=cluster,
            gpus=cluster.gpus if cluster and _on_gpu(params) else 0.0,
        )
        for extractor, params in zip(extractors, features, strict=True)
    ]


def _on_gpu(params: FeatureParams) -> bool:
    return params.kind.endswith("_model") and params.device != "cpu"
