"""Predict every clip by models that have not seen it, and, marked, the way it was published.

:class:`~emolib.models.discriminative.ensemble.Ensemble` is the only way to a prediction, and the
leak guard stands in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from emolib.errors import DataError
from emolib.models.discriminative import measures
from emolib.models.discriminative.corpus import Corpus
from emolib.models.discriminative.ensemble import Ensemble
from emolib.models.discriminative.fitting import Fitted, draw_space, fit_network
from emolib.models.discriminative.folds import inner_split, make_folds
from emolib.models.discriminative.linear import fit_linear
from emolib.params.discriminative import ClassifierParams, ProtocolParams
from emolib.processes import cores
from emolib.progress import Progress


@dataclass(frozen=True, slots=True, eq=False)
class ClassPredictions:
    """Probabilities of all clips of a corpus.

    Attributes:
        system: Name in tables.
        table: float64 [clips, classes], rows sum to 1.
        fold: int64 [clips], the fold that predicted each in the last repeat; -1 = never trained
            on (unlabelled clips: the mean of all models).
        out_of_fold: No clip was predicted by a model that had seen it.
        leaked: Clips that were predicted by a model that had seen them.
        runs: One mapping a repeat: its scores and its models' choices.
        valence: float64 [clips], predicted like the classes; None without valence output.
    """

    system: str
    table: np.ndarray
    fold: np.ndarray
    out_of_fold: bool
    leaked: int
    runs: tuple[dict[str, Any], ...]
    valence: np.ndarray | None = None

    def rows(self, corpus: Corpus) -> list[dict[str, Any]]:
        """One plain mapping a clip, as a prediction file holds them.

        A clip without any feature has ``status: error`` and no label.
        """
        blind = np.logical_and.reduce([table.missing for table in corpus.tables])
        made = []
        for k, name in enumerate(corpus.names):
            best = int(self.table[k].argmax())
            made.append(
                {
                    "name": name,
                    "labels": [] if blind[k] else [corpus.classes[best]],
                    "probabilities": {
                        one: round(float(p), 6)
                        for one, p in zip(corpus.classes, self.table[k], strict=True)
                    },
                    "valence": None if self.valence is None else round(float(self.valence[k]), 4),
                    "system": self.system,
                    "status": "error" if blind[k] else "ok",
                    "error": "none of the features could be computed" if blind[k] else None,
                    "out_of_fold": self.out_of_fold,
                    "fold": int(self.fold[k]) if self.fold[k] >= 0 else None,
                }
            )
        return made


def fit(
    corpus: Corpus,
    index: np.ndarray,
    params: ClassifierParams,
    inner: float,
    seed: int,
    *,
    stop: np.ndarray | None = None,
) -> Fitted:
    """Train on the labelled clips at ``index``: inner split, search, pseudo-labels, calibration.

    Args:
        corpus: The corpus; of other clips only features of unlabelled ones are used, and only
            with ``pseudo_threshold``.
        index: int64, positions of labelled clips.
        params: Model and training.
        inner: Part of ``index`` used for stopping, choosing and calibrating.
        seed: Seed of split, draws and weights.
        stop: Use these clips instead of an inner split.
    """
    if stop is None:
        groups = [corpus.groups[k] for k in index]
        held = inner_split(corpus.y[index].tolist(), groups, inner, seed)
        train, stop = index[~held], index[held]
    else:
        train = index
    fitted = _best(corpus, train, stop, params, seed)
    if not params.pseudo_threshold or not corpus.unlabelled.size:
        return fitted
    free = corpus.unlabelled
    table = measures.probabilities(fitted.logits(corpus, free), fitted.temperature)
    sure = table.max(axis=1) >= params.pseudo_threshold
    y = corpus.y.copy()
    y[free[sure]] = table[sure].argmax(axis=1)
    richer = replace(corpus, y=y)
    again = _best(richer, np.concatenate([train, free[sure]]), stop, params, seed)
    again.info["pseudo_labelled"] = int(sure.sum())
    return again


def _best(
    corpus: Corpus, train: np.ndarray, stop: np.ndarray, params: ClassifierParams, seed: int
) -> Fitted:
    if params.kind == "linear":
        return fit_linear(corpus, train, stop, params)
    tried = [
        fit_network(corpus, train, stop, draw, seed + number)
        for number, draw in enumerate(draw_space(params, seed))
    ]
    return max(tried, key=lambda one: one.info["inner_weighted_f1"])


def out_of_fold(
    corpus: Corpus,
    params: ClassifierParams,
    protocol: ProtocolParams,
    *,
    seed: int = 0,
    system: str = "discriminative",
    folds: np.ndarray | None = None,
) -> ClassPredictions:
    """Predict every labelled clip by models trained without it, its group and its label.

    Everything that looks at labels (stopping, search, strength, temperature) happens inside
    the training part of a fold. Unlabelled clips get the mean of all models.

    Args:
        corpus: Features, classes, groups.
        params: Model and training.
        protocol: Folds and repeats.
        seed: Seed of everything; repeat r uses ``seed + 1000 r``.
        system: Name in tables.
        folds: int64 [labelled clips], given folds instead of drawn ones.

    Raises:
        LeakError: a clip would be predicted by a model that has seen it.
        DataError: too few clips or groups for the folds.
    """
    labelled = corpus.labelled
    _check(corpus, labelled, params)
    total = np.zeros((len(corpus.names), len(corpus.classes)))
    valence = np.zeros(len(corpus.names)) if params.valence_weight else None
    fold_of = np.full(len(corpus.names), -1)
    runs = []
    with Progress(system, protocol.folds * protocol.repeats, unit="fold") as progress:
        for repeat in range(protocol.repeats):
            own = seed + 1000 * repeat
            dealt = folds if folds is not None else _deal(corpus, labelled, protocol.folds, own)
            table = np.zeros_like(total)
            ensembles = []
            numbers = [int(fold) for fold in np.unique(dealt)]
            jobs = [
                partial(fit, corpus, labelled[dealt != fold], params, protocol.inner, own + fold)
                for fold in numbers
            ]
            for fold, model in zip(numbers, _side_by_side(jobs, params), strict=True):
                test, train = labelled[dealt == fold], labelled[dealt != fold]
                used = {f"training of fold {fold}": [corpus.names[k] for k in train]}
                ensembles.append(Ensemble([model], used))
                table[test] = ensembles[-1].predict(corpus, test)
                fold_of[test] = fold
                if valence is not None:
                    valence[test] += _number(ensembles[-1].valence(corpus, test)) / protocol.repeats
                progress.advance()
            if corpus.unlabelled.size:
                parts = [e.predict(corpus, corpus.unlabelled) for e in ensembles]
                table[corpus.unlabelled] = np.mean(parts, axis=0)
                if valence is not None:
                    sides = [_number(e.valence(corpus, corpus.unlabelled)) for e in ensembles]
                    valence[corpus.unlabelled] += np.mean(sides, axis=0) / protocol.repeats
            chosen = [dict(e.members[0].info) for e in ensembles]
            runs.append({**_scores(corpus, table, labelled), "models": chosen})
            total += table / protocol.repeats
    return ClassPredictions(system, total, fold_of, True, 0, tuple(runs), valence)


def as_published(
    corpus: Corpus,
    params: ClassifierParams,
    protocol: ProtocolParams,
    *,
    seed: int = 0,
    system: str = "discriminative",
) -> ClassPredictions:
    """Predict the training clips themselves, as the published pipeline did with the OV clips.

    Random folds, neither stratified nor by group; every fold's model keeps the epoch that is
    best on its own fold; the mean logits of all are the prediction. Every labelled clip was in
    training. The system's name says so.
    """
    labelled = corpus.labelled
    _check(corpus, labelled, params)
    rng = np.random.default_rng(seed)
    dealt = rng.permutation(np.arange(len(labelled)) % protocol.folds)
    members, training = [], {}
    with Progress(f"{system}, as published", protocol.folds, unit="fold") as progress:
        jobs = []
        for fold in range(protocol.folds):
            train, held = labelled[dealt != fold], labelled[dealt == fold]
            own = seed + fold
            jobs.append(partial(fit, corpus, train, params, protocol.inner, own, stop=held))
            training[f"training of fold {fold}"] = [corpus.names[k] for k in labelled]
        for model in _side_by_side(jobs, params):
            members.append(model)
            progress.advance()
    ensemble = Ensemble(members, training)
    table, report = ensemble.predict_as_published(corpus, np.arange(len(corpus.names)))
    run = {**_scores(corpus, table, labelled), "models": [dict(m.info) for m in members]}
    fold_of = np.full(len(corpus.names), -1)
    name = f"{system}, as published (trained on these clips)"
    everyone = np.arange(len(corpus.names))
    valence = ensemble.valence(corpus, everyone, allow_leak=True)
    return ClassPredictions(name, table, fold_of, False, len(report.leaked), (run,), valence)


def _number(found: np.ndarray | None) -> np.ndarray:
    assert found is not None, "a network with valence_weight has a valence output"
    return found


def _side_by_side(
    jobs: Sequence[Callable[[], Fitted]], params: ClassifierParams
) -> Iterator[Fitted]:
    """Run trainings in as many threads as there are cores, each on one; results in order.

    One training on several cores is slower: its steps are too small to be divided.
    """
    # "linear" holds the interpreter's lock, nothing to gain.
    threads = 1 if params.kind == "linear" else min(len(jobs), cores())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            yield from pool.map(lambda job: job(), jobs)
    finally:
        torch.set_num_threads(before)


def _check(corpus: Corpus, labelled: np.ndarray, params: ClassifierParams) -> None:
    if params.pseudo_threshold and not corpus.unlabelled.size:
        raise DataError(
            "pseudo_threshold is above 0, but every clip has a class: name a set of clips without "
            "(`unlabelled`), or set it to 0"
        )
    if len(np.unique(corpus.y[labelled])) < 2:
        raise DataError(f"{len(labelled)} labelled clips of fewer than two classes: cannot train")


def _deal(corpus: Corpus, labelled: np.ndarray, k: int, seed: int) -> np.ndarray:
    return make_folds(corpus.y[labelled].tolist(), [corpus.groups[i] for i in labelled], k, seed)


def _scores(corpus: Corpus, table: np.ndarray, index: np.ndarray) -> dict[str, float]:
    gold, predicted = corpus.y[index], table[index].argmax(axis=1)
    k = len(corpus.classes)
    values = measures.cell_statistic(k)(measures.cells(gold, predicted, k).mean(axis=0))
    return {name: round(float(v), 4) for name, v in zip(measures.METRICS, values, strict=True)}
