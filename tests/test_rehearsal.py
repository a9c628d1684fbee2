"""Rehearsals: stand-ins true to the publications, faults named, parameters changed as told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from emolib import assets
from emolib.__main__ import main
from emolib.engines.base import Request
from emolib.engines.server import ServerEngine
from emolib.errors import EmolibError, MissingModelError
from emolib.files import write_jsonl
from emolib.params import profiles
from emolib.params.schemas import Decoding, ModelParams
from emolib.rehearsal.home import Servers, inside, new_home
from emolib.rehearsal.overlay import Changes, Overlay, read_overlay, write_params
from emolib.rehearsal.published import HEADS, LAYERS, WIDTH, entry_of, shrink
from emolib.rehearsal.server import StandInServer
from emolib.rehearsal.walk import row_errors, unexpected_answers
from emolib.rehearsal.words import PIECES

REPO = Path(__file__).parents[1]
PROFILES = ("paper", "h200", "affectgpt2025", "laptop")


def numbers(config, path=()):
    """Every plain value of a nested configuration with its path."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from numbers(value, (*path, key))
        else:
            yield (*path, key), value


KEPT = (
    *("vocab_size", "image_size", "patch_size", "num_mel_bins", "max_position_embeddings"),
    *("rope_theta", "max_source_positions", "window_size", "image_token_id", "norm_type"),
    *("model_type", "architectures", "conv_kernel", "conv_stride", "num_position_embeddings"),
    *("eos_token_id", "tie_word_embeddings", "torch_dtype", "dtype", "hidden_act"),
)


@pytest.mark.parametrize("hub_id", sorted(assets.published()["models"]))
def test_only_widths_and_depths_are_small(hub_id):
    config = entry_of(hub_id)[1]["config"]
    small = dict(numbers(shrink(config)))
    for path, value in numbers(config):
        if path[-1] in KEPT:
            assert small[path] == value
        if path[-1] == "hidden_size" and not {"talker_config", "token2wav_config"} & {*path}:
            assert small[path] == WIDTH or "code2wav_config" in path
        if path[-1] == "mrope_section" and "thinker" in path[0] + "thinker":
            assert sum(small[path]) in (WIDTH // HEADS // 2, sum(value))
            assert len(small[path]) == len(value)
        if path[-1] == "deepstack_visual_indexes":
            assert small[path] == list(range(LAYERS))


def test_grouped_queries_stay_grouped():
    made = shrink({"num_attention_heads": 32, "num_key_value_heads": 8})
    assert made == {"num_attention_heads": 2, "num_key_value_heads": 1}
    made = shrink({"num_attention_heads": 32, "num_key_value_heads": 32})
    assert made["num_key_value_heads"] == made["num_attention_heads"]


# Parameters ---------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A project root with the real notebooks and params, to be changed."""
    shutil.copytree(REPO / "notebooks", tmp_path / "project/notebooks")
    shutil.copytree(REPO / "params", tmp_path / "project/params")
    return tmp_path / "project"


def overlaid(project, profile, tmp_path, moved=()):
    home = tmp_path / "home"
    new_home(home)
    servers = Servers()
    overlay = read_overlay(project)
    write_params(project, profile, home, overlay, dict(moved), servers.rewrite)
    shutil.copytree(project / "notebooks", home / "notebooks")
    return home, servers


COUNTS = {"clips", "limit", "steps", "epochs", "steps_per_epoch", "save_steps", "save_epochs"}
COUNTS |= {"batch_size", "accumulate", "workers", "frames", "samples", "test", "val", "repeats"}
COUNTS |= {"folds", "search", "resamples", "gallery", "audit_pairs", "max_new_tokens", "beam_size"}
PLACES = {"device", "processes", "deepspeed", "base_url", "launch", "api_key_env", "concurrency"}
PLACES |= {"retries", "patience_s", "launch_s", "temperatures"}


@pytest.mark.parametrize("profile", PROFILES)
def test_only_counts_and_places_are_changed(project, profile, tmp_path):
    home, _ = overlaid(project, profile, tmp_path)
    stages = [
        stage for stage in profiles.SCHEMAS if (home / f"params/{profile}/{stage}.yaml").is_file()
    ]
    assert stages
    for stage in stages:
        feeds = {name: "." for name in profiles.SCHEMAS[stage].INPUTS}
        before = profiles.resolve(project, profile, stage, feeds).model_dump(mode="json")
        after = profiles.resolve(home, profile, stage, feeds).model_dump(mode="json")
        flat = dict(numbers(after))
        for path, value in numbers(before):
            if path[-1] == "features":
                for old, new in zip(value, flat[path], strict=True):
                    assert {k for k in old if old[k] != new[k]} <= COUNTS | PLACES
            elif flat.get(path) != value:
                assert path[-1] in COUNTS | PLACES, f"{stage}: {path} {value} -> {flat.get(path)}"
                if path[-1] in COUNTS and value:
                    assert flat[path] <= value or path[-1] == "steps_per_epoch"


def test_smaller_counts_and_zero_for_none_stay(project, tmp_path):
    file = project / "params/paper/04_affectgpt_sft.yaml"
    values = yaml.safe_load(file.read_text())
    assert values["val"] == 0
    home, _ = overlaid(project, "paper", tmp_path)
    assert yaml.safe_load((home / "params/paper/04_affectgpt_sft.yaml").read_text())["val"] == 0


def test_a_mapping_that_only_the_cell_has_is_taken_whole(project, tmp_path):
    (project / "params/paper/03_internvl_lora.yaml").write_text("profile: paper\nsplit: ''\n")
    home, _ = overlaid(project, "paper", tmp_path)
    made = yaml.safe_load((home / "params/paper/03_internvl_lora.yaml").read_text())
    assert made["lora"]["learning_rate"] == 1.0e-3  # the cell's
    assert made["lora"]["steps"] == 2


def test_a_wrong_overlay_is_refused(project):
    (project / "params/rehearsal.yaml").write_text("stage: {}\n")
    with pytest.raises(EmolibError, match=r"unknown key 'stage'"):
        read_overlay(project)
    assert Overlay(stages={"x": Changes(at_most={"a": 1})}).clips >= 4


def test_nothing_outside_the_root_is_named(project, tmp_path):
    base = project / "params/h200/_base.yaml"
    text = base.read_text().replace(
        "weights/Qwen3-VL-8B-Instruct", "/srv/weights/Qwen3-VL-8B-Instruct"
    )
    base.write_text(text)
    used = assets.uses(project, "h200")
    moved = {use.at: inside(use.at) for use in used if inside(use.at) != use.at}
    assert list(moved) == ["/srv/weights/Qwen3-VL-8B-Instruct"]
    home, _ = overlaid(project, "h200", tmp_path, moved.items())
    made = profiles.base_params(home, "h200").models["qwen3vl"].model
    assert made.startswith("elsewhere/")
    assert made.endswith("/Qwen3-VL-8B-Instruct")


@pytest.mark.parametrize("profile", ["demo", "published"])
def test_what_can_be_run_is_not_rehearsed(profile, capsys):
    assert main(["rehearse", profile]) == 0
    assert f"emolib run {profile}" in capsys.readouterr().out


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("mine")
    with pytest.raises(EmolibError, match="left alone"):
        new_home(tmp_path / "home")
    assert (tmp_path / "home/thesis.tex").read_text() == "mine"


# Servers ------------------------------------------------------------------------------------


def test_the_stand_in_server_speaks_the_protocol():
    with StandInServer(["Qwen-VL-Chat"], ["one", "two"]) as server:
        asked = ModelParams(engine="server", model="Qwen-VL-Chat", base_url=server.url)
        with ServerEngine(asked, "captioner") as engine:
            replies = list(engine.stream(Request(str(n), f"question {n}") for n in range(8)))
            again = list(engine.stream([Request("0", "question 0")]))
        other = asked.model_copy(update={"model": "another"})
        with pytest.raises(MissingModelError):
            ServerEngine(other, "captioner")
    assert {reply.text for reply in replies} == {"one", "two"}
    assert again[0].text == next(reply.text for reply in replies if reply.id == "0")


def test_a_launch_that_serves_another_port_is_a_fault():
    servers = Servers()
    launch = ["envs/vllm/bin/vllm", "serve", "weights/x", "--port", "8002"]
    values = {"engine": "server", "model": "Qwen-VL-Chat", "base_url": "http://127.0.0.1:8001/v1"}
    servers.rewrite({**values, "launch": launch})
    assert "8001" in servers.faults[0]
    servers.rewrite({**values, "launch": [*launch[:-1], "8001"]})
    assert len(servers.faults) == 1


def test_a_launched_server_answers(tmp_path):
    """With the arguments of the server it stands for, whose port is another."""
    servers = Servers()
    launch = ["envs/vllm/bin/vllm", "serve", "weights/Qwen-VL-Chat", "--port", "8001", "--tp=2"]
    values = {"engine": "server", "model": "Qwen-VL-Chat", "base_url": "http://127.0.0.1:8001/v1"}
    values |= {"launch": launch, "launch_s": 60}
    servers.rewrite(values)
    asked = ModelParams.model_validate_json(json.dumps(values), strict=True)
    with ServerEngine(asked, "captioner", log=tmp_path / "server.log") as engine:
        [reply] = engine.stream([Request("0", "question")])
    assert any(piece in reply.text for piece in PIECES)


def test_a_server_that_nobody_can_start_is_not_there():
    servers = Servers()
    values = {"engine": "server", "model": "SALMONN-13B", "base_url": "http://127.0.0.1:8011/v1"}
    servers.rewrite(values)
    assert "SALMONN-13B" in servers.absent
    with servers.running(), pytest.raises(EmolibError, match="nothing answers"):
        ServerEngine(ModelParams.model_validate(values), "salmonn")


# What a run left ----------------------------------------------------------------------------


def test_rows_with_errors_and_strange_answers_are_faults(tmp_path):
    rows = [{"name": "a", "error": None}, {"name": "b", "error": "prompt too long"}] * 2
    write_jsonl(tmp_path / "run/zero_shot.jsonl", rows)
    words = [{"error": f"the judge's answer '{PIECES[0]}' names no candidate"}]
    write_jsonl(tmp_path / "run/co_judge.jsonl", words)  # a stand-in's words are no fault
    told = "zero_shot.jsonl: 2 rows with an error: prompt too long"
    assert row_errors(tmp_path / "run") == [told]
    asked = {"model": "internvl", "error": None}
    good = [asked | {"text": f"so{piece}"} for piece in PIECES[:3]]
    write_jsonl(tmp_path / "ledger/predict.jsonl", good)
    assert unexpected_answers(tmp_path / "ledger") == []
    write_jsonl(tmp_path / "ledger/predict.jsonl", [*good, *[asked | {"text": "zzz"}] * 4])
    [fault] = unexpected_answers(tmp_path / "ledger")
    assert fault.startswith("predict: 4 of 7 answers of internvl")


# Stand-ins ----------------------------------------------------------------------------------


def test_a_stand_in_answers_through_the_engine(tmp_path):
    """InternVL-Chat-V1.5 as published, through the converter, to its answer."""
    import numpy as np

    from emolib.engines import open_engine
    from emolib.rehearsal.home import StandIns

    home = tmp_path / "home"
    new_home(home)
    known = assets.assets()["InternVL-Chat-V1-5-native"]
    StandIns(home, tmp_path / "cache").place(known, known.at)
    assert assets.state(home, known, known.at).word == "there"
    published = json.loads((home / "weights/InternVL-Chat-V1-5/config.json").read_text())
    assert published["auto_map"]
    assert published["llm_config"]["vocab_size"] == 92_553
    native = ModelParams(
        model=str(home / known.at), device="cpu", dtype="bfloat16", max_length=8192, max_tiles=4,
        decoding=Decoding(max_new_tokens=8),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (1080, 1920, 3), np.uint8) for _ in range(6)]
    with open_engine(native, name="internvl") as engine:
        [reply] = engine.stream([Request("a", "Describe the expression.", images=images)])
    assert reply.error is None
    assert sum(piece in reply.text for piece in PIECES) == 3
    assert reply.finish_reason == "stop"
    (home / assets.STAND_IN).unlink()  # an ordinary project root
    assert assets.state(home, known, known.at).word == "stand-in"


def test_remote_code_stays_remote_code(tmp_path):
    from emolib.engines.swift_setup import find_model
    from emolib.rehearsal.models import build

    build("baichuan-inc/Baichuan-13B-Base", tmp_path / "Baichuan-13B-Base")
    with pytest.raises(EmolibError, match="auto_map"):
        find_model(ModelParams(model=str(tmp_path / "Baichuan-13B-Base")))


# Faults of the profiles, put back -----------------------------------------------------------


def small_profile(project, stage, **values):
    """Profile ``paper`` with one of its stages alone, changed."""
    folder = project / "params/paper"
    for file in folder.glob("0*.yaml"):
        if file.stem != stage:
            file.unlink()
    file = folder / f"{stage}.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | values))


def faults_of(project, monkeypatch, capsys):
    monkeypatch.setenv("EMOLIB_ROOT", str(project))
    code = main(["rehearse", "paper"])
    told = capsys.readouterr().out
    faults = told.partition("\nFaults: ")[2].splitlines()[1:]
    assert code == (1 if faults else 0)
    return faults


def test_a_feature_model_with_remote_code_is_a_fault(project, monkeypatch, capsys):
    """Fault 2 of the real profiles: known before the first feature is computed."""
    features = [
        {"kind": "audio_model", "model": "weights/chinese-hubert-large"},
        {"kind": "text_model", "model": "weights/Baichuan-13B-Base", "dtype": "float16"},
    ]
    small_profile(project, "06_discriminative_model", features=features)
    found = faults_of(project, monkeypatch, capsys)
    assert any("features.1.model" in fault and "auto_map" in fault for fault in found)
    assert len(found) == 2  # and the notebook stops there
    assert not list((project / "outputs/rehearsal/paper/outputs/features").rglob("*.npy"))


@pytest.mark.parametrize("missing", ["skip", "stop"])
def test_baselines_that_need_a_server_nobody_has_are_a_fault(missing, project, monkeypatch, capsys):
    """Fault 6: by default notebook 08 ends, and says what was left out."""
    systems = ["salmonn", "mplug_owl", "salmonn_mplug_owl"]
    small_profile(project, "08_baselines", systems=systems, missing=missing, extractors=[])
    for recipe in (project / "params/paper/baselines").glob("*.yaml"):
        if recipe.stem not in systems:
            recipe.unlink()
    found = faults_of(project, monkeypatch, capsys)
    assert bool(found) == (missing == "stop")
    assert not found or any("salmonn: nothing answers" in fault for fault in found)


def test_trainings_are_planned_for_the_machines_there_may_be(project):
    """Fault 1: four processes see four of eight GPUs; ten need a larger machine."""
    from emolib.plan import STAGES
    from emolib.rehearsal.walk import StageReport, plan_trainings, resolve_all

    def planned(processes):
        file = project / "params/paper/04_affectgpt_sft.yaml"
        values = yaml.safe_load(file.read_text())
        values["recipe"]["processes"] = processes
        file.write_text(yaml.safe_dump(values))
        reports = {stage.name: StageReport(stage) for stage in STAGES}
        plan_trainings(resolve_all(project, "paper"), 8, reports)
        return reports["04_affectgpt_sft"]

    assert planned(4).faults == []
    assert planned(4).plans == ["1: refused, needs 4; 3: refused, needs 4; 8: 4 x 1"]
    assert "processes: 10" in planned(10).faults[0]


def test_what_does_not_fit_a_gpu_is_a_fault(project, monkeypatch, capsys):
    from emolib.params.training import LoraParams
    from emolib.rehearsal.estimate import full_size, lora_training

    size = full_size("InternVL-Chat-V1-5-native")
    assert size.parameters == 25_514_186_112
    asked = profiles.base_params(REPO, "paper").models["internvl"]
    alone = lora_training(size, asked, LoraParams(processes=8))
    divided = lora_training(size, asked, LoraParams(processes=8, deepspeed="zero3"))
    assert alone - divided == pytest.approx(2 * size.parameters * 7 / 8)
    assert divided < 80 * 2**30


@pytest.mark.parametrize("profile", ["paper"])
def test_the_profile_walks(profile, project, monkeypatch, capsys):
    """All of it: stand-ins, conversions, nine notebooks, doctor on the simulated machine."""
    monkeypatch.setenv("EMOLIB_ROOT", str(project))
    code = main(["rehearse", profile])
    told = capsys.readouterr().out
    assert code == 0, told[-3000:]
    for stage in profiles.SCHEMAS:
        assert f"\n{stage}" in told
    assert "InternVL-Chat-V1-5, of which no copy was found: config.json itself" in told
    home = project / "outputs/rehearsal" / profile
    monkeypatch.setenv("EMOLIB_ROOT", str(home))
    assert main(["doctor", profile]) == 0
    assert "simulated" in capsys.readouterr().out
