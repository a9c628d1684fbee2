"""Any engine as the judge of :class:`emolib.scoring.judge.LlmGrouping`."""

from __future__ import annotations

from collections.abc import Sequence

from emolib.engines.base import Engine, Request, answer_all
from emolib.errors import EngineError


class EngineJudge:
    """Asks an engine text-only questions and accepts nothing but complete answers.

    Args:
        engine: An open engine; it stays the caller's to close.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.identity = dict(engine.identity)

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """Answer every prompt, in order.

        Raises:
            EngineError: a reply is an error, empty, or was cut at the token limit.
        """
        requests = [Request(id=str(i), prompt=prompt) for i, prompt in enumerate(prompts)]
        replies = answer_all(self._engine, requests)
        for reply in replies:
            why = reply.error or ("an empty answer" if not reply.text.strip() else "")
            if not why and reply.finish_reason == "length":
                why = "an answer cut at max_new_tokens; raise decoding.max_new_tokens"
            if why:
                raise EngineError(
                    f"grouping judge {self._engine.name}: {why}; nothing was scored",
                    transient=reply.transient,
                )
        return [reply.text for reply in replies]
