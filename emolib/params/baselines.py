"""Recipes of other systems (``params/<profile>/baselines/*.yaml``) and notebook 08's parameters."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from emolib.params.schemas import ModelParams, Schema
from emolib.params.stage import Grouping, StageParams

Input = Literal["frames", "audio", "words"]

#: What a recipe is made of; exactly one of them is given.
_KINDS = ("model", "use", "file", "combine")


class Recipe(Schema):
    """One system of the comparison: what it sees, who answers, and to which question.

    Attributes:
        title: Name in tables.
        inputs: What of a clip the system sees. For "file" what it saw, for the table;
            "combine" takes its parts'.
        model: The model and its decoding, in this process or behind a server.
        use: Instead of ``model``: a name under the profile's ``models``.
        file: Instead of ``model``: a CSV or JSONL of descriptions or labels made elsewhere.
        combine: Instead of ``model``: names of other recipes whose labels are joined.
        rule: How "combine" joins them, see :mod:`emolib.fusion`. "concat" is the paper's.
        interface: "chat" for chat models; "affectgpt" for folders made by
            ``emolib convert affectgpt``, which take eight frames and eight bits of sound.
        prompt: "describe" (the paper's question to AffectGPT, its clues those of ``inputs``),
            "zero-shot" or "caption" (the paper's), or words of your own; ``{text}`` stands for
            what is said. With "affectgpt" the name of one of its prompts, e.g. "paper".
        system: System message; "" keeps the model's own.
        frames: Pictures of each clip ("chat").
        sampling: "segments": one at random of each of ``frames`` equal parts; "uniform": the
            middles of the parts.
        seconds: Longest sound that is heard; the rest is left out, and the row says so.
    """

    title: str = Field(min_length=1)
    inputs: tuple[Input, ...] = ()
    model: ModelParams | None = None
    use: str = ""
    file: str = ""
    combine: tuple[str, ...] = ()
    rule: Literal["concat", "union", "majority"] = "concat"
    interface: Literal["chat", "affectgpt"] = "chat"
    prompt: str = "describe"
    system: str = ""
    frames: int = Field(default=6, ge=1)
    sampling: Literal["segments", "uniform"] = "segments"
    seconds: float = Field(default=30.0, gt=0)

    @field_validator("inputs", "combine")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"{list(value)} names one twice")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in _KINDS if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(f"model: give exactly one of {list(_KINDS)}, not {given or 'none'}")
        if self.combine and (self.inputs or len(self.combine) < 2):
            raise ValueError("combine: names two or more recipes, and `inputs` are theirs")
        if not self.combine and not self.inputs:
            raise ValueError("inputs: empty: choose from ['frames', 'audio', 'words']")
        if self.interface == "affectgpt" and self.model and self.model.engine != "transformers":
            raise ValueError("interface: AffectGPT's folders run by engine transformers only")
        return self

    def answering(self, models: dict[str, ModelParams]) -> ModelParams | None:
        """The model that answers; None for what is read from a file or joined."""
        return models[self.use] if self.use else self.model


class Baselines(StageParams):
    """Notebook 08: other systems on the same clips and score.

    Attributes:
        recipes: Every file of ``params/<profile>/baselines``, by its name without suffix.
        systems: Names of the recipes that are run, in this order; () = all.
        missing: What happens when a system cannot be opened (no weights, no server): "stop"
            with an error after all others have answered, or "skip" it and say so.
        extractors: Names under ``models`` of LLMs that turn descriptions into labels. Labels
            found without an LLM are always scored as well.
        split: Only clips of this split; "" = all.
        grouping: How synonyms are grouped for the score.
        groups: Stored answers of "cached", or the folder of the wheel tables; "" = none needed.
        resamples: Bootstrap resamples behind every interval.
    """

    MODELS: ClassVar[tuple[str, ...]] = ("extractors",)

    recipes: dict[str, Recipe] = Field(default_factory=dict)
    systems: tuple[str, ...] = ()
    missing: Literal["stop", "skip"] = "stop"
    extractors: tuple[str, ...] = ()
    split: str = ""
    grouping: Grouping = "lexicon"
    groups: str = ""
    resamples: int = Field(default=10_000, ge=100)

    @model_validator(mode="after")
    def _named_recipes_exist(self) -> Self:
        names = sorted(self.recipes)
        titles = [recipe.title for recipe in self.recipes.values()]
        for name, recipe in self.recipes.items():
            if titles.count(recipe.title) > 1:
                raise ValueError(f"recipes.{name}.title: {recipe.title!r} is given twice")
        for name in self.systems:
            if name not in self.recipes:
                raise ValueError(f"systems: no recipe {name!r}: choose from {names}")
        for name, recipe in self.recipes.items():
            where = f"recipes.{name}"
            if name in self.models:
                raise ValueError(f"{where}: a model of the profile has the same name")
            if recipe.use and recipe.use not in self.models:
                choices = sorted(self.models)
                raise ValueError(f"{where}.use: no model {recipe.use!r}: choose from {choices}")
            for part in recipe.combine:
                if part not in self.recipes or self.recipes[part].combine:
                    plain = [n for n in names if not self.recipes[n].combine]
                    raise ValueError(f"{where}.combine: no plain recipe {part!r}, only {plain}")
        return self

    def chosen(self) -> dict[str, Recipe]:
        """The recipes to run; parts of combinations come before them."""
        names = self.systems or tuple(self.recipes)
        parts = [part for name in names for part in self.recipes[name].combine]
        ordered = sorted({*names, *parts}, key=[*names, *parts].index)
        ordered.sort(key=lambda name: bool(self.recipes[name].combine))
        return {name: self.recipes[name] for name in ordered}

    def used_models(self) -> dict[str, ModelParams]:
        """Return the extractors and the models of the chosen recipes, by a name for people."""
        found = {name: recipe.answering(self.models) for name, recipe in self.chosen().items()}
        return super().used_models() | {
            f"baseline {name}": model for name, model in found.items() if model is not None
        }

    def identity(self) -> dict[str, Any]:
        """Return what the result depends on; recipes that are not run play no part."""
        chosen = {name: recipe.identity() for name, recipe in self.chosen().items()}
        return super().identity() | {"recipes": chosen}

    def used_files(self) -> dict[str, str]:
        """Files of the chosen recipes that were made elsewhere, by recipe."""
        return {name: recipe.file for name, recipe in self.chosen().items() if recipe.file}
