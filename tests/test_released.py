"""Published outputs of other models: what is read, what is named as missing, what is refused."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from emolib import predict, runs, scoring, tables
from emolib.baselines import released
from emolib.baselines.released import AFFECTGPT, BY_READER, MODELS, RESULTS, RUNS, read_released
from emolib.datasets.clip import Clip
from emolib.datasets.sheets import read_npz
from emolib.errors import DataError, ParamsError, ScoreError
from emolib.params.loading import Source, merge
from emolib.params.schemas import ReleasedParams
from emolib.params.stages import DataCheck
from emolib.scoring.files import read_labels
from emolib.sources import source_hashes
from tests.released_files import RUN, archive, clone, pair, table
from tests.shared import shared

ROOT = Path(__file__).resolve().parents[1]
ANGRY = {"a": ("He shouts.", "[angry, mad]"), "b": ("She looks down.", "[]")}
SAD = {"a": ("He cries.", "[sad]"), "b": ("She smiles.", "[happy, feeling calm]")}


def test_a_clone_is_read_as_it_lies(tmp_path):
    root = clone(
        tmp_path, {"SALMONN": {"subtitle": ANGRY, "subtitle_added_later": SAD}}, {30: SAD, 5: ANGRY}
    )
    found = read_released(root)
    assert list(found.systems) == [
        *("SALMONN/subtitle", "SALMONN/subtitle_added_later"),
        *("AffectGPT-2025/epoch_5", "AffectGPT-2025/epoch_30"),
    ]
    system = found.systems["SALMONN/subtitle"]
    assert system.descriptions == {"a": "He shouts.", "b": "She looks down."}
    assert system.labels == {"a": ("angry", "mad"), "b": ()}
    assert [path.suffix for path in system.files] == [".npz", ".npz"]
    assert found.systems["AffectGPT-2025/epoch_30"].labels["b"] == ("happy", "calm")
    absent = [line for line in found.missing if "no usable folder" in line]
    assert len(absent) == len(MODELS) - 1
    assert "SALMONN, no subtitle: no descriptions and no labels" in found.missing


def test_other_sizes_of_a_model_and_other_models_are_read(tmp_path):
    clone(tmp_path, {"NewModel": {"no_subtitle": ANGRY}}, size="13b")
    assert "NewModel/no_subtitle" in read_released(tmp_path).systems


def test_of_two_files_for_one_variant_the_other_is_named(tmp_path):
    clone(tmp_path, {"Otter": {"subtitle": ANGRY}}, size="13b")
    clone(tmp_path, {"Otter": {"subtitle": SAD}}, size="7b")
    found = read_released(tmp_path)
    assert found.systems["Otter/subtitle"].labels["a"] == ("angry", "mad")
    assert sum("7b" in line and "not read" in line for line in found.missing) == 2


def test_several_runs_of_affectgpt_stay_apart(tmp_path):
    clone(tmp_path, {}, {30: ANGRY})
    pair_of_other = tmp_path / RUNS / "other_run"
    pair_of_other.mkdir()
    pair(pair_of_other / "checkpoint_000030_loss_0.7", SAD)
    systems = read_released(tmp_path).systems
    assert [s.labels["a"] for s in systems.values()] == [("sad",), ("angry", "mad")]
    assert set(systems) == {f"{AFFECTGPT} {run}/epoch_30" for run in ("other_run", RUN)}


def test_tables_hold_the_same(tmp_path):
    table(tmp_path / "SALMONN.csv", "variant", {"subtitle": ANGRY})
    table(tmp_path / "AffectGPT-2025-ovmerdplus.csv", "epoch", {30: SAD})
    tables = read_released(tmp_path)
    (tmp_path / "clone").mkdir()
    archives = read_released(clone(tmp_path / "clone", {"SALMONN": {"subtitle": ANGRY}}, {30: SAD}))
    assert list(tables.systems) == list(archives.systems)
    for key, system in tables.systems.items():
        assert system.labels == archives.systems[key].labels
        assert system.descriptions == archives.systems[key].descriptions
        assert system.title == archives.systems[key].title


def test_choosing_models_and_variants(tmp_path):
    clone(tmp_path, {m: {"subtitle": ANGRY, "no_subtitle": SAD} for m in ("Otter", "SALMONN")})
    found = read_released(tmp_path, models=["Otter", "Valley"], variants=["subtitle"])
    assert list(found.systems) == ["Otter/subtitle"]
    assert found.missing == [f"Valley: no usable folder in {tmp_path}"]


def test_the_official_parser_keeps_what_ours_cleans(tmp_path):
    clone(tmp_path, {"Otter": {"subtitle": SAD}})
    ours = read_released(tmp_path).systems["Otter/subtitle"].labels["b"]
    official = read_released(tmp_path, parser="mer2025").systems["Otter/subtitle"].labels["b"]
    assert (ours, official) == (("happy", "calm"), ("happy", "feeling calm"))


def test_chinese_lists_are_given_in_english(tmp_path):
    clone(tmp_path, {"Otter": {"subtitle": {"a": ("他很高兴。", "[高兴, 惊讶]")}}})
    assert read_released(tmp_path).systems["Otter/subtitle"].labels["a"] == ("happy", "surprised")


def test_broken_and_missing_files_are_named_and_the_rest_is_used(tmp_path):
    root = clone(tmp_path, {m: {"subtitle": ANGRY} for m in ("Otter", "SALMONN", "VideoChat")})
    stem = "output-reason-7b-subtitle-eng"
    (root / RESULTS / "Otter" / f"{stem}.npz").write_bytes(b"version https://git-lfs")
    (root / RESULTS / "SALMONN" / f"{stem}-openset.npz").unlink()
    archive(root / RESULTS / "VideoChat" / f"{stem}.npz", {"a": 3})
    found = read_released(root)
    assert set(found.systems) == {f"{m}/subtitle" for m in ("Otter", "SALMONN", "VideoChat")}
    told = "\n".join(found.missing)
    assert f"{stem}.npz: not a readable .npz" in told
    assert "Otter, subtitle in the prompt: no descriptions" in told
    assert "SALMONN, subtitle in the prompt: no labels" in told
    assert "maps str to int, not text to text" in told
    assert found.systems["Otter/subtitle"].labels["a"] == ("angry", "mad")
    assert found.systems["SALMONN/subtitle"].descriptions["a"] == "He shouts."


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name,variant\na,subtitle\n", "no column description"),
        ("name,description,openset\na,x,[sad]\n", "no column variant or epoch"),
        ("name,variant,description,openset\na,subtitle,x,[]\na,subtitle,y,[]\n", "occurs twice"),
        ("name,variant,description,openset\n,subtitle,x,[]\n", "row 2: no name"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, content, told):
    table(tmp_path / "SALMONN.csv", "variant", {"subtitle": ANGRY})
    (tmp_path / "Otter.csv").write_text(content, encoding="utf-8")
    found = read_released(tmp_path)
    assert list(found.systems) == ["SALMONN/subtitle"]
    assert any("Otter.csv" in line and told in line for line in found.missing)


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_outputs_says_what_to_clone(tmp_path, made):
    root = tmp_path / "AffectGPT"
    if made:
        root.mkdir()
    with pytest.raises(DataError, match="clone of github.com/zeroQiaoba/AffectGPT"):
        read_released(root)


# --- what runs code, or costs too much, is refused by name -------------------------------------


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("exit 3",), r"posix\.system|nt\.system"),
        (eval, ("1",), r"builtins\.eval|__builtin__\.eval"),
        (subprocess.Popen, ("x",), r"subprocess\.Popen"),
        (np.fromfile, ("x",), r"numpy.*fromfile"),
    ],
)
def test_a_pickle_with_anything_else_is_refused_by_name(
    tmp_path, function, arguments, name, protocol
):
    root = clone(tmp_path, {"Otter": {"subtitle": ANGRY}, "SALMONN": {"subtitle": ANGRY}})
    path = root / RESULTS / "Otter" / "output-reason-7b-subtitle-eng.npz"
    held = np.empty((), dtype=object)
    held[()] = {"a": Calls(function, *arguments)}
    raw_archive(path, pickle.dumps(held, protocol=protocol))
    with pytest.raises(DataError, match=rf"eng\.npz: refused: holds ({name}), which could run"):
        read_npz(path)
    found = read_released(root)
    assert "SALMONN/subtitle" in found.systems
    assert not found.systems["Otter/subtitle"].descriptions
    assert any("refused" in line for line in found.missing)


def raw_archive(path: Path, stream: bytes) -> Path:
    """An archive whose 0-d object array is followed by these bytes in place of NumPy's pickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("name2reason.npy", header.getvalue() + stream)
    return path


def test_a_raw_pickle_that_would_run_a_command_does_not(tmp_path):
    mark = tmp_path / "ran"
    stream = f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode()
    with pytest.raises(DataError, match=r"holds posix\.system, which could run code"):
        read_npz(raw_archive(tmp_path / "x.npz", stream))
    assert not mark.exists()


def tuples_of_tuples(depth: int) -> bytes:
    """A dictionary whose key takes 2**depth steps to hash."""
    levels = b"".join(b"h%ch%c\x86q%c" % (k, k, k + 1) for k in range(depth))
    return b"\x80\x02}" + b"(q\x00" + b"K\x01q\x00" + levels + b"K\x02u."


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo slots"),
        (tuples_of_tuples(60), "tuples that may share"),
        (b"\x80\x02}K\x01" + b"2\x86" * 60 + b"K\x02s.", "tuples that may share"),
        (b"\x80\x02}K\x01K\x01\x86q\x00r\x01\x00\x00\x00h\x01\x86K\x02s.", "tuples that may share"),
        (b"\x80\x02}K\x01K\x01\x86N0q\x00h\x00\x86K\x02s.", "tuples that may share"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged pickle"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "damaged pickle"),
        (b"\x80\x02cnumpy\nno_such\n.", r"numpy\.no_such, which could run code"),
        (b"", "damaged pickle"),
    ],
)
def test_bombs_are_refused_before_they_go_off(tmp_path, stream, told):
    with pytest.raises(DataError, match=told):
        read_npz(raw_archive(tmp_path / "x.npz", stream))


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path):
    archive(tmp_path / "x.npz", {"a": "x" * 100_000})
    assert read_npz(tmp_path / "x.npz")["name2reason"]["a"].startswith("x")
    with pytest.raises(DataError, match="bytes unpacked"):
        read_npz(tmp_path / "x.npz", most_bytes=50_000)


@given(stream=st.binary(max_size=300))
def test_bytes_in_place_of_the_pickle_are_an_error_or_plain_values(tmp_path_factory, stream):
    path = raw_archive(tmp_path_factory.mktemp("npz") / "x.npz", b"\x80\x02" + stream)
    with pytest.raises(DataError):
        read_npz(path)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12), st.text(max_size=60), min_size=1, max_size=20
    ),
    st.booleans(),
)
def test_every_dictionary_of_texts_comes_back(tmp_path_factory, texts, scalars):
    # AffectGPT's own files have NumPy strings as keys, which end at a NUL.
    texts = {name.replace("\0", "_"): text for name, text in texts.items()}
    given_names = {np.str_(n) if scalars else n: text for n, text in texts.items()}
    path = archive(tmp_path_factory.mktemp("npz") / "x.npz", given_names)
    assert read_npz(path)["name2reason"] == texts


def test_spelling_of_both_numpy_versions(tmp_path):
    held = np.empty((), dtype=object)
    held[()] = {np.str_("a"): "He smiles."}
    stream = pickle.dumps(held, protocol=3)
    for spelling in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        respelt = stream.replace(b"numpy._core.multiarray", spelling)
        path = raw_archive(tmp_path / "x.npz", respelt)
        assert read_npz(path)["name2reason"] == {"a": "He smiles."}


# --- the real files ----------------------------------------------------------------------------


@pytest.mark.shared
def test_the_real_clone_and_the_real_tables_agree():
    tables = read_released(shared("data/ovmerd_outputs"))
    real = read_released(shared("data/ovmerd_outputs/repository"))
    assert len(tables.systems) == 31
    assert set(real.systems) == {
        *(f"Otter/{v}" for v in ("no_subtitle", "subtitle", "subtitle_added_later")),
        *(f"AffectGPT-2025/epoch_{epoch}" for epoch in (30, 55)),
    }
    for key, system in real.systems.items():
        assert system.labels == tables.systems[key].labels
        stripped = {name: text.strip() for name, text in system.descriptions.items()}
        assert stripped == tables.systems[key].descriptions
    assert any("VideoChat2" in line for line in tables.missing)


@pytest.mark.shared
def test_level_1_of_the_seven_epochs_as_counted_elsewhere():
    # Counted independently, with the official parser; ours cleans "feeling overwhelmed", which no
    # wheel table holds, to "overwhelmed", which they do: one clip of epoch 55.
    counted = [0.6609, 0.6429, 0.6544, 0.6477, 0.6603, 0.6440, 0.6198]
    gold = read_labels(shared("data/mer2024_ov/check-openset.csv")).labels
    wheels = scoring.open_grouping("ew2026", None, shared("data/wheels/2026"))
    root = shared("data/ovmerd_outputs")
    official = read_released(root, models=[AFFECTGPT], parser="mer2025").systems
    ours = read_released(root, models=[AFFECTGPT]).systems
    assert [key.rpartition("_")[2] for key in official] == [str(e) for e in range(30, 61, 5)]
    found = {}
    for name, systems in (("official", official), ("ours", ours)):
        found[name] = [
            scoring.score(gold, {n: s.labels[n] for n in gold}, wheels, resamples=0).f1
            for s in systems.values()
        ]
    assert [round(f1, 4) for f1 in found["official"]] == counted
    assert [round(f1, 4) for f1 in found["ours"]] == [*counted[:5], 0.6442, counted[6]]
    [other] = [
        (key, name)
        for key in ours
        for name in gold
        if ours[key].labels[name] != official[key].labels[name]
    ]
    assert other == ("AffectGPT-2025/epoch_55", "sample_00001786")


def test_tables_of_the_docs_are_the_record(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("published_baselines")
    file = ROOT / "outputs/record/published_baselines.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    text = (ROOT / "docs/baselines.md").read_text(encoding="utf-8")
    assert record["command"] in text
    for made in benchmark.markdown(record):
        assert made in text
    for found in record["groupings"].values():
        best = found["constant_best_f1"]["f1"]
        without = [row for key, row in found["labels_by_qwen"].items() if "no_subtitle" in key]
        assert all(row["f1"] < best for row in without)  # as the page says


def test_reading_needs_no_heavy_library():
    code = "import sys, emolib.baselines.released; print('torch' in sys.modules)"
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert made.strip() == "False"


# --- as predictions, scored, and as a profile --------------------------------------------------

WORDS = ("happy", "sad", "angry", "worried", "calm", "surprised")


def made_answers(seed: int, n: int = 12, wrong: float = 0.5) -> dict[str, tuple[str, str]]:
    """Answers about n clips, of which a share names another emotion than the clip's own."""
    rng = np.random.default_rng(seed)
    found = {}
    for k in range(n):
        word = WORDS[(k + int(rng.random() < wrong)) % len(WORDS)]
        found[f"sample_{k:08d}"] = (f"In conclusion, she feels {word}.", f"[{word}]")
    return found


def made_clone(root: Path) -> Path:
    """Two whole models, one with a variant less, and two epochs; ten clips beyond the gold's."""
    variants = {"no_subtitle": 0.8, "subtitle": 0.5, "subtitle_added_later": 0.1}
    models = {
        model: {v: made_answers(3 * m + k, wrong=w) for k, (v, w) in enumerate(variants.items())}
        for m, model in enumerate(("SALMONN", "Otter", "VideoChat"))
    }
    del models["VideoChat"]["subtitle"]
    return clone(root, models, {30: made_answers(90, 22, 0.0), 60: made_answers(91, 22, 0.3)})


def made_gold(folder: Path, n: int = 12) -> Path:
    folder.mkdir(parents=True)
    rows = [f"sample_{k:08d},\"['{WORDS[k % len(WORDS)]}']\"" for k in range(n)]
    path = folder / "check-openset.csv"
    path.write_text("name,openset\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def graded(tmp_path):
    """The made clone, its scores by name in tables, and the gold labels."""
    found = read_released(made_clone(tmp_path))
    gold = read_labels(made_gold(tmp_path / "gold")).labels
    clips = [Clip(name=name, video=Path("x"), labels=labels) for name, labels in gold.items()]
    said = released.described(found, clips) | released.labelled(found, clips)
    labels = {rows[0].system: predict.labels_of(rows, gold) for rows in said.values()}
    grouping = scoring.open_grouping("lexicon")
    return found, scoring.score_systems(gold, labels, grouping, resamples=200), said


def test_both_readings_are_predictions_of_every_clip(graded):
    found, scores, said = graded
    assert set(said) == {key + ending for key in found.systems for ending in ("", BY_READER)}
    [first, *_] = said["SALMONN/subtitle, labels by Qwen2.5-7B"]
    assert first.system == "SALMONN, subtitle in the prompt, labels by Qwen2.5-7B"
    assert first.description.startswith("In conclusion")
    assert first.model["files"]
    assert len(first.labels) == 1
    assert all(len(rows) == 12 for rows in said.values())
    readings = released.readings(found, scores)
    assert {ending: len(own) for ending, own in readings.items()} == {BY_READER: 10, "": 10}


def test_a_clip_without_an_answer_is_an_error_row_and_scores_nothing(tmp_path):
    found = read_released(clone(tmp_path, {"Otter": {"subtitle": ANGRY}}))
    clips = [Clip(name=name, video=Path("x")) for name in ("a", "zzz")]
    for said in (released.described(found, clips), released.labelled(found, clips)):
        [rows] = said.values()
        assert [row.status for row in rows] == ["ok", "error"]
        assert rows[1].error == "no row in the file"
        assert predict.labels_of(rows, ["a", "zzz"])["zzz"] == ()


def test_another_readers_labels_are_kept_apart(graded):
    found, scores, _ = graded
    title = "SALMONN, subtitle in the prompt"
    more = {**scores, f"{title}, labels by internvl": scores[title]}
    readings = released.readings(found, more)
    assert list(readings[", labels by internvl"]) == ["SALMONN/subtitle"]
    made = tables.released_tables(found, {"lexicon": more}, resamples=100)
    assert "Published outputs, labels by internvl: lexicon" in {one["title"] for one in made}


def test_what_a_subtitle_is_worth_is_the_paired_difference(graded):
    found, scores, _ = graded
    own = released.readings(found, scores)[BY_READER]
    each, means = released.subtitle_effects(found, own, resamples=200)
    # VideoChat lacks a variant.
    assert {name.partition(":")[0] for name in each} == {"SALMONN", "Otter"}
    name = "SALMONN: subtitle added later - no subtitle"
    alone = scoring.compare(
        own["SALMONN/subtitle_added_later"], own["SALMONN/no_subtitle"], resamples=200
    )
    assert each[name].to_json() == alone.to_json()
    mean = means["subtitle added later - no subtitle, mean of 2 models"]
    expected = np.mean([c.difference["f1"] for n, c in each.items() if "later - no" in n])
    assert mean.difference["f1"] == pytest.approx(expected)
    assert mean.difference["f1"] > 0.3
    assert mean.ci95["f1"][0] > 0


def test_the_mean_of_one_pair_is_that_pair(graded):
    _, scores, _ = graded
    a, b = list(scores.values())[:2]
    alone = scoring.compare(a, b, resamples=300)
    assert scoring.compare_means([(a, b)], resamples=300).to_json() == alone.to_json()
    same = scoring.compare_means([(a, b), (b, a)], resamples=300)
    assert same.difference["f1"] == pytest.approx(0, abs=1e-12)
    assert same.p_permutation["f1"] == 1
    with pytest.raises(ScoreError, match="no pairs"):
        scoring.compare_means([])
    exact = scoring.score({"x": ["happy"]}, {"x": ["happy"]}, scoring.open_grouping("exact"))
    with pytest.raises(ScoreError, match="different clips or with different groups"):
        scoring.compare_means([(a, exact)])


def test_tables_rank_within_one_grouping_and_one_reading(graded):
    found, scores, _ = graded
    made = {one["title"]: one for one in tables.released_tables(found, {"lexicon": scores})}
    ranked = made["Published outputs, labels by Qwen2.5-7B: lexicon"]
    assert len(ranked["columns"]) <= 7
    values = [row[4] for row in ranked["rows"][:-2]]
    assert values == sorted(values, reverse=True)
    assert ranked["rows"][0][0] == "AffectGPT-2025, epoch 30"
    assert [row[0] for row in ranked["rows"][-2:]] == [
        *("constant-prediction baseline, best F1", "constant-prediction baseline, best Avg")
    ]
    beside = made["Published outputs beside printed results"]
    rows = {row[0]: row[1:] for row in beside["rows"]}
    assert rows["AffectGPT-2025"][0].endswith("(2)")
    assert rows["AffectGPT-2025"][-1] == 0.6252
    assert rows["SALMONN"][0].count(" / ") == 2
    assert rows["VideoChat"][0].split(" / ")[1] == "-"
    assert rows["SALMONN"][1:] == [0.4796, 0.45]
    assert tables.released_tables(released.open_released(None), {"lexicon": scores}) == []


def test_wheels_are_left_out_and_named_where_their_tables_are_absent(tmp_path):
    groupings, left_out = scoring.open_with_wheels("lexicon", "", tmp_path / "wheels")
    assert [one.name for one in groupings] == ["lexicon"]
    assert "not scored under the emotion wheels" in left_out[0]
    assert "format.csv" in left_out[0]
    assert scoring.open_with_wheels("lexicon", "", "")[1] == []


@pytest.mark.shared
def test_wheels_stand_beside_another_grouping():
    folder = shared("data/wheels/2026")
    groupings, left_out = scoring.open_with_wheels("lexicon", "", folder)
    assert ([one.name for one in groupings], left_out) == (["lexicon", "ew2026"], [])


def test_a_changed_output_makes_a_run_out_of_date(tmp_path):
    made_clone(tmp_path / "AffectGPT")
    params = DataCheck(profile="p", released=ReleasedParams(root="AffectGPT"))
    before = source_hashes(tmp_path, params)
    assert source_hashes(tmp_path, params) == before
    file = next((tmp_path / "AffectGPT").rglob("*addsub-eng-openset.npz"))
    names = np.array(["sample_00000000"])
    np.savez_compressed(file, filenames=names, fileitems=np.array(["[sad]"]))
    after = source_hashes(tmp_path, params)
    assert {key for key in after if after[key] != before[key]} == {"released:content"}


def test_videos_that_nobody_has_cannot_be_looked_at():
    data = {"kind": "mer2024-ov", "root": "x", "media": "none"}
    given = {"profile": "p", "data": data}
    with pytest.raises(ParamsError, match=r"check_media: data\.media is none"):
        merge(DataCheck, [Source("f.yaml", given)])
    with pytest.raises(ParamsError, match=r"gallery: data\.media is none"):
        merge(DataCheck, [Source("f.yaml", {**given, "check_media": False})])


@pytest.fixture
def project(tmp_path):
    """The profile as it is, over a small made clone that lacks models, without wheel tables."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "params/published", root / "params/published")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    base = root / "params/published/08_baselines.yaml"
    base.write_text(base.read_text(encoding="utf-8") + "resamples: 100\n", encoding="utf-8")
    small = {"fusion": {"systems": ["*/*", "text"], "outer": 3, "inner": 2, "similar": True}}
    small["curves"] = {"clips": [6, 100], "sources": [1, 2], "repeats": 2}
    fusing = root / "params/published/07_fusion_analysis.yaml"
    given = yaml.safe_load(fusing.read_text(encoding="utf-8"))
    fusing.write_text(yaml.safe_dump({**given, **small, "resamples": 100}), encoding="utf-8")
    made_gold(root / "data/MERTools/MER2024/ov_store")
    made_clone(root / "data/AffectGPT")
    made_transcripts(root / given["text_data"]["root"])
    return root


def made_transcripts(folder: Path, n: int = 60) -> None:
    """Clips with one of six classes and a transcript that tells which; the first are the gold's."""
    folder.mkdir(parents=True)
    classes = ("happy", "sad", "angry", "worried", "neutral", "surprise")
    rows = [
        (f"sample_{k:08d}", classes[k % 6], f"我很{'喜悲怒忧平惊'[k % 6]} {k}") for k in range(n)
    ]
    labels = "".join(f"train_corpus,{name},{one},-10\n" for name, one, _ in rows)
    (folder / "label-6way.csv").write_text("split,name,emo,val\n" + labels, encoding="utf-8")
    said = "".join(f"{name},{text},{one}\n" for name, one, text in rows if name[-1] != "7")
    words = folder / "transcription-engchi-polish.csv"
    words.write_text("name,chinese,english\n" + said, encoding="utf-8")


def emolib(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EMOLIB_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "emolib", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.notebook
def test_the_profile_runs_without_videos_on_what_is_there(project):
    for stage in ("00", "07", "08"):
        ran = emolib(project, "run", "published", "--only", stage)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    looked = runs.latest(project / "outputs", "published", "00_data_check")
    facts = runs.read_result(looked)
    assert facts["overview"]["clips"] == 12
    assert facts["overview"]["errors"] == 0
    assert any("without their videos" in finding["what"] for finding in facts["findings"])
    fused = runs.read_result(runs.latest(project / "outputs", "published", "07_fusion_analysis"))
    assert {"calibrated fusion", "majority", "text model, six classes"} <= fused["scores"].keys()
    tables = {table["title"]: table for table in fused["tables"]}
    sets = {row[0] for row in tables["Sets of systems"]["rows"]}
    assert {"the paper's systems", "AffectGPT-2025's epochs"} <= sets
    lacking = "mPLUG-Owl/subtitle_added_later, Qwen-Audio/subtitle_added_later"
    assert f'set "the paper\'s systems" lacks {lacking}' in fused["notes"]
    counts = [one["number"] for one in fused["curves"]["clips"]]
    assert counts == [6, 8]  # of 12 clips, a third is judged
    assert [one["number"] for one in fused["curves"]["sources"]] == [1, 2]
    assert any("the data name no speaker or source video of 12" in x for x in fused["notes"])
    assert any("fitted on 43 clips, none of them scored" in x for x in fused["notes"])
    scored = runs.latest(project / "outputs", "published", "08_baselines")
    result = runs.read_result(scored)
    assert len(result["scores"]) == 20
    assert all(score["n"] == 12 for score in result["scores"].values())
    assert (
        "VideoChat, subtitle in the prompt: no descriptions and no labels"
        in (result["missing_outputs"])
    )
    assert any("mPLUG-Owl: no usable folder" in line for line in result["missing_outputs"])
    assert any("not scored under the emotion wheels" in note for note in result["notes"])
    titles = [one["title"] for one in result["tables"]]
    assert "What a subtitle is worth, published labels: lexicon" in titles
    assert "Published: MER2024-OV" in titles
    assert (scored / "figures/scores.png").is_file()
    assert len(list((scored / "predictions").glob("*.jsonl"))) == 20
    again = emolib(project, "run", "published", "--only", "08")
    assert "up to date" in again.stdout


def test_doctor_says_what_to_clone_and_what_a_clone_lacks(project):
    found = emolib(project, "doctor", "published")
    assert found.returncode == 0
    assert "Published outputs: 10, of Otter, SALMONN, VideoChat, AffectGPT-2025" in found.stdout
    assert "left out: mPLUG-Owl: no usable folder" in found.stdout
    for file in (project / "data/AffectGPT").rglob("*.npz"):
        file.write_bytes(b"not an archive")
    found = emolib(project, "doctor", "published")
    assert found.returncode == 1
    assert "no published outputs in it" in found.stdout
    shutil.rmtree(project / "data")
    found = emolib(project, "doctor", "published")
    assert found.returncode == 1
    assert "https://github.com/zeroQiaoba/AffectGPT" in found.stdout
    assert "OV-MER/output/results-ovmerd" in found.stdout
    assert "https://github.com/zeroQiaoba/MERTools" in found.stdout
