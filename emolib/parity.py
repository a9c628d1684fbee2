"""Parity gate: a LoRA, its merged weights and the served model must answer alike.

A merge that lost the update, a template that differs between engine and server, or a tokenizer
that was not copied all leave a model that answers fluently and scores plausibly. So before a
score of a fine-tuned model is accepted, the same clips are shown to every form of it, decoded
greedily, and the answers compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emolib.datasets.clip import Clip
from emolib.engines import open_engine
from emolib.engines.fingerprint import fingerprint
from emolib.engines.serving import serve
from emolib.errors import ParamsError, ParityError
from emolib.ledger import Ledger
from emolib.params.schemas import ModelParams
from emolib.params.training import GateParams
from emolib.predict import Prediction, predict
from emolib.training import merge_lora

Tokenizer = Callable[[str], list[str]]
_SHOWN = 6  # tokens of a difference that are told


@dataclass(frozen=True, slots=True)
class Difference:
    """Two answers to one clip that part somewhere.

    Attributes:
        name: The clip.
        token: Number of the first token that differs; = tokens they share.
        left: Text of that token and the few after it in the first answer; "" at its end.
        right: The same of the second.
    """

    name: str
    token: int
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the answers of two forms of a model compare.

    Attributes:
        pair: Names of the two, e.g. "adapter - merged".
        samples: Clips compared.
        identical: Clips with the same answer, letter by letter.
        same_labels: Clips with the same labels in the same order.
        differences: Where the others part, in the clips' order.
    """

    pair: str
    samples: int
    identical: int
    same_labels: int
    differences: tuple[Difference, ...]

    @property
    def first(self) -> int | None:
        """Earliest differing token over all clips; None when all answers are identical."""
        return min((d.token for d in self.differences), default=None)

    def agrees(self, tokens: int) -> bool:
        """Whether no answer parts before ``tokens``; 0 = nowhere."""
        return self.first is None or 0 < tokens <= self.first


@dataclass(frozen=True, slots=True)
class Parity:
    """What the gate found.

    Attributes:
        passed: Whether nothing in ``faults`` stands.
        samples: Clips compared.
        effect: The base against the LoRA, where a difference is wanted; None = no gate.
        forms: The LoRA against each other form.
        faults: What is wrong, in words.
    """

    passed: bool
    samples: int
    effect: Agreement | None
    forms: tuple[Agreement, ...]
    faults: tuple[str, ...]

    @property
    def note(self) -> str:
        """One sentence for the notebook and the report."""
        if self.effect is None:
            return "Parity gate: off; nothing shows that the merged model is the trained one."
        pairs = [f"{a.pair} {a.identical} of {a.samples} identical" for a in self.forms]
        changed = self.effect.samples - self.effect.identical
        pairs.append(f"the LoRA changes {changed} of {self.effect.samples} answers")
        found = "passed" if self.passed else f"FAILED ({'; '.join(self.faults)})"
        return f"Parity gate {found}: {', '.join(pairs)}."

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def gate(
    model: ModelParams,
    adapter: Path,
    clips: Sequence[Clip],
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    params: GateParams,
    out: Path,
    *,
    name: str,
    frames: int,
    seed: int,
    cache: Path | None = None,
) -> Parity:
    """Merge a LoRA and ask the merged and the served model what the LoRA has answered.

    Answers are kept in ``out``, so that a run that was interrupted asks nothing twice; another
    run asks anew. One form is in memory at a time. Cost: a merge, a load and the answers; the
    server another load and the start of a process.

    Args:
        model: The base model.
        adapter: LoRA folder.
        clips: All clips predicted; the first ``params.samples`` with two answers are asked about.
        base: What the base model says of the clips, at ``frames`` and ``seed``.
        tuned: What base and LoRA say.
        params: How many, and how strict.
        out: Folder for ``merged-…/`` (a plain checkpoint; it stays), answers and the server's log.
        name: The model's name in tables.
        frames: Frames a clip.
        seed: Seed of the frames.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.

    Raises:
        ParityError: the forms disagree, one of them gives an error, or the LoRA changes no
            answer, and ``params.strict``.
        ParamsError: the model's answers are sampled.
        EngineError: a form cannot be loaded or served.
    """
    if not params.samples:
        return Parity(True, 0, None, (), ())
    if model.decoding.temperature > 0:
        raise ParamsError(
            f"{name}: the parity gate compares greedy answers: set decoding.temperature to 0, "
            "or gate.samples to 0"
        )
    known = {row.name: row for row in base if row.status == "ok"}
    ours = [row for row in tuned if row.status == "ok" and row.name in known][: params.samples]
    merged = out / f"merged-{fingerprint(adapter)[:7]}"
    if not merged.is_dir():
        merge_lora(model, adapter, merged, cache=cache)
    plain = model.model_copy(update={"model": str(merged), "adapters": ()})
    asked = {row.name for row in ours}
    ask = partial(
        _answers, [c for c in clips if c.name in asked], out / "answers.jsonl", frames, seed
    )
    forms = {"merged": ask(plain, "merged", cache)}
    if params.served:
        with serve(plain, out / "serve.log", cache=cache) as served:
            forms["served"] = ask(served, "served", cache)
    tokens = tokenizer_of(merged)
    return judge(
        compare("base - adapter", [known[row.name] for row in ours], ours, tokens),
        [compare(f"adapter - {form}", ours, rows, tokens) for form, rows in forms.items()],
        params,
    )


def _answers(
    clips: Sequence[Clip],
    file: Path,
    frames: int,
    seed: int,
    model: ModelParams,
    form: str,
    cache: Path | None,
) -> list[Prediction]:
    with open_engine(model, name=form, cache=cache) as engine, Ledger(file) as ledger:
        return predict(
            clips, engine, ledger, system=form, frames=frames, seed=seed, desc=f"parity: {form}"
        )


def tokenizer_of(folder: Path) -> Tokenizer:
    """A model folder's own cut of a text, as pieces that joined give the text again."""
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_file(str(folder / "tokenizer.json"))

    def pieces(text: str) -> list[str]:
        made = fast.encode(text, add_special_tokens=False)
        ends = [end for _, end in made.offsets]
        return [text[a:b] for a, b in itertools.pairwise([0, *ends])]

    return pieces


def compare(
    pair: str, left: Sequence[Prediction], right: Sequence[Prediction], tokens: Tokenizer
) -> Agreement:
    """Compare two systems' answers to the same clips.

    Args:
        pair: Name of the comparison.
        left: Answers of one form.
        right: Answers of the other, of the same clips in the same order. An error is an empty
            answer.
        tokens: Cuts a text into the model's tokens.

    Raises:
        ValueError: not the same clips.
    """
    differences = []
    for a, b in zip(left, right, strict=True):
        if a.name != b.name:
            raise ValueError(f"{pair}: {a.name} against {b.name}")
        if a.description != b.description or a.error or b.error:
            differences.append(_difference(a, b, tokens))
    same_labels = sum(a.labels == b.labels for a, b in zip(left, right, strict=True))
    identical = len(left) - len(differences)
    return Agreement(pair, len(left), identical, same_labels, tuple(differences))


def _difference(a: Prediction, b: Prediction, tokens: Tokenizer) -> Difference:
    left, right = tokens(a.description), tokens(b.description)
    both = zip(left, right, strict=False)
    at = next((i for i, (x, y) in enumerate(both) if x != y), min(len(left), len(right)))
    if a.error or b.error:
        at = 0

    def shown(row: Prediction, words: list[str]) -> str:
        return f"error: {row.error}" if row.error else "".join(words[at : at + _SHOWN])

    return Difference(a.name, at, shown(a, left), shown(b, right))


def judge(effect: Agreement, forms: Sequence[Agreement], params: GateParams) -> Parity:
    """Decide.

    Args:
        effect: The base against the LoRA; some answer must differ, or agreement of the forms
            would not show that the merged weights hold the LoRA.
        forms: The LoRA against each other form.
        params: How strict.

    Raises:
        ParityError: something is wrong, and ``params.strict``.
    """
    faults = []
    if not effect.samples:
        faults.append("no clip has an answer of base and LoRA to compare")
    elif not effect.differences:
        faults.append(
            f"the LoRA changes none of {effect.samples} answers: it is not applied, has learnt "
            "nothing, or gate.samples is too small to show it"
        )
    for one in forms:
        if not one.agrees(params.tokens):
            first = min(one.differences, key=lambda d: d.token)
            faults.append(
                f"{one.pair}: {first.name} parts at token {first.token}: "
                f"{first.left!r} against {first.right!r}"
            )
    found = Parity(not faults, effect.samples, effect, tuple(forms), tuple(faults))
    if params.strict and faults:
        raise ParityError(
            f"{found.note} No score of this model can be trusted: see 'Parity gate' in "
            "docs/training.md; gate.strict: false records it and goes on"
        )
    return found
