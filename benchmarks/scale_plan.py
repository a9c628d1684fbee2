"""What a large run needs: the arithmetic behind docs/scale.md, from stated assumptions.

::

    python benchmarks/scale_plan.py --out outputs/record/scale_plan.json

Measured here: bytes of a ledger row and of the memory that holds it. Counted: operations, by
``internvl_model.flops`` at V1.5's full size. Assumed, and written into the record: everything
under ``assumptions``. No GPU has run this; put your own measured ``row_s`` in its place.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import internvl_model as internvl
import torch
from transformers import InternVLForConditionalGeneration

from emolib.engines.base import EngineBase, Reply
from emolib.files import write_json
from emolib.inference import Task, answers
from emolib.ledger import Ledger

ASSUMPTIONS = {
    "frames_of_a_clip": 6,
    "image": "640x480, one tile of 256 tokens (max_tiles 4)",
    "peak_flops": 989e12,  # H100 and H200, dense bfloat16
    "memory_bytes_per_s": 3.35e12,  # H100
    "weight_bytes": 2,
    "mfu_of_reading_a_prompt": 0.4,
    "part_of_memory_speed_when_writing": 0.6,
    "png_bytes_of_an_image": 400_000,
    "jpeg_bytes_of_an_image": 80_000,
    "video_bytes_of_a_clip": 1_000_000,
    "decode_cpu_s_of_a_clip": 0.2,
    "captioners": 2,
}
# Text tokens of the prompt, images in it, tokens written, rows at once.
STAGES: dict[str, dict[str, Any]] = {
    "captions (each captioner)": {"per": "image", "text": 40, "images": 1, "new": 120, "batch": 16},
    "judge": {"per": "image", "text": 330, "images": 0, "new": 20, "batch": 16},
    "prediction": {"per": "clip", "text": 350, "images": 6, "new": 200, "batch": 8},
}
SIZES = {"115,595 clips": 115_595, "1,000,000 clips": 1_000_000}
CAPTION = "The man in the picture lowers his eyebrows and presses his lips together. " * 7


class _Silent(EngineBase):
    """Gives every request the same answer; for measuring rows."""

    name = "internvl"
    identity = {  # noqa: RUF012
        "engine": "transformers", "model": "InternVL-Chat-V1-5-native", "weights": "0" * 16,
        "adapters": [], "template": "internvl_chat_native", "dtype": "bfloat16",
        "max_length": 8192, "max_tiles": 4,
        "decoding": {"max_new_tokens": 512, "temperature": 0.0, "repetition_penalty": 1.0,
                     "stop": []},
    }  # fmt: skip
    software = {"ms-swift": "4.6.0", "transformers": "5.19.0", "torch": "2.14.0"}  # noqa: RUF012

    def stream(self, requests: Any) -> Any:
        for request in requests:
            yield Reply(request.id, CAPTION, None, False, "stop", 300, 120, 0.1234)


def _request(number: int) -> Any:
    from emolib.engines.base import Request

    return Request(id="", prompt=str(number))


def ledger_row(rows: int = 2000) -> dict[str, float]:
    """Bytes of a caption's row on disk and in memory."""
    tasks = {}
    for number in range(rows):
        task = Task(f"sample_{number:08d}#3@internvl", {}, lambda number=number: _request(number))
        tasks[f"{number:064x}"] = task
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.jsonl")
        with Ledger(file) as ledger:
            for row in answers(tasks, _Silent()):
                ledger.put(row)
        size = file.stat().st_size / rows
        tracemalloc.start()
        with Ledger(file) as ledger:
            held = tracemalloc.get_traced_memory()[0] / len(ledger)
        tracemalloc.stop()
    return {"disk_bytes": round(size), "memory_bytes": round(held)}


def row_seconds(model: Any, stage: dict[str, Any]) -> dict[str, float]:
    """GPU seconds of one row: reading the prompt is bound by arithmetic, writing by memory."""
    a = ASSUMPTIONS
    tokens = stage["text"] + 256 * stage["images"]
    work = internvl.flops(model, 1, stage["images"], tokens, logits=1).forward
    read = work / a["peak_flops"] / a["mfu_of_reading_a_prompt"]
    weights = sum(
        w.numel() for n, w in model.named_parameters() if "language_model" in n or "lm_head" in n
    )
    step = weights * a["weight_bytes"] / a["memory_bytes_per_s"]
    write = stage["new"] * step / a["part_of_memory_speed_when_writing"] / stage["batch"]
    return {"prompt_tokens": tokens, "prompt_flops": work, "read_s": read, "write_s": write,
            "row_s": read + write}  # fmt: skip


def plan(clips: int, seconds: dict[str, dict[str, float]], row: dict[str, float]) -> dict[str, Any]:
    """Rows, hours and bytes of a run over so many clips."""
    a = ASSUMPTIONS
    images = clips * a["frames_of_a_clip"]
    found: dict[str, Any] = {
        "clips": clips,
        "images": images,
        "video_tb": clips * a["video_bytes_of_a_clip"] / 1e12,
        "png_tb": images * a["png_bytes_of_an_image"] / 1e12,
        "jpeg_tb": images * a["jpeg_bytes_of_an_image"] / 1e12,
        "decode_cpu_hours": clips * a["decode_cpu_s_of_a_clip"] / 3600,
        "stages": {},
    }
    for name, stage in STAGES.items():
        rows = images if stage["per"] == "image" else clips
        times = a["captioners"] if name.startswith("captions") else 1
        found["stages"][name] = {
            "rows": rows * times,
            "prompt_tokens": rows * times * seconds[name]["prompt_tokens"],
            "new_tokens": rows * times * stage["new"],
            "gpu_hours": rows * times * seconds[name]["row_s"] / 3600,
            "ledger_gb": rows * times * row["disk_bytes"] / 1e9,
            "driver_memory_gb": rows * times * row["memory_bytes"] / 1e9,
        }
    return found


def main() -> None:
    """Compute and print one JSON record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(internvl.config_of("26b"))
    row = ledger_row()
    seconds = {name: row_seconds(model, stage) for name, stage in STAGES.items()}
    record = {
        "command": shlex.join(["python", "benchmarks/scale_plan.py", *sys.argv[1:]]),
        "note": "Arithmetic, not a measurement: no GPU has run this.",
        "assumptions": ASSUMPTIONS,
        "stages": STAGES,
        "ledger_row": row,
        "seconds_of_a_row": seconds,
        "plans": {name: plan(clips, seconds, row) for name, clips in SIZES.items()},
    }
    write_json(args.out, record)
    print(args.out)


if __name__ == "__main__":
    main()
