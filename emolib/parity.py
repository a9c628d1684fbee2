"""Parity gate: a LoRA, its merged weights and the served model must be one model.

A merge that lost the update, a template that differs between engine and server, or a tokenizer
that was not copied all leave a model that answers fluently and scores plausibly. So before a
score of a fine-tuned model is accepted, every form of it is asked about the same clips, and the
log probabilities of the first tokens are compared. They are compared as long as the tokens
before are the same, and within what rounding of the weights' type explains: where two words are
about equally likely, two correct forms may write different ones, which is reported and stops
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emolib.datasets.clip import Clip
from emolib.engines import open_engine
from emolib.engines.base import Reply, Request, Token
from emolib.engines.precision import weight_type
from emolib.engines.serving import serve
from emolib.engines.swift_setup import find_model
from emolib.errors import ParityError
from emolib.inference import Task, ask
from emolib.ledger import Ledger
from emolib.params.schemas import ModelParams
from emolib.params.training import GateParams
from emolib.predict import Prediction, clip_task
from emolib.training import merge_lora

ALTERNATIVES = 10  # tokens beside the written one; servers allow 20 at most, many only 5 to 10
#: Tokens less likely than this in both forms are not compared: their logarithms are mostly noise.
LIKELY = 0.01
_EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}
_ROUNDINGS, _WIDTH = 64, 8192
_WEAK = 20  # an effect below this part of the tolerance may be lost in rounding the merged weights


def tolerance(dtype: str) -> float:
    """Return how far rounding alone may move a log probability, in nats.

    One operation rounds to the type's epsilon; a sum of some 8,192 products, accumulated in
    float32, to float32's epsilon times the root of their number. A language model rounds its
    state some 1,000 times on the way (48 layers of about 20 operations), independently, which
    adds up to about 30 roundings; both forms do so, which is generously 64. bfloat16: 0.5 nats,
    float16: 0.06, float32: 0.0007.
    """
    once = max(_EPS.get(dtype, _EPS["bfloat16"]), _EPS["float32"] * math.sqrt(_WIDTH))
    return _ROUNDINGS * once


@dataclass(frozen=True, slots=True)
class Answer:
    """The beginning of one form's answer about one clip.

    Attributes:
        name: The clip.
        text: What was written.
        tokens: Its tokens; () where the engine gives no log probabilities.
        error: Why there is no answer, or None.
    """

    name: str
    text: str
    tokens: tuple[Token, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two forms of a model compare.

    Attributes:
        pair: Names of the two, e.g. "adapter - merged".
        samples: Clips compared.
        identical: Clips whose first tokens are the same.
        positions: Tokens whose log probabilities were compared, over all clips.
        mean: Mean distance over all positions, in nats: at each position the largest difference
            of the log probability of a token that is likely in either form.
        worst: The largest mean distance of a single clip.
        worst_clip: Its name.
        unmeasured: Clips whose texts differ where no log probability tells how far.
        errors: Clips with an error, and the first one's text.
        first: Where the first differing clip differs, in words; "" when none does.
    """

    pair: str
    samples: int
    identical: int
    positions: int
    mean: float
    worst: float
    worst_clip: str
    unmeasured: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    first: str = ""


@dataclass(frozen=True, slots=True)
class Parity:
    """What the gate found.

    Attributes:
        passed: Whether nothing in ``faults`` stands.
        samples: Clips compared.
        dtype: Type of the weights.
        tolerance: See :func:`tolerance`.
        effect: The base against the LoRA, where a difference is wanted; None = no gate.
        forms: The LoRA against each other form.
        faults: What is wrong, in words.
        reports: What is worth knowing and no fault, in words.
    """

    passed: bool
    samples: int
    dtype: str
    tolerance: float
    effect: Agreement | None
    forms: tuple[Agreement, ...]
    faults: tuple[str, ...]
    reports: tuple[str, ...]

    @property
    def note(self) -> str:
        """One sentence for the notebook and the report."""
        if self.effect is None:
            return "Parity gate: off; nothing shows that the merged model is the trained one."
        pairs = [f"{a.pair} differ by {a.mean:.2g} nats per token" for a in self.forms]
        pairs.append(f"base and adapter by {self.effect.mean:.2g}")
        pairs.append(f"{self.dtype} allows {self.tolerance:.2g}")
        found = "passed" if self.passed else f"FAILED ({'; '.join(self.faults)})"
        return ". ".join([f"Parity gate {found}: {', '.join(pairs)}", *self.reports]) + "."

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def gate(
    model: ModelParams,
    adapter: Path,
    clips: Sequence[Clip],
    tuned: Sequence[Prediction],
    params: GateParams,
    out: Path,
    *,
    name: str,
    frames: int,
    seed: int,
    cache: Path | None = None,
) -> Parity:
    """Merge a LoRA and compare base, LoRA, merged and served model.

    Answers are kept in ``out``, so that a run that was interrupted asks nothing twice; another
    run asks anew. The merged weights stay beside the adapter, for every run that uses it. One
    form is in memory at a time. Cost: a merge, three loads and a few tokens; the server another
    load and the start of a process.

    Args:
        model: The base model. The gate's own questions are greedy, whatever its decoding.
        adapter: LoRA folder; ``merged-<dtype>`` (a plain checkpoint) is made beside it.
        clips: All clips predicted; the first ``params.samples`` with an answer are asked about.
        tuned: What base and LoRA answered.
        params: How many, how many tokens, and whether a fault stops.
        out: Folder for answers and the server's log.
        name: The model's name in tables.
        frames: Frames a clip.
        seed: Seed of the frames.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.

    Raises:
        ParityError: the forms are not one model, one of them gives an error, or the LoRA changes
            nothing, and ``params.strict``.
        EngineError: a form cannot be loaded or served.
    """
    dtype = weight_type(model, find_model(model, cache).dtype)
    if not params.samples:
        return Parity(True, 0, dtype, tolerance(dtype), None, (), (), ())
    greedy = model.decoding.model_copy(update={"max_new_tokens": params.tokens, "temperature": 0.0})
    base = model.model_copy(update={"decoding": greedy})
    merged = Path(adapter).with_name(f"merged-{dtype}")
    if not merged.is_dir():
        merge_lora(model, adapter, merged, cache=cache)
    plain = base.model_copy(update={"model": str(merged), "adapters": ()})
    answered = {row.name for row in tuned if row.status == "ok"}
    shown = [clip for clip in clips if clip.name in answered][: params.samples]

    def answers(form: str, asked: ModelParams, *adapters: Path) -> list[Answer]:
        with (
            open_engine(asked, name=form, adapters=adapters, cache=cache) as engine,
            Ledger(out / "answers.jsonl") as ledger,
        ):
            tasks = [_with_alternatives(clip_task(clip, frames, seed)) for clip in shown]
            rows = ask(tasks, engine, ledger, f"parity: {form}")
        return [_answer(clip.name, rows[clip.name]) for clip in shown]

    found = {
        "base": answers("base", base),
        "adapter": answers("adapter", base, Path(adapter)),
        "merged": answers("merged", plain),
    }
    if params.served:
        with serve(plain, out / "serve.log", cache=cache) as served:
            found["served"] = answers("served", served)
    return judge(found, dtype, params.strict)


def _with_alternatives(task: Task) -> Task:
    def build() -> Request:
        return replace(task.build(), alternatives=ALTERNATIVES)

    content = task.content | {"alternatives": ALTERNATIVES}
    return replace(task, content=content, build=build, read=_read)


def _read(reply: Reply) -> dict[str, Any]:
    return {"tokens": [[t.text, t.logprob, t.top] for t in reply.tokens]}


def _answer(name: str, row: Mapping[str, Any]) -> Answer:
    tokens = tuple(
        Token(text, logprob, tuple((other, lp) for other, lp in top))
        for text, logprob, top in row["info"].get("tokens", [])
    )
    return Answer(name, row["text"], tokens, row["error"])


def judge(forms: Mapping[str, Sequence[Answer]], dtype: str, strict: bool = True) -> Parity:
    """Decide whether the forms are one model.

    A form fails when a clip's distance from the adapter exceeds the tolerance, or when it is
    nearer to the base than to the adapter: a merge that lost a LoRA of small effect is within
    the tolerance, and is the base. The LoRA itself fails when it changes nothing at all; one that
    changes no more than rounding does is reported.

    Args:
        forms: Answers by form, "base" and "adapter" among them, of the same clips in the same
            order.
        dtype: Type of the weights.
        strict: Raise when something is wrong.

    Raises:
        ParityError: something is wrong, and ``strict``.
        ValueError: not the same clips.
    """
    allowed = tolerance(dtype)
    base, adapter = forms["base"], forms["adapter"]
    effect = compare("base - adapter", base, adapter)
    others = {form: rows for form, rows in forms.items() if form not in ("base", "adapter")}
    compared = {form: compare(f"adapter - {form}", adapter, rows) for form, rows in others.items()}
    faults, reports, weak = [], [], False
    if not effect.samples:
        faults.append("there is no clip to ask about")
    elif effect.errors:
        faults.append(f"{effect.pair}: {effect.errors[0]}")
    elif not effect.mean and not effect.unmeasured:
        faults.append(
            f"the LoRA changes nothing in {effect.samples} answers: it is not applied, or has "
            "learned nothing"
        )
    elif weak := effect.mean <= allowed / _WEAK:
        reports.append(
            f"The LoRA moves log probabilities by {effect.mean:.2g} nats per token, no more than "
            "rounding does: the gate cannot tell it from the base"
        )
    for form, one in compared.items():
        to_base = compare(f"base - {form}", base, others[form])
        if one.errors:
            faults.append(f"{one.pair}: {one.errors[0]}")
        elif one.unmeasured:
            faults.append(f"{one.pair}: {one.first}")
        elif one.worst > allowed:
            faults.append(
                f"{one.pair}: {one.worst_clip} differs by {one.worst:.2g} nats per token, "
                f"{dtype} explains {allowed:.2g}; {one.first}"
            )
        elif one.mean > 2 * to_base.mean and not (weak or to_base.unmeasured):
            faults.append(
                f"{one.pair}: {form} answers as the base does ({to_base.mean:.2g} nats per token "
                f"from it, {one.mean:.2g} from the adapter): it has lost the LoRA"
            )
        elif one.identical < one.samples:
            reports.append(
                f"{one.pair}: {one.samples - one.identical} of {one.samples} answers part between "
                f"tokens of about equal probability, which is no fault ({one.first})"
            )
    found = Parity(
        *(not faults, effect.samples, dtype, allowed, effect, tuple(compared.values())),
        *(tuple(faults), tuple(reports)),
    )
    if strict and faults:
        raise ParityError(
            f"{found.note} No score of this model can be trusted: see 'Parity gate' in "
            "docs/training.md. gate.strict: false records the fault and goes on; the training is "
            "kept and found again either way"
        )
    return found


def compare(pair: str, left: Sequence[Answer], right: Sequence[Answer]) -> Agreement:
    """Compare two forms' answers to the same clips.

    Args:
        pair: Name of the comparison.
        left: Answers of one form.
        right: Answers of the other, of the same clips in the same order.

    Raises:
        ValueError: not the same clips.
    """
    distances: dict[str, list[float]] = {}
    unmeasured, errors, differing = [], [], []
    for a, b in zip(left, right, strict=True):
        if a.name != b.name:
            raise ValueError(f"{pair}: {a.name} against {b.name}")
        if a.error or b.error:
            errors.append(f"{a.name}: {a.error or b.error}")
            continue
        found = token_distances(a.tokens, b.tokens)
        distances[a.name] = found
        if a.text != b.text:
            differing.append(_first_difference(a, b))
            if not found and not _tied(a, b) and not _tied(b, a):
                unmeasured.append(a.name)
    every = [d for found in distances.values() for d in found]
    means = {name: sum(found) / len(found) for name, found in distances.items() if found}
    worst = max(means, key=lambda name: means[name], default="")
    return Agreement(
        pair=pair,
        samples=len(left),
        identical=len(left) - len(differing) - len(errors),
        positions=len(every),
        mean=sum(every) / len(every) if every else 0.0,
        worst=means.get(worst, 0.0),
        worst_clip=worst,
        unmeasured=tuple(unmeasured),
        errors=tuple(errors),
        first=differing[0] if differing else "",
    )


def token_distances(left: Sequence[Token], right: Sequence[Token]) -> list[float]:
    """Return how far two answers' log probabilities lie apart, token by token.

    A token is compared as long as those before it are the same in both: the first that differs
    is the last one compared.

    Returns:
        At each place the largest absolute difference, in nats, over the two tokens written and
        those whose probability is at least :data:`LIKELY` in either answer. A token that the
        other answer does not list is taken to be as likely as the least likely one listed.
    """
    found = []
    for a, b in zip(left, right, strict=False):
        one, other = _logprobs(a), _logprobs(b)
        low, other_low = min(one.values()), min(other.values())
        likely = {
            token
            for token in one.keys() | other.keys()
            if max(one.get(token, low), other.get(token, other_low)) >= math.log(LIKELY)
        }
        # A model that spreads over a large vocabulary has no likely token, but writes one.
        likely |= {a.text, b.text}
        gaps = [abs(one.get(t, low) - other.get(t, other_low)) for t in likely]
        found.append(max(gaps))
        if a.text != b.text:
            break
    return found


def _logprobs(token: Token) -> dict[str, float]:
    # least likely first, so that of two tokens with one text the likelier stays
    listed = sorted(token.top, key=lambda pair: pair[1])
    return {token.text: token.logprob} | dict(listed)


def _tied(measured: Answer, other: Answer) -> bool:
    """Whether an answer without log probabilities begins as another's likely first tokens do."""
    if other.tokens or not measured.tokens or not other.text:
        return False
    first = _logprobs(measured.tokens[0])
    best = max(first.values())
    near = [t for t, lp in first.items() if t and lp >= best - math.log(2)]
    return any(other.text.startswith(token) for token in near)


def _first_difference(a: Answer, b: Answer) -> str:
    both = enumerate(zip(a.text, b.text, strict=False))
    shared = next((i for i, (x, y) in both if x != y), min(len(a.text), len(b.text)))
    shown = [repr(text[shared : shared + 24]) for text in (a.text, b.text)]
    return f"{a.name} parts after {a.text[:shared][-24:]!r}: {shown[0]} against {shown[1]}"
