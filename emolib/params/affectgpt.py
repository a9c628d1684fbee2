"""Parameters of AffectGPT's training stage (paper section 2.2, system S5)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emolib.params.schemas import OPERATIONAL, Schema
from emolib.params.training import DeepSpeed

#: What of a clip a prediction may see.
Perspective = Literal["all", "video", "audio", "text"]
#: What is learnt to be said of a clip, and asked of the trained model.
Answer = Literal["description", "labels", "both"]
#: A model's prompts; "" = those its folder names.
Preset = Literal["", "paper", "train-2024", "infer-2024", "labels-2025", "fused-2025"]


class LlmLora(Schema):
    """A LoRA on every linear layer of the language model. Defaults: the design of 2025.

    Attributes:
        rank: Width of the low-rank update.
        alpha: Its scale is ``alpha / rank``.
        dropout: On its input, in training.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)


class SftParams(Schema):
    """How the branches are trained. Defaults are the published recipe of 2024.

    Attributes:
        epochs: Epochs; validation loss and a checkpoint at the end of every ``save_epochs``.
        steps_per_epoch: Optimiser steps an epoch (published: 1,000); 0 = as many as it takes
            to see every described clip once.
        save_epochs: Epochs between checkpoints. Every checkpoint's branches are kept (0.18 GB
            at full size); a killed training goes on from the last.
        batch_size: Rows a device computes together (paper: 4).
        accumulate: Batches summed into one step.
        processes: Processes of this machine, one a GPU (paper: 4).
        lora: A LoRA in the language model, trained beside the branches (design of 2025); None =
            the language model stays as it is (2024).
        learning_rate: First and highest rate.
        min_learning_rate: Rate at the end of the cosine, at most the highest; the highest itself
            keeps it flat (2025).
        warmup_steps: Steps in which the rate rises. The published 1,000 were never run.
        weight_decay: AdamW's; biases and LayerNorms are exempt.
        max_grad_norm: Gradients are scaled down to this norm; 0 = never, as published.
        max_length: Longest row in tokens. A longer row stops the training before it begins and
            is named; the published 512 silently dropped 100 of EMER's 332 descriptions.
        crop: Draw the published training crops; needs ``cache: false``, because a crop is
            another picture each time.
        cache: Encode every medium with the frozen towers once and keep the result, instead of
            once an epoch.
        gradient_checkpointing: Compute the language model's activations twice instead of
            keeping them.
        workers: Data-loading processes a GPU; 0 = none besides the training process.
        deepspeed: "" or "zero1", "zero2", "zero2_offload": divide the optimiser's states (0.5 GB)
            among the processes. "zero3", which divides the frozen weights as well, is refused.
    """

    epochs: int = Field(default=100, ge=1)
    steps_per_epoch: int = Field(default=0, ge=0)
    save_epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=4, ge=1)
    accumulate: int = Field(default=1, ge=1)
    processes: int = Field(default=1, ge=1)
    lora: LlmLora | None = None
    learning_rate: float = Field(default=3.0e-5, gt=0)
    min_learning_rate: float = Field(default=1.0e-5, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    max_grad_norm: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=1024, ge=1)
    crop: bool = False
    cache: Annotated[bool, OPERATIONAL] = True
    gradient_checkpointing: Annotated[bool, OPERATIONAL] = True
    workers: Annotated[int, OPERATIONAL] = Field(default=0, ge=0)
    deepspeed: DeepSpeed = ""

    @model_validator(mode="after")
    def _rate_falls(self) -> Self:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate: {self.min_learning_rate:g} is above learning_rate "
                f"{self.learning_rate:g}: the rate falls from the one to the other; give both"
            )
        return self

    @model_validator(mode="after")
    def _crops_are_not_cached(self) -> Self:
        if self.crop and self.cache:
            raise ValueError("crop: every crop is another picture: set cache: false with it")
        return self

    @model_validator(mode="after")
    def _towers_are_whole(self) -> Self:
        if self.deepspeed.startswith("zero3"):
            raise ValueError(
                f"deepspeed: {self.deepspeed!r} would divide the frozen towers, which every "
                "process needs whole to encode its media: choose zero1, zero2 or zero2_offload"
            )
        return self

    def kept_epochs(self) -> list[int]:
        """Epochs of which a checkpoint is kept, ascending."""
        return sorted({*range(self.save_epochs, self.epochs + 1, self.save_epochs), self.epochs})

    def check_policy(self, policy: str, *, validation: bool) -> None:
        """Refuse a choice among checkpoints that could not be made after the training.

        Args:
            policy: "best", "last", or epochs like "30-60".
            validation: There may be validation clips.

        Raises:
            ValueError: "best" without validation, or no checkpoint in the range.
        """
        if policy == "best" and not validation:
            raise ValueError(
                "checkpoint: 'best' needs validation clips and a drawn split with val = 0 has "
                "none: give val, or checkpoint: last or epochs like 30-60"
            )
        first, dash, last = policy.partition("-")
        if dash and not any(int(first) <= epoch <= int(last) for epoch in self.kept_epochs()):
            raise ValueError(
                f"checkpoint: no epoch of {policy} will be kept: every save_epochs = "
                f"{self.save_epochs} and the last of recipe.epochs = {self.epochs} are"
            )
