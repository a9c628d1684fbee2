"""What a model's answers took: tokens, time and, where prices are given, money."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from emolib.params.schemas import Prices


class Bill:
    """Adds up answers while they come in.

    Attributes:
        prompt: Prompt tokens so far; answers whose length is not told count as 0.
        new: Generated tokens so far.
        failed: Answers that are errors.

    Args:
        prices: What answers cost.
        expected: How many answers there will be.
        clock: Monotonic seconds.
    """

    def __init__(
        self, prices: Prices, expected: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.prompt, self.new, self.failed = 0, 0, 0
        self._answers, self._expected = 0, expected
        self._prices, self._clock, self._start = prices, clock, clock()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one answered ledger row."""
        self._answers += 1
        self.failed += row["error"] is not None
        self.prompt += max(0, row["prompt_tokens"])
        self.new += max(0, row["new_tokens"])

    def note(self) -> str:
        """The bill in a few words, e.g. "3 failed, 1.2M+310k tokens, 0.42 of about 12.30 USD"."""
        parts = [f"{self.failed} failed"] if self.failed else []
        if self.prompt or self.new:
            parts.append(f"{_short(self.prompt)}+{_short(self.new)} tokens")
        money = cost(self._prices, self.prompt, self.new, self._clock() - self._start)
        if money:
            whole = money / max(1, self._answers) * self._expected
            parts.append(f"{money:.2f} of about {whole:.2f} {self._prices.currency}")
        return ", ".join(parts)


def cost(prices: Prices, prompt: int, new: int, seconds: float = 0.0) -> float:
    """Price of so many tokens and so long a time, in ``prices.currency``."""
    tokens = prices.prompt * prompt + prices.new * new
    return tokens / 1e6 + prices.hour * seconds / 3600


def total(rows: Iterable[Mapping[str, Any]], prices: Prices) -> dict[str, Any]:
    """Tokens and their price over finished rows, whichever run they were answered in.

    Returns:
        ``prompt_tokens``, ``new_tokens`` and ``cost``: None without a price per token, because
        the machine's hours are shared between requests and cannot be read off the rows.
    """
    prompt = new = 0
    for row in rows:
        prompt += max(0, row["prompt_tokens"] or 0)
        new += max(0, row["new_tokens"] or 0)
    priced = bool(prices.prompt or prices.new)
    return {
        "prompt_tokens": prompt,
        "new_tokens": new,
        "cost": round(cost(prices, prompt, new), 4) if priced else None,
    }


def _short(count: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.{1 if count < 10 * size else 0}f}{letter}"
    return str(count)
