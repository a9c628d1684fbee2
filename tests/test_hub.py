"""Models by hub id: used from the cache, fetched once when allowed, refused with a way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from emolib.__main__ import main
from emolib.engines import hub
from emolib.engines.swift_setup import find_model, shown_name
from emolib.engines.tiny import build_tiny
from emolib.errors import EngineError, MissingModelError
from emolib.params import ModelParams
from tests.fake_hub import SHA, FakeHub
from tests.media_files import write_video

NAME = "some/model"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a repository offers it, with files that no engine reads."""
    folder = build_tiny("internvl", tmp_path_factory.mktemp("hub") / "model")
    for extra in ("model.onnx", "README.md", "original/consolidated.safetensors", "evil.py"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"never read")
    return folder


@pytest.fixture
def online(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty cache and a hub on this machine; an engine opened before has gone offline."""
    with FakeHub({NAME: published}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(hub, "_OFFLINE_BY_USER", False)
        yield server


def model(**changes: object) -> ModelParams:
    return ModelParams(model=NAME, **changes)  # type: ignore[arg-type]


def test_without_permission_nothing_is_asked_and_the_way_out_is_named(online: FakeHub) -> None:
    with pytest.raises(
        MissingModelError, match=r"not in the .* cache.*\(size unknown\).*--download"
    ):
        find_model(model())
    assert online.asked == []


@pytest.mark.parametrize(
    ("name", "size"),
    [("OpenGVLab/InternVL3-1B-hf", "1.9 GB"), ("Qwen/Qwen3-VL-8B-Instruct", "17.5 GB")],
)
def test_the_size_of_published_models_is_named(name: str, size: str, online: FakeHub) -> None:
    with pytest.raises(MissingModelError, match=rf"once \({size}\)"):
        find_model(ModelParams(model=name))


def test_a_model_is_fetched_once_and_then_found_without_network(online: FakeHub) -> None:
    found = find_model(model(allow_download=True))
    assert constants.HF_HUB_OFFLINE is True
    names = {path.name for path in found.path.rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"model.onnx", "README.md", "consolidated.safetensors", "evil.py"}
    assert len(online.sent) == len(set(online.sent)), "no file twice"
    assert shown_name(model(), found) == NAME, "records name the model, not the revision"
    online.asked.clear()
    for allowed in (True, False):
        assert find_model(model(allow_download=allowed)) == found
    assert online.asked == []


def test_an_interrupted_download_is_incomplete_and_goes_on(online: FakeHub) -> None:
    online.breaks_at = "model.safetensors"
    with pytest.raises(MissingModelError, match="could not be fetched.*the same command continues"):
        find_model(model(allow_download=True))
    with pytest.raises(MissingModelError, match=r"incomplete .*no weights.*--download"):
        find_model(model())
    online.breaks_at = ""
    online.sent.clear()
    find_model(model(allow_download=True))
    assert online.sent == ["model.safetensors"], "what had arrived is kept"


def test_a_cache_made_elsewhere_with_a_shard_missing_is_incomplete(
    published: Path, online: FakeHub, tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(SHA)
    shutil.copytree(published, folder / "snapshots" / SHA)
    assert find_model(model()).path == folder / "snapshots" / SHA
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    at = folder / "snapshots" / SHA / "model.safetensors.index.json"
    at.write_text(json.dumps(index))
    with pytest.raises(MissingModelError, match="1 of 2 shards missing"):
        find_model(model())


def test_a_model_with_code_of_its_own_is_refused_before_its_weights(
    published: Path, online: FakeHub, tmp_path: Path
) -> None:
    coded = tmp_path / "coded"
    shutil.copytree(published, coded)
    config = json.loads((coded / "config.json").read_text())
    (coded / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.M"}}))
    online.models[NAME] = coded
    with pytest.raises(EngineError, match="trust_remote_code"):
        find_model(model(allow_download=True))
    assert not [name for name in online.sent if name.endswith((".safetensors", ".py"))]
    find_model(model(allow_download=True, trust_remote_code=True))
    assert "evil.py" in online.sent


def test_pickled_weights_are_fetched_only_where_there_are_no_others(
    published: Path, online: FakeHub, tmp_path: Path
) -> None:
    both, pickled = tmp_path / "both", tmp_path / "pickled"
    for folder in (both, pickled):
        shutil.copytree(published, folder)
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
        (folder / "training_args.bin").write_bytes(b"pickle")
    (pickled / "model.safetensors").unlink()
    online.models = {"a/both": both, "a/pickled": pickled}
    for name, wanted in (("a/both", "model.safetensors"), ("a/pickled", "pytorch_model.bin")):
        online.sent.clear()
        find_model(ModelParams(model=name, allow_download=True))
        weights = [f for f in online.sent if f.endswith((".safetensors", ".bin"))]
        assert weights == [wanted]


@pytest.mark.filterwarnings("ignore:Not enough free disk space")  # the library's
def test_a_full_disk_is_noticed_before_the_weights(
    online: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 0))
    with pytest.raises(MissingModelError, match=r"needs .* GB and .* has 0\.0 GB free.*HF_HOME"):
        find_model(model(allow_download=True))
    assert "model.safetensors" not in online.sent


def test_what_the_hub_refuses_is_explained(online: FakeHub, published: Path) -> None:
    online.models["meta/closed"], online.gated = published, ("meta/closed",)
    for name, words in (
        ("meta/closed", r"accept their terms.*huggingface\.co/meta/closed.*hf auth login"),
        ("no/such", "has no such model"),
    ):
        with pytest.raises(MissingModelError, match=words):
            find_model(ModelParams(model=name, allow_download=True))


def test_an_offline_machine_says_what_to_unset(
    online: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_OFFLINE_BY_USER", True)
    with pytest.raises(MissingModelError, match="HF_HUB_OFFLINE is set: unset it"):
        find_model(model(allow_download=True))
    assert online.asked == []


@pytest.mark.parametrize("name", ["/no/such/folder", "nowhere", "a/b/c", "we ights/x"])
def test_what_is_no_id_is_a_missing_folder(name: str, online: FakeHub) -> None:
    with pytest.raises(MissingModelError, match=f"{name}: no such model folder"):
        find_model(ModelParams(model=name, allow_download=True))
    assert online.asked == []


def test_predict_by_hub_id(
    online: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Refused with the way out, fetched, asked; asked again without the network."""
    video = write_video(tmp_path / "clip.mp4", 12)
    (tmp_path / "params" / "own").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params" / "own" / "_base.yaml").write_text("models: {}\n")
    monkeypatch.setenv("EMOLIB_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = ["predict", str(video), "--model", NAME, "--profile", "own"]
    command += ["--device", "cpu", "--dtype", "float32", "--batch-size", "2"]
    command += ["--set", "decoding.max_new_tokens=4", "--set", "max_length=600"]
    assert main(command) == 2
    assert "--download" in capsys.readouterr().err
    assert main([*command, "--download"]) == 0
    online.asked.clear()
    assert main([*command, "--frames", "1"]) == 0
    assert online.asked == []
    [row] = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    assert row["description"]
    assert row["system"] == "model"
    assert row["model"]["model"] == NAME
    assert row["model"]["dtype"] == "float32"
    assert row["model"]["max_length"] == 600
    assert row["model"]["decoding"]["max_new_tokens"] == 4
