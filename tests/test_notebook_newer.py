"""Notebook 03 with models newer than the paper's: a matter of parameters alone.

A file of its own, so that it runs beside the other notebooks' tests.
"""

from __future__ import annotations

import json

import pytest

from tests.test_notebooks import ROOT, papermill
from tests.tiny_models import BUILDERS


@pytest.mark.notebook
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_fine_tuning_of_a_newer_model_is_a_matter_of_parameters(tmp_path, name):
    folder = BUILDERS[name](tmp_path / name)
    extra = {
        "data": {"kind": "demo", "clips": 9, "seed": 3, "root": str(tmp_path / "data")},
        "outputs": str(tmp_path / "outputs"),
        "run_dir": str(tmp_path / "run"),
        "model": "newer",
        "models": {
            "newer": {
                "model": str(folder),
                "device": "cpu",
                "batch_size": 6,
                "decoding": {"max_new_tokens": 12},
            }
        },
        "lora": {"steps": 6, "batch_size": 2, "save_steps": 3, "learning_rate": 1.0e-2},
        "gate": {"samples": 2, "served": False},
    }
    (tmp_path / "extra.yaml").write_text(json.dumps(extra))
    files = ("-f", str(tmp_path / "extra.yaml"))
    done = papermill(ROOT, "03_internvl_lora", tmp_path / "out.ipynb", *files)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["parity"]["passed"]
    assert result["training"]["steps"] == 6
    assert set(result["scores"]) == {
        "InternVL zero-shot",
        "InternVL fine-tuned",
        "zero-shot + fine-tuned",
    }
