"""What every engine takes and gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from emolib.params.schemas import Prices


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Attributes:
        id: Caller's identifier, returned in the matching :class:`Reply`.
        prompt: User text, already rendered. The engine places every image before it and
            treats it as plain text: nothing in it can become an image or role token.
        images: uint8 RGB arrays [height, width, 3], in time order.
        audio: float32 mono arrays [samples] in [-1, 1] at ``sample_rate``.
        sample_rate: Hz of ``audio``.
        system: System message; None keeps the model template's own.
        alternatives: Most likely tokens to report at every token of the answer, with their log
            probabilities; 0 = none.
    """

    id: str
    prompt: str
    images: tuple[np.ndarray, ...] = ()
    audio: tuple[np.ndarray, ...] = ()
    sample_rate: int = 16_000
    system: str | None = None
    alternatives: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer, and what else the model might have written there.

    Attributes:
        text: The token as text.
        logprob: Natural logarithm of its probability, before temperature and penalties.
        top: The most likely tokens at this place and their log probabilities, likeliest first.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, or the reason why there is none.

    Attributes:
        id: The request's ``id``.
        text: What the model wrote, unchanged; "" when ``error`` is set.
        error: One line without secrets, or None.
        transient: With ``error``: asking again later may work.
        finish_reason: "stop", "length" or "" when unknown.
        prompt_tokens: Length of the prompt in tokens, images included; -1 when unknown.
        new_tokens: Tokens generated; -1 when unknown.
        seconds: Wall-clock time of this answer (a batch's time divided by its size).
        tokens: The answer's tokens where ``alternatives`` were asked for and the engine can
            tell; otherwise empty.
    """

    id: str
    text: str = ""
    error: str | None = None
    transient: bool = False
    finish_reason: str = ""
    prompt_tokens: int = -1
    new_tokens: int = -1
    seconds: float = 0.0
    tokens: tuple[Token, ...] = ()


@runtime_checkable
class Engine(Protocol):
    """A model that answers requests. Use it as a context manager: leaving frees the model.

    Attributes:
        name: Short readable name for tables, e.g. "internvl".
        identity: Everything an answer depends on besides the request, as plain JSON
            values: engine kind, model path or id, weight fingerprint, adapters, decoding.
            Part of every ledger key. Holds no secret.
        software: What computes the answers, package -> version; written down with every
            answer and no part of its key.
        prices: What answers cost, if anything.
    """

    name: str
    identity: dict[str, object]
    software: dict[str, str]
    prices: Prices

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Answer lazily, in the order answers become ready.

        Pulls only as many requests ahead as the engine works on at once, so that images
        need not all be in memory. Gives exactly one reply per request; one request's
        failure is its reply's ``error`` and never stops the others.
        """
        ...

    def close(self) -> None:
        """Free the model or connection; a closed engine cannot be used again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class EngineBase:
    """Context-manager half of :class:`Engine`, shared by the implementations."""

    name: str
    identity: dict[str, object]
    software: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed in place
    prices: Prices = Prices()

    def close(self) -> None:
        """Free what the engine holds; the default holds nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def answer_all(engine: Engine, requests: Sequence[Request]) -> list[Reply]:
    """Answer a short list and return the replies in the requests' order.

    Raises:
        ValueError: two requests share an id.
    """
    if len({r.id for r in requests}) != len(requests):
        raise ValueError("request ids must be unique")
    replies = {reply.id: reply for reply in engine.stream(requests)}
    return [replies[r.id] for r in requests]


def keep_busy(
    requests: Iterable[Request], start: Callable[[Request], Future[Reply]], most: int
) -> Iterator[set[Future[Reply]]]:
    """Keep up to ``most`` requests under way and yield those that ended, as they do.

    A request is pulled only when there is room for it. What is still waiting when the caller
    stops is cancelled.
    """
    source = iter(requests)
    under_way: set[Future[Reply]] = set()
    try:
        while True:
            while len(under_way) < most and (request := next(source, None)) is not None:
                under_way.add(start(request))
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield done
    finally:
        for future in under_way:
            future.cancel()


def read_tokens(logprobs: Any) -> tuple[Token, ...]:
    """Read ``choices[0].logprobs`` of an OpenAI-style answer; () when there is nothing in it."""
    try:
        return tuple(
            Token(
                str(one["token"]),
                float(one["logprob"]),
                tuple(
                    sorted(
                        ((str(t["token"]), float(t["logprob"])) for t in one["top_logprobs"]),
                        key=lambda pair: -pair[1],
                    )
                ),
            )
            for one in logprobs["content"]
        )
    except (TypeError, KeyError, ValueError):
        return ()
