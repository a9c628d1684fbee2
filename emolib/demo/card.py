"""Write a nano model's folder: weights in half precision, processor, model card."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from emolib.demo.loop import Clock, ends
from emolib.demo.recipe import Recipe
from emolib.files import write_atomic, write_json
from emolib.hashing import sha_file
from emolib.nano import CARD


def measured(
    seeing: list[float],
    saw: dict[str, float],
    saying: list[float],
    said: dict[str, float],
    clock: Clock,
) -> dict[str, Any]:
    """Put together what a card says of a model with a tower and a language model.

    Args:
        seeing: Losses of the tower.
        saw: Its validation accuracies.
        saying: Losses of the language model.
        said: Its agreement on validation clips.
        clock: Started with the training.
    """
    return {
        "losses": {"tower": ends(seeing), "language": ends(saying)},
        "scores": {f"sees {k}": v for k, v in saw.items()}
        | {f"says {k}": v for k, v in said.items()},
        "time_since_last_start": clock.read(),
    }


def save(
    model: Any,
    processor: Any,
    folder: Path,
    *,
    name: str,
    recipe: Recipe,
    facts: dict[str, Any],
) -> Path:
    """Write a finished model; an older one in its place is replaced.

    Args:
        model: Any transformers model; stored as float16, to be computed in float32.
        processor: Saved beside it.
        folder: Where.
        name: Of the training command.
        recipe: How it was made.
        facts: What more the card should say: losses, scores, time.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.half().save_pretrained(draft)
        processor.save_pretrained(draft)
        _computed_in_float32(draft / "config.json")
        write_card(draft, model, name=name, recipe=recipe, facts=facts)
        draft.chmod(0o755)
        for file in draft.iterdir():
            file.chmod(0o644)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def write_card(
    folder: Path, model: Any, *, name: str, recipe: Recipe, facts: dict[str, Any]
) -> None:
    """Write ``model_card.json`` and a README.md that says the same in words."""
    files = {file.name: sha_file(file) for file in sorted(folder.iterdir()) if file.is_file()}
    sizes = sum(file.stat().st_size for file in folder.iterdir())
    options = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in asdict(recipe).items())
    card = {
        "name": name,
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sizes,
        "data": {
            "world": "emolib/datasets/demo",
            "domain": "base and target" if recipe.target_clips else "base",
            "split": "train",
            "never_seen": (
                "splits val and test; any clip of another world seed"
                if recipe.target_clips
                else "domain target; splits val and test of base"
            ),
        },
        "recipe": asdict(recipe),
        **facts,
        "command": f"python -m emolib.demo.train {name} {options}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "files": files,
    }
    write_json(folder / CARD, card)
    write_atomic(folder / "README.md", _words(card))


def _words(card: dict[str, Any]) -> str:
    scores = "\n".join(f"| {k} | {v} |" for k, v in dict(card.get("scores", {})).items())
    return (
        f"# nano:{card['name']}\n\n"
        f"`{card['architecture']}` with {card['parameters']:,} weights ({card['bytes'] / 1e6:.1f} "
        "MB, stored as float16, computed in float32). It learned the generated demo world "
        "(`emolib/datasets/demo`) and knows nothing else: what it says of a real video means "
        "nothing.\n\n"
        f"{_learned(card['recipe'])}\n\n"
        f"    {card['command']}\n\n"
        f'Measured on {card["recipe"]["val_clips"]} clips of "val" (other people, places and '
        f"sentences):\n\n| | |\n|---|---|\n{scores}\n\n"
        "`model_card.json` holds the same for programs, with losses, time and the hash of every "
        "file.\n"
    )


def _learned(recipe: dict[str, Any]) -> str:
    base = f'Trained on {recipe["clips"]:,} clips of the domain "base"'
    if not recipe["target_clips"]:
        return (
            f'{base}, split "train". It has never seen the domain "target", nor any clip of "val" '
            'or "test".'
        )
    return (
        f'{base} and {recipe["target_clips"]:,} of the domain "target", split "train", of the '
        f"world with seed {recipe['world_seed']}. It is a captioner that knows more than the "
        "model its captions are for: on other clips of "
        '"target" it is no zero-shot model of an unseen domain. It has never seen the people, '
        'places and sentences of "val" and "test".'
    )


def _computed_in_float32(config: Path) -> None:
    text = config.read_text(encoding="utf-8").replace('"float16"', '"float32"')
    write_atomic(config, text)
