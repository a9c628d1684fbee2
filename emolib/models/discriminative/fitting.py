"""Train one network on some clips of a corpus, stopping early on others of them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from emolib.errors import DataError
from emolib.features.table import FeatureTable
from emolib.models.discriminative import measures
from emolib.models.discriminative.corpus import Corpus
from emolib.models.discriminative.networks import AttentionFusion, LowRankFusion
from emolib.params.discriminative import ClassifierParams

SPACE = {"hidden": (64, 128, 256), "dropout": (0.2, 0.3, 0.4, 0.5), "learning_rate": (1e-3, 1e-4)}
"""The published search space: 24 combinations."""

_FIRST_WEIGHTS = threading.Lock()
_CLIP = 5.0  # deviations; a wild value of a new clip must not drown the others


class Fitted(Protocol):
    """A trained classifier.

    Attributes:
        temperature: Calibration, from clips it was not fitted on.
        info: What was chosen and how it went, as plain values.
    """

    temperature: float
    info: dict[str, Any]

    def logits(self, corpus: Corpus, index: np.ndarray) -> np.ndarray:
        """float64 [clips, classes] of the corpus's clips at ``index``."""
        ...

    def valence(self, corpus: Corpus, index: np.ndarray) -> np.ndarray | None:
        """float64 [clips], or None for a model without valence output."""
        ...


@dataclass(slots=True, eq=False)
class Scaler:
    """Mean and deviation of one table over training clips."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, table: FeatureTable, index: np.ndarray, standardise: bool) -> Scaler:
        """Measure the rows at ``index`` that are not missing."""
        width = table.width
        rows = index[~table.missing[index]]
        if not standardise or not rows.size:
            return cls(np.zeros(width, np.float32), np.ones(width, np.float32))
        values = table.values[rows]
        if table.lengths is not None:
            values = values[np.arange(values.shape[1]) < table.lengths[rows][:, None]]
        mean = values.mean(axis=0, dtype=np.float64)
        deviation = values.std(axis=0, dtype=np.float64)
        # A feature that never moved in training says nothing.
        scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0.0)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def apply(self, table: FeatureTable, index: np.ndarray) -> np.ndarray:
        """float32 rows; missing ones and padding stay zero."""
        values = np.clip((table.values[index] - self.mean) * self.scale, -_CLIP, _CLIP)
        if self.is_identity:
            values = np.array(table.values[index], dtype=np.float32)
        values[table.missing[index]] = 0
        if table.lengths is not None:
            values[np.arange(values.shape[1]) >= table.lengths[index][:, None]] = 0
        return values

    @property
    def is_identity(self) -> bool:
        """Whether features pass as they are."""
        return bool(np.all(self.mean == 0) and np.all(self.scale == 1))


class FittedNetwork:
    """A trained network with its scalers."""

    def __init__(self, network: nn.Module, scalers: list[Scaler], inputs: list[list[int]]) -> None:
        self.network, self.scalers, self.inputs = network, scalers, inputs
        self.temperature = 1.0
        self.info: dict[str, Any] = {}

    def tensors(
        self, corpus: Corpus, index: np.ndarray
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """The network's inputs for some clips."""
        values: list[Tensor] = []
        lengths: list[Tensor | None] = []
        for group in self.inputs:
            tables = [corpus.tables[k] for k in group]
            parts = [self.scalers[k].apply(corpus.tables[k], index) for k in group]
            values.append(torch.from_numpy(np.concatenate(parts, axis=-1)))
            sequence = tables[0].lengths
            lengths.append(None if sequence is None else torch.from_numpy(sequence[index]))
        return values, lengths

    def logits(self, corpus: Corpus, index: np.ndarray) -> np.ndarray:
        """float64 [clips, classes]."""
        return self.outputs(*self.tensors(corpus, index))[0]

    def valence(self, corpus: Corpus, index: np.ndarray) -> np.ndarray | None:
        """float64 [clips], on the scale of the training clips' valence."""
        return self.outputs(*self.tensors(corpus, index))[1]

    def outputs(
        self, values: list[Tensor], lengths: list[Tensor | None]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits float64 [clips, classes] and valence float64 [clips] of prepared inputs."""
        self.network.eval()
        with torch.inference_mode():
            logits, valence = self.network(values, lengths)
        return logits.double().numpy(), None if valence is None else valence.double().numpy()


def network_inputs(tables: Sequence[FeatureTable], kind: str) -> list[list[int]]:
    """Which tables go into which encoder.

    "attention_topn" gives each its own; otherwise the utterance-level tables of one modality
    go side by side into one. A sequence always has its own.
    """
    groups: dict[object, list[int]] = {}
    for k, table in enumerate(tables):
        if not isinstance(table.values, np.ndarray):
            raise DataError(f"{table.name}: sparse counts are for the linear model alone")
        alone = kind == "attention_topn" or table.lengths is not None
        groups.setdefault(k if alone else table.modality, []).append(k)
    return list(groups.values())


def fit_network(
    corpus: Corpus, train: np.ndarray, stop: np.ndarray, params: ClassifierParams, seed: int
) -> FittedNetwork:
    """Train until the weighted F1 on ``stop`` no longer rises; keep the best epoch.

    Cost: clips x epochs x weights. 4,000 clips of 6,912 features at h = 128 take about 0.2 s an
    epoch on two cores.

    Args:
        corpus: Features and classes; every clip of ``train`` and ``stop`` has a class.
        train: int64, positions learned from.
        stop: int64, positions used for early stopping and temperature.
        params: Model and training.
        seed: Seed of weights, order and dropout.
    """
    inputs = network_inputs(corpus.tables, params.kind)
    scalers = [Scaler.fit(table, train, params.standardise) for table in corpus.tables]
    # torch's generator belongs to the whole process: used for the first weights alone.
    with _FIRST_WEIGHTS, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(corpus, inputs, params)
    fitted = FittedNetwork(network, scalers, inputs)
    fitted.info = _train(fitted, corpus, train, stop, params, np.random.default_rng(seed))
    fitted.temperature = measures.fit_temperature(fitted.logits(corpus, stop), corpus.y[stop])
    fitted.info["temperature"] = round(fitted.temperature, 4)
    return fitted


def _network(corpus: Corpus, inputs: list[list[int]], params: ClassifierParams) -> nn.Module:
    widths = [sum(corpus.tables[k].width for k in group) for group in inputs]
    sequences = [corpus.tables[group[0]].lengths is not None for group in inputs]
    classes, valence = len(corpus.classes), params.valence_weight > 0
    if valence and corpus.valence is None:
        raise DataError("valence_weight is above 0, but the clips have no valence")
    if params.kind == "lmf":
        return LowRankFusion(
            widths,
            params.hidden,
            params.dropout,
            classes,
            rank=params.rank,
            valence=valence,
            sequences=sequences,
        )
    return AttentionFusion(
        widths,
        params.hidden,
        params.dropout,
        classes,
        valence=valence,
        normalise=params.normalise,
        sequences=sequences,
    )


def _train(
    fitted: FittedNetwork,
    corpus: Corpus,
    train: np.ndarray,
    stop: np.ndarray,
    params: ClassifierParams,
    rng: np.random.Generator,
) -> dict[str, Any]:
    network = fitted.network
    values, lengths = fitted.tensors(corpus, train)
    stop_inputs = fitted.tensors(corpus, stop)
    y = torch.from_numpy(corpus.y[train])
    weights = class_weights(corpus.y[train], len(corpus.classes)) if params.class_weights else None
    loss_of = nn.CrossEntropyLoss(
        weight=None if weights is None else torch.from_numpy(weights.astype(np.float32))
    )
    valence = None
    if corpus.valence is not None and params.valence_weight > 0:
        valence = torch.from_numpy(corpus.valence[train].astype(np.float32))
    optimiser = torch.optim.Adam(
        network.parameters(),
        lr=params.learning_rate,
        weight_decay=params.weight_decay,
        fused=True,
    )
    best: tuple[float, float] = (-1.0, 0.0)
    best_epoch, state = 0, copy.deepcopy(network.state_dict())
    for epoch in range(1, params.epochs + 1):
        network.train()
        for batch in torch.from_numpy(rng.permutation(len(y))).split(params.batch_size):
            optimiser.zero_grad(set_to_none=True)
            some = [None if n is None else n[batch] for n in lengths]
            logits, guessed = network([x[batch] for x in values], some)
            loss = loss_of(logits, y[batch])
            if valence is not None and guessed is not None:
                known = ~torch.isnan(valence[batch])
                if known.any():
                    gap = guessed[known] - valence[batch][known]
                    loss = loss + params.valence_weight * gap.square().mean()
            loss.backward()
            optimiser.step()
        logits, _ = fitted.outputs(*stop_inputs)
        gold = corpus.y[stop]
        score = measures.weighted_f1(gold, logits.argmax(axis=1), len(corpus.classes))
        now = (score, -measures.nll(logits, gold))
        if now > best:
            best, best_epoch, state = now, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= params.patience:
            break
    network.load_state_dict(state)
    return {
        "hidden": params.hidden,
        "dropout": params.dropout,
        "learning_rate": params.learning_rate,
        "best_epoch": best_epoch,
        "epochs": epoch,
        "inner_weighted_f1": round(best[0], 4),
    }


def class_weights(y: np.ndarray, classes: int) -> np.ndarray:
    """Inverse frequencies, float64 [classes], mean 1 over the clips; absent classes get 0."""
    counts = np.bincount(y, minlength=classes).astype(np.float64)
    present = counts > 0
    return np.where(present, len(y) / (present.sum() * np.maximum(counts, 1)), 0.0)


def draw_space(params: ClassifierParams, seed: int) -> list[ClassifierParams]:
    """``params.search`` different random combinations of :data:`SPACE`; ``[params]`` without."""
    if not params.search:
        return [params]
    combinations = [
        {"hidden": h, "dropout": p, "learning_rate": rate}
        for h in SPACE["hidden"]
        for p in SPACE["dropout"]
        for rate in SPACE["learning_rate"]
    ]
    order = np.random.default_rng(seed).permutation(len(combinations))
    return [params.model_copy(update=combinations[k]) for k in order[: params.search]]
