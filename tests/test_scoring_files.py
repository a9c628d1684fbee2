"""Bad input ends with file, row and remedy, exit code 2, and no traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from emolib.cli.score import main
from emolib.errors import DataError
from emolib.scoring.files import align, read_labels, read_names
from tests.shared import shared

GOLD = "name,openset\na,\"['happy', 'glad']\"\nb,\"['sad']\"\n"


@pytest.fixture
def gold(tmp_path):
    path = tmp_path / "gold.csv"
    path.write_text(GOLD)
    return path


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


ROWS = [{"name": "a", "labels": ["happy", "glad"]}, {"name": "b", "labels": ["sad"]}]
WANT = {"a": ("happy", "glad"), "b": ("sad",)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", GOLD),
        ("x.csv", "\ufeff" + GOLD),  # Excel's byte order mark
        ("x.csv", GOLD.encode("utf-16")),
        ("x.csv", GOLD.replace("\n", "\r\n") + "\r\n"),
        ("x.csv", 'id,name,labels\n1,a,"happy, glad"\n2,b,sad\n'),
        ("x.tsv", "name\topenset\na\t['happy', 'glad']\nb\t[sad]\n"),
        ("x.csv", "Name;OpenSet\na;['happy', 'glad']\nb;['sad']\n"),
        ("x.csv", "sep=;\r\nname;openset\r\na;\"['happy', 'glad']\"\r\nb;[sad]\r\n"),
        ("x.csv", "name\topenset\na.mp4\t['happy', 'glad']\nb.MOV\t[sad]\n"),
        ("x.csv", "name , openset\na , \"['happy', 'glad']\"\nb , \"['sad']\"\n"),
        ("x.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("x.json", json.dumps({"results": ROWS})),
        ("x.jsonl", "\n".join(json.dumps({"t": "\u2028", **r}, ensure_ascii=False) for r in ROWS)),
        (
            "x.jsonl",  # as ms-swift writes its results
            "\n".join(
                json.dumps({"name": r["name"], "response": str(r["labels"]), "labels": "[calm]"})
                for r in ROWS
            ),
        ),
        ("x.json", json.dumps(ROWS)),
        ("x.json", json.dumps({"a": ["happy", "glad"], "b": "['sad']"})),
    ],
)
def test_every_kind_of_file_reads_the_same(tmp_path, name, content):
    assert read_labels(write(tmp_path, name, content)).labels == WANT


def test_xlsx_reads_the_same(tmp_path):
    table = pd.DataFrame({"Name": ["a", "b"], "openset": ["['happy', 'glad']", "[sad]"]})
    table.to_excel(tmp_path / "x.xlsx", index=False)
    assert read_labels(tmp_path / "x.xlsx").labels == WANT
    assert read_names(tmp_path / "x.xlsx") == set(WANT)


def test_ms_swift_results_as_gold_are_the_references(tmp_path):
    path = write(tmp_path, "x.jsonl", '{"name": "a", "response": "[sad]", "labels": "[calm]"}')
    assert read_labels(path, answers=False).labels == {"a": ("calm",)}


def test_zeros_lost_on_one_side_are_given_back(tmp_path):
    gold = read_labels(write(tmp_path, "g.csv", "name,openset\n0001,[a1]\n0002,[b2]\n"))
    pred = read_labels(write(tmp_path, "p.csv", "name,openset\n1,[a1]\n2,[b2]\n"))
    assert align(gold, pred)[0].labels == gold.labels
    assert align(gold, gold) == (gold, 0)
    both = read_labels(write(tmp_path, "g2.csv", "name,openset\n01,[a1]\n001,[b2]\n"))
    assert align(both, pred) == (pred, 0)  # two names fit: none is taken


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,labels,openset\na,[x],[y]\n", "has columns 'openset' and 'labels': say which"),
        ("name,openset,openset\na,[x],[y]\n", "column 'openset' is given twice"),
        ("name,names,openset\na,b,[y]\n", "has columns 'name' and 'names': keep one"),
    ],
)
def test_columns_are_never_picked_silently(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_labels(write(tmp_path, "x.csv", content))


def test_npz_of_text_arrays(tmp_path):
    items = np.array(["['happy', 'glad']", "['sad']"])
    np.savez(tmp_path / "x.npz", filenames=np.array(["a", "b"]), fileitems=items)
    assert read_labels(tmp_path / "x.npz").labels == WANT


def test_one_system_of_a_prediction_file(tmp_path):
    rows = [{**row, "system": s} for s in ("p", "q") for row in ROWS]
    path = write(tmp_path, "x.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_labels(path, system="q").labels == WANT
    with pytest.raises(DataError, match="choose one with --system"):
        read_labels(path)
    with pytest.raises(DataError, match="no rows in it of system 'r'"):
        read_labels(path, system="r")


def test_duplicates(tmp_path):
    path = write(tmp_path, "x.csv", "name,openset\na,[happy]\nb,[sad]\na,[calm]\n")
    with pytest.raises(DataError, match=r"x\.csv, row 4: 'a' was already given in row 2"):
        read_labels(path)
    assert read_labels(path, duplicates="first").labels["a"] == ("happy",)
    last = read_labels(path, duplicates="last")
    assert last.labels["a"] == ("calm",)
    assert last.duplicates == 1


def test_statuses_are_counted(tmp_path):
    text = "name,openset\na,['happy']\nb,[]\nc,He is glad today.\nd,happy\n"
    statuses = read_labels(write(tmp_path, "x.csv", text)).statuses
    assert statuses == {"ok": 1, "repaired": 1, "empty": 1, "unparsed": 1}


BAD = [
    ("wrong column", "p.csv", "name,label\na,[happy]\n", r"row 1: no column 'openset' or 'labels'"),
    ("no name column", "p.csv", "clip,openset\na,[happy]\n", r"row 1: no column 'name'"),
    ("no such file", "nowhere.csv", None, r"no such file; beside it lie gold\.csv"),
    ("broken quotes", "p.csv", 'name,openset\na,"[happy]\nb,[sad]\n', r"row 3: broken CSV"),
    ("stray cells", "p.csv", "name,openset\na,happy,sad\n", r"row 2: 3 cells under 2 columns"),
    ("no rows", "p.csv", "name,openset\n", "no rows"),
    ("empty file", "p.csv", "", "row 1: no column"),
    ("empty name", "p.csv", "name,openset\n,[happy]\n", "row 2: the name is empty"),
    ("unknown encoding", "p.csv", "name,openset\na,开心\n".encode("gb18030"), "row 2: not UTF-8"),
    ("binary", "p.csv", b"name,openset\na,\0\n", "row 2: holds a NUL byte"),
    ("unknown kind", "p.xls", b"x", "unknown kind of file; give .csv"),
    ("broken JSON line", "p.jsonl", '{"name": "a", "labels": []}\n{"na', "row 2: not JSON"),
    ("JSON line without labels", "p.jsonl", '{"name": "a"}', "row 1: expected an object with"),
    ("broken JSON", "p.json", "{", "not JSON"),
    ("broken npz", "p.npz", b"PK broken", "not a readable .npz"),
    ("missing clip", "p.csv", "name,openset\na,[happy]\n", "1 of 2 gold clips have no prediction"),
    ("other names", "p.csv", "name,openset\nx,[happy]\ny,[sad]\n", "the predictions have 'x'"),
    ("extra clip", "p.csv", GOLD + "c,[sad]\n", "1 predictions have no gold clip"),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_predictions_end_with_a_message(tmp_path, gold, capsys, name, content, message):
    path = tmp_path / name
    if content is not None:
        write(tmp_path, name, content)
    code = main(["--gold", str(gold), "--pred", str(path), "--grouping", "exact"])
    error = capsys.readouterr().err
    assert code == 2
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def test_pickled_npz_and_npy_are_never_opened(tmp_path, gold, capsys):
    evil = np.array([{"x": 1}], dtype=object)
    np.savez(tmp_path / "p.npz", filenames=np.array(["a"]), fileitems=evil)
    assert (
        main(["--gold", str(gold), "--pred", str(tmp_path / "p.npz"), "--grouping", "exact"]) == 2
    )
    assert "pickled arrays" in capsys.readouterr().err
    np.save(tmp_path / "a.npy", evil)
    arguments = ["--gold", str(gold), "--pred", str(gold), "--grouping", "cached"]
    assert main([*arguments, "--groups", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "a.npy: a pickled array" in error
    assert "np.save" in error


def test_text_without_bracket_in_official_mode(tmp_path, gold, capsys):
    path = write(tmp_path, "p.csv", "name,openset\na,happy\nb,[sad]\n")
    arguments = ["--gold", str(gold), "--pred", str(path), "--grouping", "exact"]
    assert main([*arguments, "--parser", "mer2024"]) == 2
    assert "p.csv, row 2 (a): no '['" in capsys.readouterr().err
    assert main(arguments) == 0


def test_options_that_drop_or_zero_say_how_many(tmp_path, gold, capsys):
    path = write(tmp_path, "p.csv", "name,openset\na,[happy]\nc,[sad]\n")
    arguments = ["--gold", str(gold), "--pred", str(path), "--grouping", "exact"]
    out = tmp_path / "s.json"
    assert main([*arguments, "--missing", "zero", "--extra", "drop", "--json", str(out)]) == 0
    assert "1 clips: missing zeroed" in capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["names"] == {"missing_zeroed": 1, "extra_dropped": 1}
    assert (result["n"], result["accuracy"], result["recall"]) == (2, 0.5, 0.25)


def test_leak_stops_and_can_be_overruled(tmp_path, gold, capsys):
    train = write(tmp_path, "train.csv", "name,discrete\nb,happy\nz,sad\n")
    arguments = ["--gold", str(gold), "--pred", str(gold), "--grouping", "exact", "--train"]
    assert main([*arguments, str(train)]) == 2
    assert "1 of 2 evaluation clips were in training" in capsys.readouterr().err
    out = tmp_path / "s.json"
    assert main([*arguments, str(train), "--allow-leak", "--json", str(out)]) == 0
    assert "LEAK: 1 of 2 clips" in capsys.readouterr().out
    assert json.loads(out.read_text())["leak"] == {str(train): 1}


def test_training_lists_of_every_kind(tmp_path):
    assert read_names(write(tmp_path, "t.txt", "a\n\n b \n")) == {"a", "b"}
    assert read_names(write(tmp_path, "t.csv", "x,name\n1,a\n2,b\n")) == {"a", "b"}
    assert read_names(write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, ROWS)))) == {"a", "b"}


def test_compare_prints_and_writes_paired_tests(tmp_path, gold, capsys):
    other = write(tmp_path, "p.csv", "name,openset\na,[sad]\nb,[sad]\n")
    out = tmp_path / "s.json"
    arguments = ["--gold", str(gold), "--pred", str(gold), "--compare", str(other)]
    assert main([*arguments, "--grouping", "exact", "--json", str(out), "--resamples", "200"]) == 0
    printed = capsys.readouterr().out
    assert "permutation" in printed
    assert "minus the best constant list" in printed
    lists = json.loads(out.read_text())["minus_constant_lists"]
    assert set(lists) == {"same_length", "any_length", "best_f1"}
    assert lists["any_length"]["difference"]["avg"] > 0
    found = json.loads(out.read_text())["compare"]
    assert found["difference"]["avg"] == 0.5
    assert found["n"] == 2


def test_per_clip_tables(tmp_path, gold):
    arguments = ["--gold", str(gold), "--pred", str(gold), "--grouping", "exact", "--per-clip"]
    assert main([*arguments, str(tmp_path / "t.csv")]) == 0
    assert main([*arguments, str(tmp_path / "t.parquet")]) == 0
    flat, nested = pd.read_csv(tmp_path / "t.csv"), pd.read_parquet(tmp_path / "t.parquet")
    assert flat["name"].tolist() == nested["name"].tolist() == ["a", "b"]
    assert json.loads(flat["hits"][0]) == nested["hits"][0].tolist() == ["happy", "glad"]
    assert main([*arguments, str(tmp_path / "t.xlsx")]) == 2


@pytest.mark.shared
def test_the_official_command_line(tmp_path):
    folder = shared("data/mer2024_ov")
    command = [sys.executable, "-m", "emolib.cli.score", "--grouping", "cached"]
    command += ["--gold", str(folder / "check-openset.csv")]
    command += ["--pred", str(folder / "predict-openset.csv")]
    command += ["--groups", str(folder / "openset-synonym.zip"), "--json", str(tmp_path / "s.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Avg       0.5398" in done.stdout
    result = json.loads((tmp_path / "s.json").read_text())
    assert result["n"] == 332
    assert result["accuracy"] == pytest.approx(0.5817771084, abs=5e-11)
    assert result["recall"] == pytest.approx(0.4977911647, abs=5e-11)
    assert result["avg"] == pytest.approx(0.5397841365, abs=5e-11)
