"""The data file of weights and data sets: complete for every profile, and what is looked for."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from emolib import assets
from emolib.cli.assets_page import anchor, page
from emolib.params.loading import project_root
from emolib.params.profiles import profiles
from emolib.params.schemas import DataParams, ModelParams
from emolib.params.stages import DataCheck

ROOT = project_root(Path(__file__).parent)
PROFILES = [name for name in profiles(ROOT) if name != "demo"]
PLACE = re.compile(r"(?:weights|data)/[\w./-]+")


def named_in(value: Any) -> set[str]:
    """Every place below weights/ and data/ in a YAML value, at any depth."""
    if isinstance(value, dict):
        return {place for inner in value.values() for place in named_in(inner)}
    if isinstance(value, list):
        return {place for inner in value for place in named_in(inner)}
    return set(PLACE.findall(value)) if isinstance(value, str) else set()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_place_and_server_of_a_profile_is_known(profile: str) -> None:
    found = assets.uses(ROOT, profile)
    places = {use.at for use in found}
    for asset in (*assets.assets_of(ROOT, profile), *assets.assets().values()):
        places |= {asset.at, *PLACE.findall(" ".join(asset.commands()))}
    for file in (ROOT / "params" / profile).rglob("*.yaml"):
        for place in named_in(yaml.safe_load(file.read_text(encoding="utf-8"))):
            assert place in places, f"{file}: {place} is not in assets.yaml"
    unknown = [(u.stage, u.key, u.at) for u in found if u.asset is None and u.at != "data/clips"]
    assert not unknown


def test_commands_are_complete_and_in_order() -> None:
    for asset in assets.assets().values():
        for command in asset.commands():
            assert not re.search(r"\{[\w.-]+\}", command), command
            assert "huggingface-cli" not in command
            if command.startswith("hf download"):
                assert "--local-dir" in command
        assert all(need in assets.assets() for need in asset.needs)
        assert asset.get or asset.note or asset.access, f"{asset.name}: how?"
        assert asset.where or asset.needs, f"{asset.name}: from nowhere"
        assert asset.licence
        assert bool(asset.bytes is None) == (asset.size_basis == "")
    ordered = [asset.name for asset in assets.assets_of(ROOT, "paper")]
    assert ordered.index("vicuna-7b-v0") < ordered.index("video-llama-native")
    assert len(ordered) == len(set(ordered))


def test_sizes_and_licences_come_from_the_published_configurations() -> None:
    known = assets.assets()["Qwen3-8B"]
    assert (known.parameters, known.bytes) == (8_190_735_360, 16_381_000_000)
    assert known.licence == "Apache-2.0"
    models = assets.published()["models"]
    for asset in assets.assets().values():
        count = models.get(asset.hub, {}).get("parameters", {}).get("computed")
        if count and asset.kind == "weights":
            assert asset.parameters == count


def test_another_place_moves_the_commands() -> None:
    model = ModelParams(model="/disk/InternVL-Chat-V1-5-native")
    params = DataCheck(profile="x", data=DataParams(kind="mer2024-ov", root="/disk/mer"))
    (use,) = assets._model("00_data_check", "models.a", model, required=True)
    assert use.asset is not None
    assert use.asset.commands() == [
        "emolib convert internvl weights/InternVL-Chat-V1-5 /disk/InternVL-Chat-V1-5-native"
    ]
    (command,) = use.asset.commands({"InternVL-Chat-V1-5": "/other"})
    assert command == "emolib convert internvl /other /disk/InternVL-Chat-V1-5-native"
    places = [use.at for use in assets.stage_uses("00_data_check", params)]
    assert places == ["/disk/mer", "/disk/mer/check-openset.csv"]
    texts = params.model_copy(update={"data": params.data.model_copy(update={"media": "none"})})
    places = [use.at for use in assets.stage_uses("00_data_check", texts)]
    assert places == ["/disk/mer/check-openset.csv"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_server_that_nobody_starts_stops_no_stage(profile: str) -> None:
    for use in assets.uses(ROOT, profile):
        if use.required and use.model is not None and use.model.engine == "server":
            assert use.model.launch, f"{use.stage} needs {use.at}, which no launch starts"
            assert use.model.base_url.startswith("http://127.0.0.1:")


def test_launch_commands_are_those_of_the_docs() -> None:
    text = " ".join((ROOT / "docs/servers.md").read_text(encoding="utf-8").split())
    for use in assets.uses(ROOT, "paper"):
        if use.model is not None and use.model.launch:
            program, *options = use.model.launch
            said = shlex.join([Path(program).name, *options])
            assert said in text, said
            assert any(command.startswith(str(Path(program).parent)) for command in use.asset.get)


def test_the_page_of_the_docs_is_made_from_the_data_files() -> None:
    """`emolib doctor --markdown > docs/assets.md` writes it anew."""
    made = page(ROOT)
    assert made == (ROOT / "docs/assets.md").read_text(encoding="utf-8")
    for asset in assets.assets().values():
        assert f"### {asset.name}\n" in made
        assert all(command in made for command in asset.commands())
    links = set(re.findall(r"\]\(#([\w-]+)\)", made))
    heads = {anchor(head) for head in re.findall(r"^#+ (.*)$", made, re.MULTILINE)}
    assert links <= heads


def test_the_removed_hub_command_is_recommended_nowhere() -> None:
    kinds = ("docs/*.md", "*.md", "emolib/**/*.py", "emolib/**/*.yaml", "params/**/*.yaml")
    files = [file for kind in kinds for file in ROOT.glob(kind)] + list(ROOT.glob("notebooks/*"))
    old = [file.name for file in files if "huggingface-cli" in file.read_text(encoding="utf-8")]
    assert old == []


def folder(at: Path) -> Path:
    """A whole model folder in two shards."""
    at.mkdir(parents=True)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        save_file({name[6:11]: np.zeros(64, dtype=np.float32)}, at / name)
    index = {"weight_map": dict(zip(("a", "b"), names, strict=True))}
    (at / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        (at / name).write_text("{}")
    return at


def harm(at: Path, how: str) -> None:
    shard = at / "model-00002-of-00002.safetensors"
    if how == "shard":
        shard.unlink()
    elif how == "pointer":
        shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif how == "cut":
        shard.write_bytes(shard.read_bytes()[:-16])
    elif how == "rubbish":
        shard.write_bytes(b"\xff" * 40)
    elif how == "empty":
        (at / "tokenizer.json").write_text("")
    elif how == "tokenizer":
        (at / "tokenizer.json").unlink()
    elif how == "index":
        (at / "model.safetensors.index.json").unlink()
    elif how == "half":
        partial = at / ".cache/huggingface/download"
        partial.mkdir(parents=True)
        (partial / "abc.incomplete").write_text("")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("shard", "1 of 2 shards missing"),
        ("pointer", "Git LFS pointer"),
        ("cut", "is cut"),
        ("rubbish", "no safetensors file"),
        ("empty", "is empty"),
        ("tokenizer", "no tokenizer.json"),
        ("index", "without model.safetensors.index.json"),
        ("half", "half downloaded"),
    ],
)
def test_incomplete_weights_are_seen(tmp_path: Path, how: str, told: str) -> None:
    asset = assets.assets()["InternVL3-1B-hf"]
    at = folder(tmp_path / asset.at)
    assert assets.state(tmp_path, asset, asset.at) == assets.State("there")
    harm(at, how)
    found = assets.state(tmp_path, asset, asset.at)
    assert found.word == "incomplete"
    assert told in found.detail


def test_a_stand_in_counts_under_a_rehearsal_alone(tmp_path: Path) -> None:
    asset = assets.assets()["InternVL3-1B-hf"]
    assert assets.state(tmp_path, asset, asset.at).word == "missing"
    at = folder(tmp_path / asset.at)
    (at / assets.STAND_IN).write_text("{}")
    assert assets.state(tmp_path, asset, asset.at).word == "stand-in"
    (tmp_path / assets.STAND_IN).write_text("{}")
    assert assets.state(tmp_path, asset, asset.at).word == "there"


def test_data_folders_are_looked_into(tmp_path: Path) -> None:
    asset = assets.assets()["mer2024"]
    at = tmp_path / asset.at
    (at / "video").mkdir(parents=True)
    found = assets.state(tmp_path, asset, asset.at)
    assert "no video-labeled/ or video/" in found.detail
    assert "label-transcription.csv" in found.detail
    (at / "video" / "a.mp4").write_text("x")
    (at / "subtitle_chieng.csv").write_text("name,chinese,english\n")
    assert assets.state(tmp_path, asset, asset.at).word == "there"
