"""All systems of a comparison, one model open at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emolib import budget, summaries
from emolib.baselines import chat, joined, stored
from emolib.datasets.clip import Clip
from emolib.engines import open_engine
from emolib.engines.base import Engine
from emolib.errors import DataError, EngineError, MissingDependencyError
from emolib.ledger import Ledger
from emolib.params.baselines import Recipe
from emolib.params.cluster import ClusterParams
from emolib.params.schemas import ModelParams
from emolib.predict import Prediction

#: What keeps one system out without being the others' concern.
UNAVAILABLE = (DataError, EngineError, MissingDependencyError)


@dataclass(slots=True)
class Ran:
    """What became of the systems.

    Attributes:
        predictions: Recipe name -> one prediction a clip.
        absent: Recipe name -> why there are none.
    """

    predictions: dict[str, list[Prediction]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def check(self, missing: str) -> None:
        """Stop if a system is missing, unless that is allowed.

        Args:
            missing: "stop" or "skip", see :class:`emolib.params.baselines.Baselines`.

        Raises:
            EngineError: names every absent system and why; what the others answered is kept.
        """
        if self.absent and missing == "stop":
            why = "\n".join(f"{name}: {reason}" for name, reason in self.absent.items())
            raise EngineError(
                f"{len(self.absent)} of {len(self.absent) + len(self.predictions)} systems could "
                f"not be opened; the others' answers are kept.\n{why}\nMend them, leave them out "
                "of `systems`, or set `missing: skip`",
                transient=True,
            )


def run_systems(
    clips: Sequence[Clip],
    recipes: Mapping[str, Recipe],
    models: Mapping[str, ModelParams],
    ledger: Ledger,
    *,
    seed: int = 0,
    cache: Path | None = None,
    cluster: ClusterParams | None = None,
) -> Ran:
    """Describe every clip with every system; a system that cannot be opened stops no other.

    Args:
        clips: The clips.
        recipes: Parts of combinations before them, as
            :meth:`emolib.params.baselines.Baselines.chosen` gives them.
        models: The profile's models, for recipes that ``use`` one.
        ledger: Finds and keeps the answers.
        seed: Seed of the frames.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.
        cluster: Where copies of the models answer, AffectGPT's apart; None = this process.
    """
    ran = Ran()
    for name, recipe in recipes.items():
        try:
            if recipe.combine:
                lost = [part for part in recipe.combine if part in ran.absent]
                if lost:
                    raise DataError(f"its part {lost[0]!r} is missing")
                parts = {part: ran.predictions[part] for part in recipe.combine}
                ran.predictions[name] = joined.join(recipe, parts)
            elif recipe.file:
                ran.predictions[name] = stored.read(recipe, clips)
            else:
                model = recipe.answering(dict(models))
                assert model is not None
                ran.predictions[name] = _ask(
                    *(clips, name, recipe, model, ledger), seed=seed, cache=cache, cluster=cluster
                )
        except UNAVAILABLE as error:
            ran.absent[name] = str(error)
            print(f"{name}: not run: {error}")
    return ran


def _ask(
    clips: Sequence[Clip],
    name: str,
    recipe: Recipe,
    model: ModelParams,
    ledger: Ledger,
    *,
    seed: int,
    cache: Path | None,
    cluster: ClusterParams | None,
) -> list[Prediction]:
    if recipe.interface == "affectgpt":
        from emolib.baselines import branches
        from emolib.models.affectgpt.engine import AffectGPTEngine

        branches.preset_of(recipe)
        with AffectGPTEngine(model, name, cache=cache) as affectgpt:
            return branches.describe(clips, recipe, affectgpt, ledger)
    if "frames" in recipe.inputs:
        fitted = budget.fit(
            model,
            clips,
            frames=recipe.frames,
            cache=cache,
            prompt=lambda clip: chat.prompt_of(clip, recipe),
            system=recipe.system,
            seconds=recipe.seconds if "audio" in recipe.inputs else 0.0,
        )
        if fitted.longest >= 0:
            print(f"{name}: {fitted.note}")
        model = fitted.model
    with open_engine(model, name=name, cache=cache, cluster=cluster) as engine:
        return chat.describe(clips, recipe, engine, ledger, seed=seed)


def labels_by(
    engine: Engine, ran: Mapping[str, Sequence[Prediction]], ledger: Ledger
) -> dict[str, list[Prediction]]:
    """The second step by a language model: labels out of every system's descriptions.

    Args:
        engine: The language model.
        ran: Recipe name -> predictions.
        ledger: Finds and keeps its answers.

    Returns:
        "<recipe>, labels by <engine>" -> predictions; their system names end alike. Systems that
        gave labels only have nothing to read.
    """
    by = f", labels by {engine.name}"
    return {
        name + by: summaries.summarise(rows, engine, ledger, system=rows[0].system + by)
        for name, rows in ran.items()
        if any(row.description for row in rows)
    }
