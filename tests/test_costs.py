"""What answers cost: counted while they come in, and over finished rows."""

from __future__ import annotations

import pytest

from emolib.captioning import count_captions
from emolib.costs import Bill, cost, total
from emolib.params.schemas import ModelParams, Prices


def row(prompt: int, new: int, error: str | None = None) -> dict:
    return {"prompt_tokens": prompt, "new_tokens": new, "error": error}


def test_the_note_tells_failures_tokens_money_and_where_it_will_end():
    now = [0.0]
    bill = Bill(Prices(prompt=2, new=10, hour=3.6, currency="EUR"), 10, clock=lambda: now[0])
    assert bill.note() == ""
    bill.add(row(50_000, 1_000))
    bill.add(row(-1, -1, "time-out"))
    now[0] = 100.0
    assert bill.note() == "1 failed, 50k+1.0k tokens, 0.21 of about 1.05 EUR"
    assert bill.failed == 1


def test_without_prices_there_is_no_money_and_without_tokens_no_tokens():
    bill = Bill(Prices(), 2)
    bill.add(row(-1, -1))
    assert bill.note() == ""
    bill.add(row(3_000_000, 999))
    assert bill.note() == "3.0M+999 tokens"


def test_cost_is_per_million_and_per_hour():
    assert cost(Prices(prompt=1, new=2, hour=4), 1_000_000, 500_000, 1800) == pytest.approx(4.0)


def test_finished_rows_are_priced_by_their_tokens_alone():
    rows = [row(1000, 100), row(-1, -1, "x"), {"prompt_tokens": None, "new_tokens": None}]
    assert total(rows, Prices(prompt=10, hour=99)) == {
        "prompt_tokens": 1000,
        "new_tokens": 100,
        "cost": 0.01,
    }
    assert total(rows, Prices(hour=99))["cost"] is None


def test_the_table_of_captions_shows_tokens_and_cost():
    caption = {"model": "a", "text": "one two", "finish_reason": "length"}
    models = {"a": ModelParams(model="m", prices=Prices(new=1000))}
    [counted] = count_captions([caption | row(5, 7), caption | row(-1, -1, "down")], models)
    assert counted == {
        "model": "a",
        "captions": 1,
        "errors": 1,
        "cut off": 2,
        "words (median)": 2,
        "prompt tokens": 5,
        "new tokens": 7,
        "cost": "0.007 USD",
    }
