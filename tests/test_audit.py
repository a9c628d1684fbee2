"""The page people mark, what their marks say, and what words say without them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from emolib import agreement, audit
from emolib.errors import DataError
from emolib.filtering import Pair
from emolib.media.store import FrameStore


def pair(i: int, similarity: float | None, texts=("he is happy", "he is glad")) -> Pair:
    return Pair(f"clip{i}", 0, f"{i}.png", ("a", "b"), texts, similarity, answer=str(similarity))


PAIRS = [pair(i, 0.95 if i < 5 else 0.2) for i in range(40)] + [pair(40, None)]


def test_the_sample_holds_both_sides_seeded_and_shuffled():
    drawn = audit.draw_sample(PAIRS, 20, threshold=0.9, seed=0)
    assert len({p.id for p in drawn}) == 20
    assert sum(p.similarity == 0.95 for p in drawn) == 5, "all there are; the other side fills up"
    assert drawn == audit.draw_sample(PAIRS, 20, threshold=0.9, seed=0)
    assert drawn != audit.draw_sample(PAIRS, 20, threshold=0.9, seed=1)
    assert {p.similarity for p in drawn[:5]} != {0.95}
    assert all(p.similarity is not None for p in drawn)
    assert len(audit.draw_sample(PAIRS, 1000, threshold=0.9, seed=0)) == 41
    assert audit.draw_sample([], 10, threshold=0.9, seed=0) == []
    assert audit.draw_sample(PAIRS, 0, threshold=0.9, seed=0) == []


def test_the_page_stands_alone_and_captions_cannot_act(tmp_path):
    picture = FrameStore(tmp_path / "images").put(np.full((90, 900, 3), 128, np.uint8))
    texts = ("<script>alert(1)</script>", "a 'quoted' & \"odd\" text")
    shown = Pair("c'<x>", 0, str(picture), ("a", "b"), texts, 0.9, answer="</article>")
    lost = pair(1, None)
    page = audit.write_page(tmp_path / "audit.html", [shown, lost], title="T & <t>").read_text()
    assert page.count("<script>") == 1
    assert "alert(1)&lt;/script" in page
    assert page.count("</article>") == 2
    assert page.count("data:image/jpeg;base64,") == 1
    assert "1.png: cannot be read" in page
    assert "Judge: no score" in page
    assert not re.search(r"(?:src|href)=['\"](?!data:)", page), "needs no other file and no network"
    assert page.count("<input type=radio") == 2 * len(audit.MARKS)


def test_marks_come_back_and_say_what_people_think_of_either_side(tmp_path):
    file = tmp_path / "marks.csv"
    marked = {0: "similar", 1: "different", 2: "unusable", 7: "different", 8: "different"}
    lines = [f'"{PAIRS[i].id}","{mark}","a ""note"", really"' for i, mark in marked.items()]
    file.write_text("\n".join(["id,mark,note", *lines, ""]))
    kept, dropped = audit.agreement(PAIRS, audit.read_marks(file, PAIRS), threshold=0.9)
    assert (kept["marked"], kept["unusable"], kept["people agree"]) == (2, 1, 0.5)
    assert (dropped["marked"], dropped["people agree"]) == (2, 1.0)
    assert dropped["low"] < 0.5 < dropped["high"] == 1.0
    nobody = audit.agreement(PAIRS, {}, threshold=0.9)
    assert [row["people agree"] for row in nobody] == [None, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,mark\n", "expected the columns id,mark,note"),
        ("id,mark,note\nclip0#0@a+b,maybe,\n", "line 2: mark 'maybe'"),
        ("id,mark,note\nother#0@a+b,similar,\n", "line 2: no pair 'other#0@a\\+b'"),
    ],
)
def test_a_wrong_file_of_marks_is_named(tmp_path, text, words):
    (tmp_path / "marks.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        audit.read_marks(tmp_path / "marks.csv", PAIRS)
    with pytest.raises(DataError, match="cannot be read"):
        audit.read_marks(tmp_path / "none.csv", PAIRS)


def test_wilson_is_the_published_interval():
    assert audit.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert audit.wilson(0, 10)[0] == 0.0
    assert audit.wilson(0, 0) == (None, None)


def test_words_in_common_count_synonyms_once():
    pairs = [
        pair(0, 1.0, ("He is happy and worried.", "He looks glad.")),
        pair(1, 1.0, ("He is angry.", "She is calm.")),
        pair(2, 1.0, ("A man.", "A chair.")),
    ]
    assert agreement.shared_words(pairs) == [0.5, 0.0, None]


def test_captioners_are_compared_two_by_two():
    same = ("He is sad.", "He is sad.")
    other = ("He is sad.", "He is happy.")
    pairs = [pair(0, 0.95, same), pair(1, 0.9, same), pair(2, 0.1, other), pair(3, None, other)]
    [row] = agreement.by_models(pairs, 0.9)
    assert row["captions"] == "a + b"
    assert (row["pairs"], row["mean similarity"], row["share kept"]) == (4, 0.65, 0.6667)
    assert row["words in common"] == 0.5
    assert row["rank correlation"] > 0.8
    assert agreement.by_models([pair(0, 0.9)], 0.9)[0]["rank correlation"] is None
