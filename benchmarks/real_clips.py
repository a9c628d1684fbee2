"""Send a folder of real clips through notebooks 00, 01, 02 and 05 of the demo profile.

    python -m benchmarks.real_clips FOLDER --json outputs/record/real_clips.json [--index CSV]

The clips are read by the ``folder`` reader under the demo profile's models, which are tiny and
untrained: what this shows is that every clip comes through, how many faces are found and where
words come from. For the last a tiny untrained Whisper is made on the spot; a clip whose sound it
was asked about counts as heard, and what it wrote means nothing.

``--index`` is a CSV with ``file`` and ``emotion``: known emotions become gold labels, so that the
three arms of notebook 05 are scored on those clips.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from emolib import pipeline, runs
from emolib.files import write_json
from emolib.params.loading import project_root

STAGES = ("00_data_check", "01_data_generation", "02_caption_filtering", "05_face_crop_ablation")
CHANGES: dict[str, dict[str, Any]] = {
    "01_data_generation": {"split": ""},
    "05_face_crop_ablation": {"split": ""},
}


def write_whisper(path: Path) -> Path:
    """Save an untrained Whisper in openai-whisper's format."""
    import torch
    import whisper

    torch.manual_seed(0)
    sizes = {"n_audio_ctx": 1500, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 1}
    sizes |= {"n_text_ctx": 16, "n_text_state": 16, "n_text_head": 2, "n_text_layer": 1}
    dims = whisper.ModelDimensions(n_mels=80, n_vocab=51865, **sizes)
    state = whisper.Whisper(dims).state_dict()
    torch.save({"dims": dims.__dict__, "model_state_dict": state}, path)
    return path


def write_table(path: Path, index: Path, folder: Path) -> Path:
    """Give the clips whose emotion the index knows a gold label."""
    with index.open(encoding="utf-8", newline="") as file:
        known = {Path(row["file"]).stem: row["emotion"] for row in csv.DictReader(file)}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "labels"])
        for clip in sorted(folder.iterdir()):
            emotion = known.get(clip.stem, "")
            writer.writerow([clip.stem, "" if emotion == "unknown" else emotion])
    return path


def write_project(home: Path, folder: Path, index: Path | None) -> Path:
    """Make a project whose demo profile reads ``folder``."""
    source = project_root()
    shutil.copytree(source / "notebooks", home / "notebooks")
    (home / "params" / "demo").mkdir(parents=True)
    base = yaml.safe_load((source / "params" / "demo" / "_base.yaml").read_text(encoding="utf-8"))
    base["data"] = {"kind": "folder", "root": str(folder.absolute())}
    if index is not None:
        base["data"]["table"] = str(write_table(home / "clips.csv", index, folder))
    base["asr"] = {"model": str(write_whisper(home / "untrained.pt")), "beam_size": 1}
    (home / "params" / "demo" / "_base.yaml").write_text(yaml.safe_dump(base))
    for stage in STAGES:
        own = {"profile": "demo", **CHANGES.get(stage, {})}
        (home / "params" / "demo" / f"{stage}.yaml").write_text(yaml.safe_dump(own))
    return home


def summary(home: Path) -> dict[str, Any]:
    """Numbers over all clips; nothing about a single one."""
    results, folders = {}, {}
    for stage in STAGES:
        folder = runs.latest(home / "outputs", "demo", stage)
        assert folder is not None, stage
        results[stage], folders[stage] = runs.read_result(folder), folder
    check, captions, judged, faces = (results[stage] for stage in STAGES)
    [table] = [t for t in captions["tables"] if t["title"] == "Captions"]
    return {
        "00": {key: check["overview"][key] for key in ("clips", "with_audio", "errors", "sizes")},
        "01": {
            "images": captions["images"],
            "unreadable": captions["unreadable"],
            "captions": {row[0]: row[1] for row in table["rows"]},
        },
        "02": judged["counts"],
        "05": {
            "detection": faces["detection"],
            "words": faces["words"],
            "errors": {view: one["errors"] for view, one in faces["predictions"].items()},
            "labelled": faces["parts"][0]["n"],
            "clips_by_part": {part["name"]: part["n"] for part in faces["parts"]},
        },
        "quarantined": sum(len(result.get("quarantined", [])) for result in results.values()),
        "seconds": {s: runs.read_manifest(folder)["seconds"] for s, folder in folders.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--json", type=Path, help="write the record here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = write_project(Path(folder), args.folder, args.index)
        os.environ["EMOLIB_ROOT"] = str(home)
        outcomes = pipeline.run_profile(home, "demo")
        failed = [f"{one.stage.name}: {one.error}" for one in outcomes if one.state == "failed"]
        if failed:
            raise SystemExit("\n".join(failed))
        record = {
            "command": "python -m benchmarks.real_clips FOLDER --index INDEX.csv "
            "--json outputs/record/real_clips.json",
            "models": "the demo profile's, tiny and untrained; so is the Whisper",
            **summary(home),
        }
    print(json.dumps(record, indent=1))
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    main()
