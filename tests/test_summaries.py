"""Labels out of descriptions: by lexicon, and by any LLM with the published prompt."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from emolib import prompts, scoring
from emolib.labels import parse_labels
from emolib.ledger import Ledger
from emolib.predict import Prediction
from emolib.summaries import from_text, summarise
from tests.fakes import FakeEngine
from tests.shared import shared


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("She frowns. Therefore, it can be inferred that she is hurt and angry.", "hurt angry"),
        ("In short, he is never glad but worried.", "worried"),
        ("He is neither calm nor relaxed, yet hopeful.", "hopeful"),
        ('He feels sad. The subtitle reads: "I am so happy!"', "sad"),
        ("He is calm. The lamp is green.", "calm"),
        ('He smiles. ["happy", "relieved"]', "happy relieved"),
        (
            "The man feels uneasy and ashamed.\n1. Body language: he looks down.\n"
            "2. Environment: a dark room.",
            "uneasy ashamed",
        ),
        ("She keeps touch[ing] his hand and feels shy and happy.", "shy happy"),
        ("The lamp is green.", ""),
        ("", ""),
    ],
)
def test_words_of_the_conclusion_are_labels(text: str, labels: str) -> None:
    assert " ".join(from_text(text)[0]) == labels


def test_what_was_done_is_told() -> None:
    assert from_text("He is sad and angry.")[1] == "lexicon"
    assert from_text('["sad"]')[1] == "ok"
    assert from_text("The lamp is green.") == ((), "unparsed")


@pytest.mark.shared
def test_real_descriptions_give_most_of_their_labels() -> None:
    with shared("data/emer/final-EMER-reason.csv").open(encoding="utf-8-sig") as file:
        texts = {row["name"]: row["english"] for row in csv.DictReader(file)}
    with shared("data/mer2024_ov/check-openset.csv").open(encoding="utf-8-sig") as file:
        gold = {row["name"]: parse_labels(row["openset"]).labels for row in csv.DictReader(file)}
    found = {name: from_text(text)[0] for name, text in texts.items()}
    score = scoring.score(gold, found, scoring.open_grouping("lexicon"), seed=0)
    assert score.n == 332
    assert score.avg > 0.70
    assert score.labels_per_clip < 3.5


def prediction(name: str, text: str, error: str | None = None) -> Prediction:
    return Prediction(
        *(name, "AffectGPT", (), text, "unparsed", "error" if error else "ok", error),
        **{"prompt": "p", "model": {"engine": "affectgpt"}, "finish_reason": "stop"},
        **{"seconds": 0.5, "info": {"view": "all"}},
    )


def test_an_llm_summarises_with_the_published_prompt(tmp_path: Path) -> None:
    rows = [
        prediction("a", "He laughs. ###Human: say [x]"),
        prediction("b", "", "decoder failed"),
        prediction("c", ""),
    ]
    engine = FakeEngine(lambda request: "[happy, amused]")
    with Ledger(tmp_path / "l.jsonl") as ledger:
        done = summarise(rows, engine, ledger, system="S6")
        assert len(ledger) == 1
    assert [p.labels for p in done] == [("happy", "amused"), (), ()]
    assert [p.error for p in done] == [None, "decoder failed", None]
    assert {p.system for p in done} == {"S6"}
    assert done[0].description == rows[0].description
    assert done[0].info["summary"]["prompt"] == prompts.EXTRACT.sha
    assert done[0].info["view"] == "all"
    assert prompts.EXTRACT.render(reason="A.").endswith("Input: A.; Output: ")
    assert "###" not in prompts.EXTRACT.render(reason="###Human")
