"""Parameters of LoRA training."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emolib.params.schemas import OPERATIONAL, Schema

#: ms-swift's names of DeepSpeed's settings; "" = none.
DeepSpeed = Literal["", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"]


class LoraParams(Schema):
    """How a LoRA is trained by ms-swift.

    Attributes:
        rank: Rank of the update.
        alpha: Scale of the update; it is multiplied by ``alpha / rank``.
        dropout: Dropout inside the update.
        target_modules: Layers that get one: ("all-linear",), or names such as ("q_proj",
            "v_proj"). "all-linear" and attention alone are different experiments.
        learning_rate: Peak learning rate.
        epochs: Passes over the rows; not read when ``steps`` > 0.
        steps: Optimiser steps; 0 = by ``epochs``.
        batch_size: Rows a device computes together.
        accumulate: Batches summed into one step.
        warmup: Part of the steps in which the rate rises, 0 to 1.
        weight_decay: AdamW's weight decay.
        scheduler: Course of the rate after warm-up.
        max_grad_norm: Gradients are scaled down to this norm.
        max_length: Longest row in tokens, images included. A longer row stops the training
            before it begins: nothing is cut or left out.
        freeze_vit: Leave the vision tower as it is. An update of it is not applied by every
            server (vLLM ignores it).
        freeze_aligner: Leave the projector between the towers as it is.
        seed: Seed of order, dropout and the update's start.
        save_steps: Steps between checkpoints; a killed training goes on from the last.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        workers: Data-loading processes a GPU, which cut the images of later rows while it
            computes; 0 = none besides the training process. Losses do not depend on it.
        processes: Processes of every machine, one a GPU; more than one run under torchrun. A
            step then sees ``batch_size * accumulate * processes * nodes`` rows.
        nodes: Machines that train together. They share one file system with the same paths;
            on each but the first ``python -m emolib.training.join`` must run.
        master_addr: Name or address of the first machine, as the others reach it; only read
            when ``nodes`` > 1.
        master_port: A free port of it.
        deepspeed: "" or "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload".
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(default=("all-linear",), min_length=1)
    learning_rate: float = Field(default=1.0e-4, gt=0)
    epochs: float = Field(default=1.0, gt=0)
    steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=1, ge=1)
    accumulate: int = Field(default=1, ge=1)
    warmup: float = Field(default=0.05, ge=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=8192, ge=1)
    freeze_vit: bool = True
    freeze_aligner: bool = True
    seed: int = Field(default=0, ge=0)
    save_steps: Annotated[int, OPERATIONAL] = Field(default=500, ge=1)
    gradient_checkpointing: Annotated[bool, OPERATIONAL] = True
    workers: Annotated[int, OPERATIONAL] = Field(default=0, ge=0)
    processes: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    master_addr: Annotated[str, OPERATIONAL] = ""
    master_port: Annotated[int, OPERATIONAL] = Field(default=29500, ge=1, le=65535)
    deepspeed: DeepSpeed = ""

    @model_validator(mode="after")
    def _plain_names(self) -> Self:
        for name in self.target_modules:
            if not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
                raise ValueError(f"target_modules holds {name!r}, which is no module name")
        return self

    @model_validator(mode="after")
    def _first_node(self) -> Self:
        if self.nodes > 1 and not re.fullmatch(r"[\w.:\[\]-]+", self.master_addr):
            raise ValueError("master_addr: with nodes > 1 it must name the first machine")
        return self


class GateParams(Schema):
    """The parity gate before a fine-tuned model is scored, see :mod:`emolib.parity`.

    Attributes:
        samples: Test clips that are asked about; 0 = no gate.
        served: Also serve the merged model (``swift deploy`` on the loopback interface) and
            compare what it answers.
        tokens: First tokens of every answer whose log probabilities are compared. What they may
            differ by follows from the weights' type, :func:`emolib.parity.tolerance`.
        strict: Stop when the gate fails; false = record it and go on.
    """

    samples: int = Field(default=4, ge=0)
    served: bool = True
    tokens: int = Field(default=16, ge=1)
    strict: bool = True
