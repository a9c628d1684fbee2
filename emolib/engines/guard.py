"""Keep a prompt plain text inside ms-swift's templates.

ms-swift reads ``<image>``, ``<audio>``, ``<start-image>``, ``{{ROUND0}}`` and, without images,
``<img>any/local/file</img>`` inside message text, and tokenizers turn ``<|im_end|>`` into a
role mark wherever it stands. So the template gets a key in place of every text, and the text
comes in only when the surrounding words are tokenised.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

_KEY = re.compile("\ue0f0(\\d+)\ue0f1")


class GuardedTemplate:
    """Mixin put in front of an ms-swift template class by :func:`guard`."""

    _texts: dict[str, str]
    _used: set[str]
    _numbers: Any
    _added: re.Pattern[str]
    _added_ids: frozenset[int]

    def put(self, text: str) -> str:
        """Keep ``text`` and return the key that stands for it in messages."""
        number = str(next(self._numbers))
        self._texts[number] = text
        return f"\ue0f0{number}\ue0f1"

    def forget(self) -> None:
        """Drop every kept text, after a batch."""
        self._texts.clear()
        self._used.clear()

    def drop(self, messages: Iterable[dict[str, Any]]) -> None:
        """Drop the texts that one request's messages stand for."""
        for message in messages:
            for key in keys_in(message["content"]):
                self._texts.pop(key, None)
                self._used.discard(key)

    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Encode one request and check that every text and image came in exactly once."""
        encoded = super().encode(inputs, *args, **kwargs)  # type: ignore[misc]
        missing = [
            key
            for message in inputs.messages
            for key in keys_in(message["content"])
            if key not in self._used
        ]
        if missing:
            raise ValueError("this template does not take the prompt or system message as text")
        rows = encoded["template_inputs"]
        for kind, placed in (("image", rows.image_idx), ("audio", rows.audio_idx)):
            given = len(getattr(inputs, f"{kind}s"))
            if placed != given:
                raise ValueError(f"the model takes {placed} of the request's {given} {kind} inputs")
        return encoded

    def replace_tag(self, media_type: str, index: int, inputs: Any) -> Any:
        """Put the model's own placeholder for one image or sound, or say it takes none."""
        try:
            return super().replace_tag(media_type, index, inputs)  # type: ignore[misc]
        except AssertionError:
            raise ValueError(f"this model takes no {media_type} input") from None

    def _tokenize(self, context: Any, **kwargs: Any) -> Any:
        plain = super()._tokenize  # type: ignore[misc]
        parts = _KEY.split(context) if isinstance(context, str) else []
        if len(parts) < 2:
            return plain(context, **kwargs)
        # parts: words of the template and keys in turn
        self._used.update(parts[1::2])
        words = [self._texts[p] if i % 2 else p for i, p in enumerate(parts)]
        expected = sum(self._marks(plain(w, **kwargs)) for w in words[::2] if w)
        ids = plain("".join(words), **kwargs)
        if self._marks(ids) == expected:
            return ids
        # A text holds a mark: take it in pieces, so that no piece spells one.
        ids = []
        for i, word in enumerate(words):
            for piece in self._pieces(word) if i % 2 else [word]:
                if piece:
                    ids += plain(piece, **kwargs)
        if self._marks(ids) != expected:
            raise ValueError("the prompt spells a special token that cannot be taken as text")
        return ids

    def _marks(self, ids: list[int]) -> int:
        return sum(i in self._added_ids for i in ids)

    def _pieces(self, text: str) -> list[str]:
        cuts = [m.start() + 1 for m in self._added.finditer(text)]
        return [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]


def keys_in(message: str) -> list[str]:
    """Return the numbers of the keys in a message."""
    return _KEY.findall(message)


def guard(template: Any) -> Any:
    """Turn an ms-swift template into a guarded one, in place."""
    tokenizer = template.tokenizer
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    added |= set(tokenizer.all_special_tokens)
    template._texts, template._used, template._numbers = {}, set(), itertools.count()
    # Overlapping finds are wanted: "<<s>" holds one, whatever stands before it.
    spelled = "|".join(re.escape(t) for t in sorted(added, key=len, reverse=True) if len(t) > 1)
    template._added = re.compile(f"(?=(?:{spelled}))" if spelled else "(?!)")
    template._added_ids = frozenset(tokenizer.convert_tokens_to_ids(sorted(added)))
    template.__class__ = type("Guarded", (GuardedTemplate, type(template)), {})
    return template
