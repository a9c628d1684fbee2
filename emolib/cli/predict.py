"""``emolib predict``: emotion words for your own videos."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from emolib import nano
from emolib.errors import DataError, ParamsError
from emolib.params.loading import Source, merge
from emolib.params.schemas import ModelParams

if TYPE_CHECKING:
    from emolib.datasets.clip import Clip
    from emolib.params.baselines import Baselines
    from emolib.params.stages import StageParams
    from emolib.predict import Prediction

# Options that are parameters of the model under the same name.
_SAME = ("engine", "base_url", "api_key_env", "device", "dtype", "load_in_4bit")

_ABOUT = """\
Describe each clip and list its emotion words. Writes one JSON line a clip (name, labels,
description, system, status, error, ...) and prints a table. Clips that cannot be read get a
line with their error; the others go on. The same command again repeats only what is missing.

The models of profile `demo` were trained on the generated demo world alone: what they say of a
real video means nothing. Give a profile with models of your own, or one model with --model:

  --model weights/InternVL3-8B-hf          a checkpoint folder
  --model OpenGVLab/InternVL3-1B-hf        a model of the Hugging Face hub that is in this
                                           machine's cache; --download fetches it there once
  --model NAME --engine server --base-url http://127.0.0.1:8000/v1
                                           a model behind an OpenAI-compatible server
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="emotion words for video files or folders",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="video files or folders of them")
    parser.add_argument("--profile", default="demo", help="folder under params/ (default: demo)")
    parser.add_argument(
        "--system",
        action="append",
        default=[],
        metavar="NAME",
        help="a model of the profile's _base.yaml, asked the paper's zero-shot question, or a "
        "recipe of its baselines/ folder, asked its own; may be given several times "
        "(default: internvl)",
    )
    parser.add_argument(
        "--model",
        default="",
        metavar="MODEL",
        help="a checkpoint folder or hub id (OWNER/NAME) that no profile names, asked the paper's "
        "zero-shot question (AffectGPT its own); instead of internvl, or beside --system",
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="PATH",
        help="LoRA folder for --model, as notebook 03 writes it, or AffectGPT's "
        "branches.safetensors of notebook 04; several are applied in order",
    )
    _add_model_options(parser)
    parser.add_argument(
        "--labels-by",
        default="",
        metavar="MODEL",
        help="a model of the profile that turns the recipes' descriptions into labels "
        "(default: labels are found without a model)",
    )
    parser.add_argument(
        "--table",
        default="",
        help="CSV with the clips' words: columns name, subtitle",
    )
    parser.add_argument(
        "--asr",
        default="",
        metavar="MODEL",
        help="Whisper checkpoint (.pt) that hears the words of clips without any; needs nothing "
        "from the network (default: the profile's asr, if it has one)",
    )
    parser.add_argument(
        "--language",
        default="",
        metavar="CODE",
        help="language to hear, e.g. zh (default: the profile's, else found out)",
    )
    parser.add_argument("--frames", type=int, default=6, help="frames per clip (default: 6)")
    parser.add_argument("--face", action="store_true", help="show the model the face crop only")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("predictions.jsonl"),
        metavar="FILE",
        help="default: predictions.jsonl",
    )
    parser.set_defaults(handler=run)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how the model of ``--model`` runs."""

    def choices(field: str) -> list[str]:
        return list(get_args(ModelParams.model_fields[field].annotation))

    group = parser.add_argument_group("how the model of --model runs")
    group.add_argument(
        "--download",
        action="store_true",
        help="fetch a hub id into the Hugging Face cache if it is not there (HF_HOME moves the "
        "cache); without it nothing is downloaded",
    )
    group.add_argument(
        "--engine",
        choices=choices("engine"),
        help="transformers (default) or vllm, in this process, or server",
    )
    group.add_argument("--base-url", metavar="URL", help="server: address up to /v1")
    group.add_argument(
        "--api-key-env", metavar="NAME", help="server: environment variable that holds the key"
    )
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="clips computed together (transformers, default 4) or requests under way at once "
        "(vllm, server; default 4)",
    )
    group.add_argument(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1 (default: a GPU when there is one)"
    )
    group.add_argument(
        "--dtype",
        choices=choices("dtype"),
        help="type of the weights; fit: 16 bits where the device can (default: as stored)",
    )
    group.add_argument(
        "--load-in-4bit",
        action="store_true",
        help="quantize while loading, a third of the memory (needs bitsandbytes: extra quant)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other parameter of a model, as in parameter files, e.g. max_length=8192 or "
        "decoding.max_new_tokens=256; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    """Predict, write the file, print the table; 1 when a clip has an error row."""
    from emolib import quarantine
    from emolib.params.loading import project_root
    from emolib.params.profiles import base_params, recipes

    if args.frames < 1:
        raise ParamsError(f"--frames {args.frames}: must be at least 1")
    root = project_root()
    base = base_params(root, args.profile)
    known = recipes(root, args.profile)
    base, args.system = _with_own(args, base, known)
    known = known.model_copy(update={"outputs": base.outputs, "models": base.models})
    chosen = known.model_copy(update={"systems": _recipes(args, known)})
    if args.out.is_dir() or not args.out.parent.exists():
        raise DataError(f"--out {args.out}: give a file in a folder that exists")
    listed = quarantine.path_for(root / base.outputs, args.profile)
    with quarantine.supervised(base.decode, listed):
        return _predict(args, base, chosen, root)


def _predict(args: argparse.Namespace, base: StageParams, chosen: Baselines, root: Path) -> int:
    """Do what :func:`run` has checked."""
    from emolib.datasets.folder import clips_from_paths
    from emolib.files import write_jsonl
    from emolib.predict import detection_rate
    from emolib.report import format_table, one_line

    table = Path(args.table) if args.table else None
    warn = functools.partial(print, file=sys.stderr)
    clips = clips_from_paths([Path(p) for p in args.paths], table, say=warn)
    out = args.out.absolute()
    clips = _with_words(args, base, clips, root)
    rows = []
    with contextlib.chdir(root):  # where a profile's paths begin
        for name in dict.fromkeys(args.system):
            if name in base.models:
                rows += _zero_shot(args, base, name, clips)
        if chosen.systems:
            rows += _baselines(args, chosen, clips)
    write_jsonl(out, (row.to_json() for row in rows))
    print(
        format_table(
            ["clip", "system", "labels", "description"],
            [
                [
                    row.name,
                    row.system,
                    ", ".join(row.labels) or "-",
                    "ERROR, see below" if row.error else row.description,
                ]
                for row in rows
            ],
            widest=48,
        )
    )
    failed = [row for row in rows if row.status == "error"]
    if args.face and (rate := detection_rate(rows))["frames"]:
        print(
            f"\nfaces: found in {rate['frames_with_face']} of {rate['frames']} frames "
            f"({rate['rate']:.0%}); {rate['clips_without_face']} of {rate['clips']} clips have none"
        )
    print()
    for row in failed:  # in full: the table has no room for a reason
        print(f"{one_line(row.name)}: {one_line(row.error or '')}")
    print(f"{len(rows)} rows, {len(failed)} with an error -> {args.out}")
    return 1 if failed else 0


def _with_own(
    args: argparse.Namespace, base: StageParams, known: Baselines
) -> tuple[StageParams, list[str]]:
    """Parameters with the model of ``--model`` among them, and the systems to ask.

    Raises:
        ParamsError: an option of ``--model`` without it, a wrong value, or no folder but a system
            of the profile.
        MissingModelError: no such folder, and not in the Hugging Face cache.
    """
    if not args.model:
        if given := [
            o for o in ("adapter", "download", "batch_size", *_SAME, "set") if _is_given(args, o)
        ]:
            raise ParamsError(f"{_flag(given[0])}: is for --model; name its folder or hub id")
        return base, args.system or ["internvl"]
    model = _own(args)
    taken, path = {*base.models, *known.recipes}, model.model
    if path in taken and model.engine != "server":
        raise ParamsError(
            f"--model {args.model}: there is no such folder; to ask the system {path!r} of profile "
            f"{args.profile}, say --system {path}"
        )
    if model.engine != "server" and not Path(path).is_dir() and not _is_ours(path):
        from emolib.engines.swift_setup import find_model

        find_model(model)  # a hub id is looked for, or fetched, before anything else is computed
    name = path if model.engine == "server" else Path(path).resolve().name
    if name in taken:
        name = f"{path} (server)" if model.engine == "server" else path
    return base.model_copy(update={"models": {**base.models, name: model}}), [*args.system, name]


def _own(args: argparse.Namespace) -> ModelParams:
    """Parameters of the model of ``--model``.

    Raises:
        ParamsError: a wrong value; names the option and the choices.
    """
    served = args.engine == "server"
    wrong = ("download", "adapter", "load_in_4bit") if served else ("base_url", "api_key_env")
    for option in (o for o in wrong if _is_given(args, o)):
        raise ParamsError(f"{_flag(option)}: is {'not ' if served else ''}for --engine server")
    if served and not args.base_url:
        raise ParamsError("--engine server: give its address with --base-url")
    together = "batch_size" if args.engine in (None, "transformers") else "concurrency"
    values: dict[str, dict[str, Any]] = {
        "model": {"model": args.model if served else _absolute(args.model)},
        "adapter": {"adapters": [_absolute(path) for path in args.adapter]},
        "download": {"allow_download": args.download},
        "batch_size": {together: 4 if args.batch_size is None else args.batch_size},
    }
    values |= {o: {o: getattr(args, o)} for o in _SAME if _is_given(args, o)}
    sources = [Source(_flag(option), value) for option, value in values.items()]
    return merge(ModelParams, [*sources, *map(_setting, args.set)])


def _is_ours(model: str) -> bool:
    return model.startswith(("tiny:", nano.PREFIX))


def _is_given(args: argparse.Namespace, option: str) -> bool:
    value = getattr(args, option)
    return not (value is None or value is False or value == [])


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _setting(given: str) -> Source:
    """One ``--set KEY=VALUE`` as a source of parameters."""
    key, equals, text = given.partition("=")
    if not equals or not key.strip("."):
        raise ParamsError(f"--set {given}: give KEY=VALUE, e.g. max_length=8192")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ParamsError(f"--set {given}: {text!r} is not YAML") from None
    for part in reversed(key.split(".")):
        value = {part: value}
    return Source(f"--set {key}", value)


def _absolute(given: str) -> str:
    """A path from where the command was given; a hub's id stays as it is."""
    path = Path(given).expanduser()
    return str(path.absolute()) if path.exists() else given


def _by_affectgpt(
    args: argparse.Namespace, base: StageParams, name: str, clips: list[Clip]
) -> list[Prediction] | None:
    """AffectGPT's predictions: it takes frames, sound and words its own way; None of others."""
    from emolib import sft
    from emolib.ledger import Ledger
    from emolib.params.media import FaceParams

    outputs = Path(base.outputs)
    cache = outputs / "models"
    model = base.models[name]
    if not sft.is_affectgpt(model, cache):
        return None
    view: Literal["whole", "face"] = "face" if args.face else "whole"
    shown, faces = sft.shown_clips(clips, view, FaceParams(size=224), outputs / "faces")
    if faces:
        print(f"{name}: faces found in {faces['found']} of {faces['frames']} frames")
    with Ledger(outputs / args.profile / "ledger" / "predict.jsonl") as ledger:
        return sft.predict_clips(
            *(shown, model, ledger),
            system=f"{name}{' (face crop)' if args.face else ''}",
            cache=cache,
        )


def _recipes(args: argparse.Namespace, base: Baselines) -> tuple[str, ...]:
    """The recipes among the systems asked for.

    Raises:
        ParamsError: a name is neither a model nor a recipe.
    """
    found = []
    for name in dict.fromkeys(args.system):
        if name in base.recipes:
            found.append(name)
        elif name not in base.models:
            raise ParamsError(
                f"--system {name}: choose from the models {sorted(base.models)} or the recipes "
                f"{sorted(base.recipes)}"
            )
    if args.labels_by and args.labels_by not in base.models:
        raise ParamsError(f"--labels-by {args.labels_by}: choose from {sorted(base.models)}")
    if args.labels_by and not found:
        raise ParamsError("--labels-by: is for recipes; name one with --system")
    if found and args.face:
        raise ParamsError("--face: recipes show whole frames; leave it out or name a model")
    return tuple(found)


def _zero_shot(
    args: argparse.Namespace, base: StageParams, name: str, clips: list[Clip]
) -> list[Prediction]:
    """The paper's question to one model of the profile."""
    from emolib import budget
    from emolib.engines import open_engine
    from emolib.ledger import Ledger
    from emolib.params.media import FaceParams
    from emolib.predict import View, predict

    if (said := _by_affectgpt(args, base, name, clips)) is not None:
        return said
    outputs, face = Path(base.outputs), FaceParams() if args.face else None
    view: View = "face" if args.face else "whole"
    room = budget.fit(
        base.models[name],
        clips,
        frames=args.frames,
        view=view,
        face=face,
        cache=outputs / "models",
    )
    print(f"{name}: {room.note}")
    with (
        open_engine(
            room.model, name=name, cache=outputs / "models", cluster=base.cluster
        ) as engine,
        Ledger(outputs / args.profile / "ledger" / "predict.jsonl") as ledger,
    ):
        return predict(
            clips,
            engine,
            ledger,
            system=f"{name}{' (face crop)' if args.face else ''}",
            frames=args.frames,
            seed=base.seed,
            view=view,
            face=face,
        )


def _baselines(args: argparse.Namespace, chosen: Baselines, clips: list[Clip]) -> list[Prediction]:
    """The recipes' questions, and their labels by a model where one is named."""
    from emolib.baselines.run import labels_by, run_systems
    from emolib.engines import open_engine
    from emolib.ledger import Ledger

    outputs, recipes = Path(chosen.outputs), chosen.chosen()
    file = outputs / args.profile / "ledger" / "predict.jsonl"
    with Ledger(file) as ledger:
        ran = run_systems(
            *(clips, recipes, chosen.models, ledger),
            seed=chosen.seed,
            cache=outputs / "models",
            cluster=chosen.cluster,
        )
        ran.check("stop")
        said = {name: ran.predictions[name] for name in chosen.systems}
        if not args.labels_by:
            return [row for found in said.values() for row in found]
        model = chosen.models[args.labels_by]
        with open_engine(
            model, name=args.labels_by, cache=outputs / "models", cluster=chosen.cluster
        ) as engine:
            read = labels_by(engine, said, ledger)
    return [row for found in read.values() for row in found]


def _with_words(args: argparse.Namespace, base: Any, clips: list[Any], root: Path) -> list[Any]:
    """Hear what is missing, when there is a model to hear with."""
    from emolib.ledger import Ledger
    from emolib.words import with_words, words_summary

    chosen = {"model": _absolute(args.asr)} if args.asr else {}
    chosen |= {"language": args.language} if args.language else {}
    asr = base.asr.model_copy(update=chosen)
    if not asr.model:
        return clips
    file = root / base.outputs / args.profile / "ledger" / "words.jsonl"
    with contextlib.chdir(root), Ledger(file) as ledger:
        clips = with_words(clips, asr, ledger, cluster=base.cluster)
    print("words:", ", ".join(f"{source} {n}" for source, n in words_summary(clips).items()))
    return clips
