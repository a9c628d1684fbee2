"""Profile laptop on a folder of videos without labels: every notebook ends, and says why no score.

Its own parameter files, with a tiny model and no speech recognition in the place of the weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emolib import plan
from emolib.engines.precision import fitting_type, weight_type
from emolib.params.profiles import resolve
from emolib.params.schemas import ModelParams
from tests.media_files import write_video
from tests.test_notebooks import ROOT


def run(stage: str, tmp_path: Path, **more: object) -> dict[str, object]:
    """Run a notebook with the profile's file over three videos; give its result."""
    videos = tmp_path / "clips"
    if not videos.is_dir():
        videos.mkdir()
        for number in range(3):
            write_video(videos / f"v{number}.mp4", 24, audio=np.zeros((1, 16_000), np.float32))
    run_dir = tmp_path / stage
    extra = {
        "data": {"root": str(videos)},
        "asr": {"model": ""},
        "outputs": str(tmp_path / "outputs"),
        "run_dir": str(run_dir),
        "models": {"internvl": {"model": "tiny:internvl", "decoding": {"max_new_tokens": 8}}},
    } | more
    (tmp_path / "extra.yaml").write_text(json.dumps(extra))
    command = [sys.executable, "-m", "papermill", f"notebooks/{stage}.ipynb"]
    command += [str(tmp_path / "out.ipynb"), "-f", f"params/laptop/{stage}.yaml"]
    command += ["-f", str(tmp_path / "extra.yaml"), "-k", "python3", "--no-progress-bar"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads((run_dir / "result.json").read_text())
    return found


@pytest.mark.notebook
def test_clips_without_labels_are_described_and_not_scored(tmp_path: Path) -> None:
    run("00_data_check", tmp_path)
    result = run("03_internvl_lora", tmp_path)
    assert result["training"] is None
    assert result["parity"] is None
    assert result["scores"] == {}
    assert not (tmp_path / "03_internvl_lora" / "fine_tuned.jsonl").exists()
    tables = {table["title"]: table for table in result["tables"]}  # type: ignore[attr-defined]
    assert [row[0] for row in tables["Labels"]["rows"]] == ["v0", "v1", "v2"]
    assert "no" in tables["InternVL, whole image (ours)"]["notes"][0].lower()
    others = run("08_baselines", tmp_path)
    assert others["scores"] == {}
    assert others["not_run"] == {}
    rows = next(t for t in others["tables"] if t["title"] == "Labels")  # type: ignore[attr-defined]
    assert rows["columns"] == ["clip", "InternVL3-1B", "InternVL3-1B, frames alone"]


def test_the_profile_trains_nothing_and_reads_no_earlier_stage() -> None:
    present = [s.name for s in plan.STAGES if (ROOT / f"params/laptop/{s.name}.yaml").is_file()]
    assert present == ["00_data_check", "03_internvl_lora", "08_baselines"]
    params = resolve(ROOT, "laptop", "03_internvl_lora")
    assert params.lora is None
    assert params.models["internvl"].device == "auto"


@pytest.mark.parametrize(
    ("device", "mps", "newer", "cuda", "native", "amx", "wanted"),
    [
        ("auto", False, False, False, False, False, "float32"),
        ("auto", False, False, False, False, True, "bfloat16"),
        ("auto", False, False, True, True, False, "bfloat16"),
        ("auto", False, False, True, False, False, "float16"),
        ("auto", True, True, False, False, False, "bfloat16"),
        ("auto", True, False, False, False, False, "float16"),
        ("cpu", True, True, True, True, False, "float32"),
        ("cuda:1", False, False, True, False, True, "float16"),
    ],
)
def test_the_weight_type_fits_the_device(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    mps: bool,
    newer: bool,
    cuda: bool,
    native: bool,
    amx: bool,
    wanted: str,
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: newer)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fitting_type(device) == wanted
    assert weight_type(ModelParams(model="m", dtype="fit", device=device), "float64") == wanted
    assert weight_type(ModelParams(model="m"), "float64") == "float64"
    assert weight_type(ModelParams(model="m", dtype="float16"), "float64") == "float16"
