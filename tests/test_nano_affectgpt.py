"""The nano AffectGPT: found by its name, as its card says, and trainable again."""

from __future__ import annotations

from pathlib import Path

import pytest

from emolib import nano
from emolib.engines.swift_setup import find_model
from emolib.errors import MissingModelError
from emolib.params import ModelParams


def test_a_nano_model_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "config.json").write_text('{"dtype": "float32"}')
    (folder / nano.CARD).write_text('{"files": {"config.json": "other"}}')
    monkeypatch.setattr(nano, "ROOT", tmp_path)
    found = find_model(ModelParams(model="nano:some"))
    assert (found.path, found.dtype) == (folder, "float32")
    assert nano.changed(folder) == ["config.json"]
    with pytest.raises(MissingModelError, match=r"'none' is not known; choose from \['some'\]"):
        find_model(ModelParams(model="nano:none"))
