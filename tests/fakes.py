"""Stand-ins used by several tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from emolib.engines.base import EngineBase, Reply, Request


@dataclass
class FakeEngine(EngineBase):
    """Answers with ``answer(request)``; keeps what it was asked in ``seen``."""

    answer: Callable[[Request], str | Reply] = lambda request: "[]"
    name: str = "fake"
    identity: dict[str, object] = field(default_factory=lambda: {"engine": "fake"})
    seen: list[Request] = field(default_factory=list)

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            self.seen.append(request)
            answer = self.answer(request)
            yield answer if isinstance(answer, Reply) else Reply(id=request.id, text=answer)
