"""What every stage's parameters have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import Field, model_validator

from emolib.params.cluster import ClusterParams
from emolib.params.media import AsrParams, DecodeParams
from emolib.params.schemas import OPERATIONAL, DataParams, ModelParams, ReleasedParams, Schema

Grouping = Literal["exact", "cached", "lexicon", "ew2025", "ew2026"]


class StageParams(Schema):
    """What every stage has; mostly set once a profile, in ``_base.yaml``.

    Attributes:
        profile: Folder of ``params/`` whose ``_base.yaml`` this stage stands on.
        seed: The only source of randomness of the stage.
        data: The clips.
        models: Models by the names the stages call them.
        asr: How words are heard where no official subtitle is known; no model = they stay unknown.
        cluster: Machines that frames, features and answers are computed on.
        decode: Limits of the processes that decode videos.
        released: Published outputs of other models on these clips; None = none.
        wheels: Folder of the official emotion-wheel tables of 2026, under which published outputs
            are scored in addition; "" or no such folder = they are not, and it is reported.
        outputs: Folder of all runs, relative to the project root.
        run_dir: This run's folder; "" makes a new one under ``outputs``.
    """

    INPUTS: ClassVar[tuple[str, ...]] = ()
    MODELS: ClassVar[tuple[str, ...]] = ()

    profile: str
    seed: int = Field(default=0, ge=0)
    data: DataParams = DataParams()
    models: dict[str, ModelParams] = Field(default_factory=dict)
    asr: AsrParams = AsrParams()
    cluster: Annotated[ClusterParams, OPERATIONAL] = ClusterParams()
    decode: DecodeParams = DecodeParams()
    released: ReleasedParams | None = None
    wheels: str = ""
    outputs: Annotated[str, OPERATIONAL] = "outputs"
    run_dir: Annotated[str, OPERATIONAL] = ""

    @model_validator(mode="after")
    def _models_exist(self) -> Self:
        for field in self.MODELS:
            value = getattr(self, field)
            for name in (value,) if isinstance(value, str) else value:
                if name not in self.models:
                    choices = sorted(self.models)
                    raise ValueError(f"{field}: no model {name!r} under `models`, only {choices}")
        return self

    @model_validator(mode="after")
    def _inputs_given(self) -> Self:
        for field in self.INPUTS:
            if not getattr(self, field) and type(self).model_fields[field].is_required():
                raise ValueError(
                    f"{field}: empty: give the run folder of the earlier notebook, e.g. "
                    f"`-p {field} outputs/...` to papermill; `emolib run` fills it in"
                )
        return self

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How a notebook shows it: as YAML, what is left at its default left out."""
        values = self.model_dump(mode="json", exclude_defaults=True, exclude={"run_dir"})
        printer.text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())

    def used_models(self) -> dict[str, ModelParams]:
        """Return the models this stage asks or trains, by name; others of the profile are not."""
        values = [getattr(self, field) for field in self.MODELS]
        names = {n for v in values for n in ((v,) if isinstance(v, str) else v)}
        return {name: self.models[name] for name in sorted(names)}

    def identity(self) -> dict[str, Any]:
        """Return the values that the stage's result depends on, of models only the used ones."""
        used = {name: model.identity() for name, model in self.used_models().items()}
        return super().identity() | {"models": used}

    def input_paths(self) -> dict[str, Path]:
        """Run folders or files of earlier stages this stage reads, by parameter name."""
        return {name: Path(getattr(self, name)) for name in self.INPUTS if getattr(self, name)}
