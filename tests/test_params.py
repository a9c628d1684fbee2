"""Parameter files: merging, strictness, and messages a person can act on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from emolib.errors import ParamsError
from emolib.params import profiles
from emolib.params.affectgpt import SftParams
from emolib.params.loading import Source, load, merge, project_root, read_yaml
from emolib.params.schemas import ModelParams
from emolib.params.stages import SCHEMAS, StageParams

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(ROOT.glob("params/*/[0-9]*.yaml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_later_sources_win_and_mappings_merge_key_by_key():
    merged = merge(
        StageParams,
        [
            Source("base", {"profile": "p", "seed": 1, "data": {"clips": 5, "seed": 2}}),
            Source("own", {"seed": 3, "data": {"clips": 7}}),
        ],
    )
    assert (merged.seed, merged.data.clips, merged.data.seed) == (3, 7, 2)


def test_unknown_key_names_file_key_value_and_choices(tmp_path):
    file = write(tmp_path / "x.yaml", "profile: p\nsed: 3\n")
    with pytest.raises(ParamsError) as caught:
        load(StageParams, file)
    message = str(caught.value)
    assert str(file) in message
    assert "'sed' = 3" in message
    assert "did you mean 'seed'" in message
    assert "'outputs'" in message


def test_unknown_nested_key_offers_the_nested_choices():
    with pytest.raises(ParamsError, match=r"models\.a\.modle.*did you mean 'model'.*'batch_size'"):
        merge(StageParams, [Source("f.yaml", {"profile": "p", "models": {"a": {"modle": "x"}}})])


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", "1"), ("seed", 1.5), ("seed", True), ("seed", -1), ("profile", 3), ("data", [])],
)
def test_types_are_strict(key, value):
    with pytest.raises(ParamsError, match=f"f.yaml: {key}"):
        merge(StageParams, [Source("f.yaml", {"profile": "p", key: value})])


def test_papermills_false_as_text_is_refused():
    with pytest.raises(ParamsError, match="trust_remote_code = 'false'"):
        merge(ModelParams, [Source("-p", {"model": "m", "trust_remote_code": "false"})])


def test_yaml_number_without_a_dot_is_refused_not_read_as_text(tmp_path):
    file = write(tmp_path / "m.yaml", "model: m\ntimeout_s: 1e-4\n")
    with pytest.raises(ParamsError, match="timeout_s = '1e-4'"):
        load(ModelParams, file)


def test_missing_key_is_named():
    with pytest.raises(ParamsError, match="'model' is missing"):
        merge(ModelParams, [Source("f.yaml", {})])


def test_all_problems_are_told_at_once():
    with pytest.raises(ParamsError) as caught:
        merge(StageParams, [Source("f", {"seed": "a", "nope": 1})])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: 1\na: 2\n", "given twice"),
        ("- a\n", "expected 'key: value'"),
        ("a: [\n", "not readable as YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "not readable as YAML"),
        ("3: a\n", "expected 'key: value'"),
        ("port: 010\n", "010 is read as base 60 or 8"),
        ("at: 1:30\n", "1:30 is read as base 60 or 8"),
        ("at: 1:30.5\n", "1:30.5 is read as base 60 or 8"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, match):
    with pytest.raises(ParamsError, match=match):
        read_yaml(write(tmp_path / "f.yaml", text))


def test_wrong_encoding_is_refused(tmp_path):
    (tmp_path / "f.yaml").write_bytes("a: 愤怒".encode("gb18030"))
    with pytest.raises(ParamsError, match=r"f\.yaml: not readable"):
        read_yaml(tmp_path / "f.yaml")


def test_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path / "here.yaml", "")
    with pytest.raises(ParamsError, match=r"no such file.*here\.yaml"):
        read_yaml(tmp_path / "there.yaml")


def test_unknown_profile_names_the_profiles():
    with pytest.raises(ParamsError, match="choose from.*'demo'"):
        profiles.resolve(ROOT, "nope", "00_data_check")


def test_a_model_that_is_not_defined_names_those_that_are():
    with pytest.raises(ParamsError, match="no model 'gpt-9' under `models`, only.*internvl"):
        profiles.resolve(ROOT, "demo", "02_caption_filtering", {"captions": ".", "judge": "gpt-9"})


def inputs_of(stage: str) -> dict[str, str]:
    return dict.fromkeys(SCHEMAS[stage].INPUTS, ".")


@pytest.mark.parametrize("file", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_parameter_file_resolves(file):
    resolved = profiles.resolve(ROOT, file.parent.name, file.stem, inputs_of(file.stem))
    assert resolved.profile == file.parent.name


def test_there_are_parameter_files():
    assert {f.parent.name for f in FILES} >= {"demo", "h200", "paper"}


@pytest.mark.parametrize("stage", SCHEMAS)
def test_cell_and_base_file_share_no_key(stage):
    cell = profiles.cell_defaults(ROOT / f"notebooks/{stage}.ipynb").keys()
    for base in ROOT.glob("params/*/_base.yaml"):
        shared = cell & yaml.safe_load(base.read_text(encoding="utf-8")).keys()
        assert not shared, f"{base}: {shared} also stands in the parameters cell of {stage}"


@pytest.mark.parametrize("file", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_notebook_and_resolver_agree(file, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    profile, stage = file.parent.name, file.stem
    cell = profiles.cell_defaults(ROOT / f"notebooks/{stage}.ipynb")
    own = profiles.stage_source(ROOT, profile, stage).values
    # What papermill does: a value of the file stands in the place of the cell's.
    namespace = {"__name__": "__main__", "In": [], "Out": {}, **cell, **own, **inputs_of(stage)}
    inside = profiles.from_notebook(stage, namespace)
    assert inside == profiles.resolve(ROOT, profile, stage, inputs_of(stage))


def test_a_mapping_takes_the_place_of_the_cells():
    demo = profiles.cell_defaults(ROOT / "notebooks/04_affectgpt_sft.ipynb")["recipe"]
    given = {"recipe": {"epochs": 7}}
    recipe = profiles.resolve(ROOT, "demo", "04_affectgpt_sft", given).recipe
    assert recipe == SftParams(epochs=7)
    assert recipe.batch_size != demo["batch_size"]


def test_the_papers_profile_trains_on_all_266_clips():
    paper = profiles.resolve(ROOT, "paper", "04_affectgpt_sft")
    assert (paper.test, paper.val, paper.checkpoint) == (66, 0, "last")
    assert (paper.recipe.epochs, paper.recipe.batch_size, paper.recipe.processes) == (100, 4, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test": 5, "checkpoint": "best"}, "'best' needs validation clips"),
        ({"checkpoint": "30-60", "recipe": {"epochs": 20}}, "no epoch of 30-60 .*= 20"),
        (
            {"checkpoint": "6-9", "recipe": {"epochs": 20, "save_epochs": 5}},
            "no epoch of 6-9 .* save_epochs = 5",
        ),
        ({"checkpoint": "9-6", "recipe": {"epochs": 20}}, "no epoch of 9-6"),
    ],
)
def test_a_checkpoint_that_will_not_be_there_is_refused_before_training(given, message):
    with pytest.raises(ParamsError, match=f"checkpoint: {message}"):
        profiles.resolve(ROOT, "demo", "04_affectgpt_sft", given)


def test_the_last_epoch_has_a_checkpoint_whatever_their_distance():
    recipe = {"epochs": 20, "save_epochs": 6}
    given = {"checkpoint": "19-99", "recipe": recipe}
    found = profiles.resolve(ROOT, "demo", "04_affectgpt_sft", given).recipe
    assert found.kept_epochs() == [6, 12, 18, 20]


def test_a_rate_does_not_rise_to_its_lowest(tmp_path):
    file = write(tmp_path / "f.yaml", "learning_rate: 3.0e-5\nmin_learning_rate: 5.0e-5\n")
    with pytest.raises(ParamsError) as caught:
        load(SftParams, file)
    assert str(caught.value).startswith(
        f"{file}: min_learning_rate: 5e-05 is above learning_rate 3e-05"
    )
    assert load(SftParams, write(file, "learning_rate: 1.0e-5\n")).min_learning_rate == 1e-5


def test_notebook_refuses_a_misspelt_parameter(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParamsError, match="unknown key 'galery'.*did you mean 'gallery'"):
        profiles.from_notebook("00_data_check", {"profile": "demo", "galery": 3})


def test_notebook_cells_can_be_run_again_after_other_variables_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    namespace = {"profile": "demo", "gallery": 3}
    first = profiles.from_notebook("00_data_check", namespace)
    namespace["rows"] = [1, 2]
    assert profiles.from_notebook("00_data_check", namespace) == first


def test_what_the_notebook_adds_later_counts_and_a_mended_name_is_forgiven(monkeypatch):
    monkeypatch.chdir(ROOT)
    namespace = {"profile": "demo", "galery": 3}
    with pytest.raises(ParamsError, match="galery"):
        profiles.from_notebook("00_data_check", namespace)
    namespace["gallery"] = namespace.pop("galery")
    assert profiles.from_notebook("00_data_check", namespace).gallery == 3
    namespace["check_media"] = False
    assert profiles.from_notebook("00_data_check", namespace).check_media is False


@pytest.mark.parametrize(
    "text", ["{[1]: 2}", "seed: 2024-13-45", "seed: !!int abc", "a: !!float q", "? {a: b}\n: c"]
)
def test_yaml_that_cannot_be_built_is_refused_by_name(tmp_path, text):
    with pytest.raises(ParamsError, match=r"f\.yaml: not readable as YAML"):
        load(ModelParams, write(tmp_path / "f.yaml", text))


@pytest.mark.parametrize("value", [".inf", ".nan", "-.inf"])
def test_no_value_is_infinite(tmp_path, value):
    file = write(tmp_path / "f.yaml", f"model: x\ntimeout_s: {value}\n")
    with pytest.raises(ParamsError, match="timeout_s.*finite"):
        load(ModelParams, file)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_key_env", "sk-proj-1234"),
        ("api_key_env", "A" * 80),
        ("base_url", "http://me:sk-proj-1234@host/v1"),
    ],
)
def test_a_secret_is_refused_and_not_repeated(tmp_path, key, value):
    file = write(tmp_path / "f.yaml", f"model: x\n{key}: {value}\n")
    with pytest.raises(ParamsError, match=f"{key}: ") as caught:
        load(ModelParams, file)
    assert "1234" not in str(caught.value)
    assert "AAAA" not in str(caught.value)


def test_a_fault_of_several_keys_names_its_file_and_nothing_else(tmp_path):
    base = write(tmp_path / "base.yaml", "profile: p\nmodels: {a: {model: secret-place}}\n")
    own = write(tmp_path / "own.yaml", "model: gpt-9\n")
    with pytest.raises(ParamsError) as caught:
        load(SCHEMAS["05_face_crop_ablation"], base, own)
    assert str(caught.value) == f"{own}: model: no model 'gpt-9' under `models`, only ['a']"


def test_a_root_that_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOLIB_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(ParamsError, match="EMOLIB_ROOT = .*no params/"):
        project_root()


@pytest.mark.parametrize(
    ("stage", "field"), [("02_caption_filtering", "captions"), ("07_fusion_analysis", "lora_run")]
)
def test_an_empty_input_run_is_refused_before_any_work(stage, field, monkeypatch):
    monkeypatch.chdir(ROOT)
    cell = profiles.cell_defaults(ROOT / f"notebooks/{stage}.ipynb")
    with pytest.raises(ParamsError, match=f"{field}: empty: give the run folder .*-p {field}"):
        profiles.from_notebook(stage, dict(cell))


@pytest.mark.parametrize("stage", ["00_data_check", "02_caption_filtering"])
def test_a_stage_refuses_a_key_it_would_not_read(stage):
    with pytest.raises(ParamsError, match="unknown key 'split'"):
        profiles.resolve(ROOT, "demo", stage, {**inputs_of(stage), "split": "test"})


def test_a_model_behind_a_server_is_not_trained():
    served = {"internvl": {"engine": "server", "base_url": "http://127.0.0.1:1/v1"}}
    with pytest.raises(ParamsError, match="cannot be trained here"):
        profiles.resolve(
            ROOT, "demo", "03_internvl_lora", {**inputs_of("03_internvl_lora"), "models": served}
        )


def test_the_checkout_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.delenv("EMOLIB_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert project_root() == ROOT
