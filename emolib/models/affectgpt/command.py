"""``emolib convert affectgpt`` and ``emolib convert affectgpt-2025``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from emolib.errors import DataError

_ABOUT = """\
Turn the published AffectGPT or Video-LLaMA weight files into one folder. The files are
recognised by their content and may be given in any order: eva_vit_g.pth, the BLIP-2 Q-Former,
imagebind_huge.pth, and either both Video-LLaMA branches (gives Video-LLaMA), an AffectGPT
training checkpoint, or all three.

  emolib convert affectgpt --llm DIR --files FILE… DST
"""


_ABOUT_2025 = """\
Put an image tower, an audio tower and a language model together into one AffectGPT of the design
of 2025, ready to be trained: its branches are new. Each is a folder as Hugging Face has them:
CLIP, SigLIP or DINOv2; HuBERT, wav2vec 2.0 or WavLM; any causal language model.

  emolib convert affectgpt-2025 --vision clip-vit-large-patch14 --audio chinese-hubert-large \\
    --llm Qwen2.5-7B-Instruct DST
"""


def add_parser(families: Any) -> None:
    """Add both designs to ``emolib convert``."""
    _add_2024(families)
    parser = families.add_parser(
        "affectgpt-2025",
        help="AffectGPT (2025) from folders of its parts",
        description=_ABOUT_2025,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, what in (("vision", "image tower"), ("audio", "audio tower"), ("llm", "LLM")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR", help=what)
    parser.add_argument("dst", type=Path, metavar="DST", help="folder to make")
    parser.add_argument(
        "--fusion",
        choices=("attention", "mean", "qformer"),
        default="attention",
        help="frames and audio clips to tokens (default: attention, one token each)",
    )
    parser.add_argument(
        "--pre-fusion",
        choices=("attention", "qformer", "none"),
        default="attention",
        help="video and audio fused before the LLM (default: attention)",
    )
    parser.add_argument("--pre-fusion-size", type=int, default=1024, metavar="N", help="its width")
    parser.add_argument(
        "--audio-layers",
        type=int,
        default=4,
        metavar="N",
        help="last hidden layers of the audio tower that are averaged (default: 4)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the branches' first weights")
    parser.set_defaults(convert=run_2025)


def run_2025(args: argparse.Namespace) -> int:
    """Assemble, and say of what."""
    from emolib.models.affectgpt.assemble import assemble

    report = assemble(
        *(args.vision, args.audio, args.llm, args.dst),
        fusion=args.fusion,
        pre_fusion=args.pre_fusion,
        pre_fusion_size=args.pre_fusion_size,
        audio_layers=args.audio_layers,
        seed=args.seed,
    )
    for name, part in report["parts"].items():
        print(f"{name:<15} {part['parameters']:>15,}  {part['class']} of {part['folder']}")
    for name, count in report["untrained"].items():
        print(f"{name:<15} {count:>15,}  new, to be trained")
    print(f"{report['model']} -> {args.dst}")
    return 0


def _add_2024(families: Any) -> None:
    parser = families.add_parser(
        "affectgpt",
        help="AffectGPT (2024) or Video-LLaMA from their weight files",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--llm", type=Path, required=True, metavar="DIR", help="Vicuna or LLaMA")
    parser.add_argument(
        "--files",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="the weight files, then DST, the folder to make",
    )
    # argparse gives an option with many values all that follow, DST included.
    parser.add_argument("dst", type=Path, nargs="?", metavar="DST", help=argparse.SUPPRESS)
    parser.add_argument(
        "--config", type=Path, help="config.json with other sizes than the published ones"
    )
    parser.add_argument(
        "--no-tokenizer", action="store_true", help="the language model folder has no tokenizer"
    )
    parser.add_argument(
        "--reference-compat",
        action="store_true",
        help="prepare sound and tokenise as the published code does, faults included",
    )
    parser.set_defaults(convert=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was done with each file."""
    files, dst = list(args.files), args.dst
    if dst is None:
        dst = files.pop()
    if not files or dst.suffix in {".pth", ".pt", ".bin"}:
        raise DataError("give the files, then DST: --llm DIR --files FILE… DST")

    from emolib.models.affectgpt.configuration import AffectGPTConfig
    from emolib.models.affectgpt.convert import convert_affectgpt

    config = None if args.config is None else AffectGPTConfig.from_json_file(args.config)
    report = convert_affectgpt(
        *(files, args.llm, dst),
        config=config,
        tokenizer=not args.no_tokenizer,
        reference_compat=args.reference_compat,
    )
    for entry in report["files"]:
        left = sum(len(keys) for keys in entry["ignored"].values())
        counts = f"{entry['used']:>5} used {left:>5} left out"
        print(f"{entry['recognised_as']:<10} {counts}  {entry['file']}")
    print(f"{report['model']}: {report['targets_filled']} parameters -> {dst}")
    return 0
