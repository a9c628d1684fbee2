"""``emolib score``: every score of a label file, with its uncertainty."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emolib.errors import DataError, EmolibError, ScoreError
from emolib.files import write_atomic, write_json
from emolib.labels import Mode
from emolib.scoring import (
    Comparison,
    Grouping,
    Score,
    against_constants,
    compare,
    open_grouping,
    score,
)
from emolib.scoring.files import LabelFile, align, read_labels, read_names
from emolib.scoring.grouping import NAMES
from emolib.scoring.leak import LeakReport, check_leak

_METRICS = {"accuracy": "accuracy", "recall": "recall", "avg": "Avg", "f1": "F1"}

_ABOUT = """\
MER2024-OV set accuracy, recall and Avg (or the emotion-wheel scores of MER2025/2026) of a
prediction file, with 95 % intervals, labels per clip and the best constant list on the same
clips. Files: .csv or .xlsx (name,openset), .jsonl of `emolib predict` or ms-swift, .json, .npz.

  emolib score --gold check-openset.csv --pred predict-openset.csv \\
      --grouping cached --groups openset-synonym.zip
  emolib score --gold gold.csv --pred a.jsonl --compare b.jsonl --grouping lexicon
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "score",
        help="official scores of a label file, offline, with intervals",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gold", required=True, type=Path, metavar="FILE")
    parser.add_argument("--pred", required=True, type=Path, metavar="FILE")
    parser.add_argument(
        "--grouping", required=True, choices=NAMES, help="which labels are the same"
    )
    parser.add_argument(
        "--groups", type=Path, metavar="PATH", help="cached: the answers; llm: cache folder"
    )
    parser.add_argument("--tables", type=Path, metavar="DIR", help="ew2025/ew2026: official tables")
    parser.add_argument("--judge", type=Path, metavar="YAML", help="llm: model parameters")
    parser.add_argument("--votes", type=int, default=1, help="llm: answers per clip")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="paired tests against this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument(
        "--per-clip", type=Path, metavar="FILE", help="one row a clip, .csv or .parquet"
    )
    rules = parser.add_argument_group("what to do about imperfect input (default: stop)")
    rules.add_argument("--missing", choices=("error", "drop", "zero"), default="error")
    rules.add_argument("--extra", choices=("error", "drop"), default="error")
    rules.add_argument("--duplicates", choices=("error", "first", "last"), default="error")
    rules.add_argument("--empty-gold", choices=("error", "drop"), default="error")
    rules.add_argument(
        "--train",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="training lists: leak check",
    )
    rules.add_argument("--allow-leak", action="store_true", help="score in spite of a leak")
    more = parser.add_argument_group("details")
    more.add_argument(
        "--parser",
        choices=("auto", "tolerant", "mer2024", "mer2025"),
        default="auto",
        help="auto: the official one for cached and the wheels, tolerant otherwise",
    )
    more.add_argument(
        "--outside",
        choices=("drop", "keep"),
        default="drop",
        help="wheels: words in no table are dropped (official) or kept as groups of their own",
    )
    more.add_argument("--column", default="", help="column with the labels (openset or labels)")
    more.add_argument("--system", default="", help="only this system of a prediction file")
    more.add_argument("--resamples", type=int, default=10_000, help="bootstrap; 0 = no intervals")
    more.add_argument("--seed", type=int, default=0)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Score, print, write.

    Raises:
        EmolibError: bad input; ``emolib`` prints the message and exits with 2.
    """
    if args.resamples < 0 or args.votes < 1:
        raise ScoreError("--resamples must be 0 or more and --votes 1 or more")
    mode = _mode(args)
    gold = _read_gold(args, mode)
    others = [path for path in (args.pred, args.compare) if path is not None]
    preds = [
        read_labels(path, mode, column=args.column, system=args.system, duplicates=args.duplicates)
        for path in others
    ]
    for k, pred in enumerate(preds):
        preds[k], renamed = align(gold, pred)
        if renamed:
            print(f"{others[k]}: leading zeros given back to {renamed} names")
    leak = check_leak(
        gold.labels, {str(p): read_names(p) for p in args.train}, allow=args.allow_leak
    )
    with _grouping(args, [gold.labels, *(p.labels for p in preds)]) as grouping:
        scores = [
            score(
                gold.labels,
                pred.labels,
                grouping,
                missing=args.missing,
                extra=args.extra,
                empty_gold=args.empty_gold,
                resamples=args.resamples,
                seed=args.seed,
            )
            for pred in preds
        ]
    result = scores[0].to_json()
    print(describe(scores[0], preds[0], leak))
    if args.resamples:
        constants = against_constants(scores[0], resamples=args.resamples, seed=args.seed)
        print(describe_constants(constants))
        result["minus_constant_lists"] = {n: found.to_json() for n, found in constants.items()}
    if args.train:
        result["leak"] = {name: len(found) for name, found in leak.overlaps.items()}
    if args.compare is not None:
        comparison = compare(*scores, resamples=max(args.resamples, 1), seed=args.seed)
        print("\n" + describe_comparison(comparison, *others))
        result["compare"] = comparison.to_json()
    if args.json is not None:
        write_json(args.json, result)
    if args.per_clip is not None:
        write_per_clip(args.per_clip, scores[0])
    return 0


def _read_gold(args: argparse.Namespace, mode: Mode) -> LabelFile:
    """Gold labels from the named column, or from the usual one where that is the predictions'."""
    options: dict[str, Any] = {"duplicates": args.duplicates, "answers": False}
    try:
        return read_labels(args.gold, mode, column=args.column, **options)
    except DataError:
        if not args.column:
            raise
    return read_labels(args.gold, mode, **options)


def _mode(args: argparse.Namespace) -> Mode:
    if args.parser != "auto":
        return args.parser
    official: dict[str, Mode] = {"cached": "mer2024", "ew2025": "mer2025", "ew2026": "mer2025"}
    return official.get(args.grouping, "tolerant")


@contextlib.contextmanager
def _grouping(
    args: argparse.Namespace, systems: Sequence[Mapping[str, Sequence[str]]]
) -> Iterator[Grouping]:
    """The grouping asked for; two systems judged by a model share one partition."""
    options = {"path": args.groups, "tables": args.tables, "outside": args.outside}
    if args.grouping != "llm" or args.judge is None:
        yield open_grouping(args.grouping, **options)
        return
    from emolib.engines import open_engine
    from emolib.judging import EngineJudge
    from emolib.params.loading import load
    from emolib.params.schemas import ModelParams
    from emolib.scoring.judge import LlmGrouping

    with open_engine(load(ModelParams, args.judge), name="judge") as engine:
        grouping = LlmGrouping(EngineJudge(engine), args.groups, args.votes)
        yield grouping if len(systems) == 2 else grouping.freeze(*systems)
        if grouping.agreement is not None:
            print(f"agreement of {args.votes} votes on pairs of labels: {grouping.agreement:.3f}")


def describe(result: Score, pred: LabelFile, leak: LeakReport) -> str:
    """The table ``emolib score`` prints."""
    lines = [f"{result.n} clips, synonyms: {result.grouping['name']} {result.grouping['version']}"]
    for name, title in _METRICS.items():
        line = f"  {title:<10}{getattr(result, name):.4f}"
        if result.ci95:
            (lo, hi), (blo, bhi) = result.ci95[name], result.ci95[f"{name}_bca"]
            line += f"   95 % [{lo:.4f}, {hi:.4f}]   BCa [{blo:.4f}, {bhi:.4f}]"
        lines.append(line)
    if result.wheel is not None:
        for name in ("m1", "m2", "m3_level1", "m3_level2"):
            row = result.wheel[name]
            lines.append(
                f"  {name:<10}F {row['f1']:.4f}  precision {row['precision']:.4f}  "
                f"recall {row['recall']:.4f}"
            )
        lines.append(f"  ranking   {result.wheel['ranking']:.4f}")
    best, short = result.constant_list, result.constant_list["same_length"]
    lines += [
        f"  labels per clip {result.labels_per_clip:.2f}; the grouping knows "
        f"{100 * result.coverage_gold:.1f} % of gold and {100 * result.coverage_pred:.1f} % of "
        "predicted labels",
        f"  without any model: one list of {len(best['labels'])} labels for every clip has Avg "
        f"{best['avg']:.4f}, F1 {best['f1']:.4f};",
        f"    {', '.join(short['labels'])}: Avg {short['avg']:.4f}, F1 {short['f1']:.4f}",
    ]
    odd = {name: n for name, n in pred.statuses.items() if name != "ok"}
    if any(odd.values()):
        lines.append("  predictions " + ", ".join(f"{n} {name}" for name, n in odd.items() if n))
    if pred.duplicates:
        lines.append(f"  {pred.duplicates} duplicate rows left out")
    lines += [f"  {n} clips: {reason.replace('_', ' ')}" for reason, n in result.names.items()]
    lines += [
        f"  LEAK: {len(found)} of {leak.n} clips are in the training list {name}"
        for name, found in leak.overlaps.items()
    ]
    return "\n".join(lines)


def describe_constants(found: Mapping[str, Comparison]) -> str:
    """The paired tests against the best constant lists as text."""
    names = {
        "same_length": "best Avg, no longer than these lists",
        "any_length": "best Avg",
        "best_f1": "best F1",
    }
    lines = ["  minus the best constant list, which is chosen knowing the gold of these clips:"]
    for which, one in found.items():
        gaps = [
            f"{title} {one.difference[m]:+.4f} [{one.ci95[m][0]:+.4f}, {one.ci95[m][1]:+.4f}] "
            f"p {one.p_permutation[m]:.4f}"
            for m, title in (("avg", "Avg"), ("f1", "F1"))
        ]
        lines.append(
            f"    {names[which]} ({one.b['labels_per_clip']:.0f} labels): {'; '.join(gaps)}"
        )
    return "\n".join(lines)


def describe_comparison(found: Comparison, first: Path, second: Path) -> str:
    """The paired tests as text."""
    lines = [f"{first} minus {second}, {found.n} shared clips, shared groups"]
    for name, title in _METRICS.items():
        lo, hi = found.ci95[name]
        lines.append(
            f"  {title:<10}{found.difference[name]:+.4f}   95 % [{lo:+.4f}, {hi:+.4f}]   "
            f"p {found.p_permutation[name]:.4f} (permutation), "
            f"{found.p_bootstrap[name]:.4f} (bootstrap)"
        )
    return "\n".join(lines)


def write_per_clip(path: Path, result: Score) -> Path:
    """Write :attr:`Score.per_clip` as .csv (lists as JSON text) or .parquet (lists as lists).

    Raises:
        ScoreError: another ending.
        DataError: the file cannot be written.
    """
    import json

    table = result.per_clip
    if path.suffix.lower() == ".parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return write_atomic(path, buffer.getvalue())
    if path.suffix.lower() != ".csv":
        raise ScoreError(f"--per-clip {path}: end the name in .csv or .parquet")
    lists = ("gold", "predicted", "gold_groups", "predicted_groups", "hits")
    for column in lists:
        table = table.assign(**{column: [json.dumps(x, ensure_ascii=False) for x in table[column]]})
    return write_atomic(path, table.to_csv(index=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command on its own: ``python -m emolib.cli.score``."""
    parser = argparse.ArgumentParser(prog="emolib")
    add_parser(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args(["score", *(sys.argv[1:] if argv is None else argv)])
    try:
        return run(args)
    except EmolibError as error:
        print(f"emolib score: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
