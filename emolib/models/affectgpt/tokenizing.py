"""The language model's tokenizer: found, checked, and given the two placeholders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AddedToken, AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase

from emolib.errors import DataError, MissingModelError
from emolib.models.affectgpt.prompts import ALL_PRESETS, AUDIO, MULTI, VIDEO, build_prompt

PLACEHOLDER = re.compile(f"({re.escape(VIDEO)}|{re.escape(AUDIO)}|{re.escape(MULTI)})")
_SENTENCEPIECE = "tokenizer.model"


def placeholder_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Ids of ``<ImageHere>`` and ``<AudioHere>``, which are added when missing.

    They follow the vocabulary, which has 32,000 rows in LLaMA and 32,001 in Vicuna v0 (a
    ``[PAD]`` row), so nothing may assume their values.
    """
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (VIDEO, AUDIO)],
        special_tokens=True,
    )
    video, audio = tokenizer.convert_tokens_to_ids([VIDEO, AUDIO])
    return video, audio


def multi_placeholder_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of ``<MultiHere>``, which is added when missing; only the design of 2025 has it."""
    tokenizer.add_tokens([AddedToken(MULTI, special=True, normalized=False)], special_tokens=True)
    return tokenizer.convert_tokens_to_ids(MULTI)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer and, where there is a SentencePiece file, check it against that.

    Early LLaMA and Vicuna folders name classes that no longer exist, have empty or wrong
    special tokens, or no settings at all; transformers then fails or, worse, gives other
    ids without a word. The SentencePiece file decides.

    Raises:
        MissingModelError: no tokenizer can be loaded.
        DataError: it gives other ids than its SentencePiece file.
    """
    pieces = _sentencepiece(folder / _SENTENCEPIECE)
    try:
        if pieces is None:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        special = {
            f"{name}_token": pieces.id_to_piece(number)
            for name in ("bos", "eos", "unk")
            if (number := getattr(pieces, f"{name}_id")()) >= 0
        }
        tokenizer = LlamaTokenizer.from_pretrained(folder, local_files_only=True, **special)
    except (OSError, ValueError, ImportError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingModelError(
            f"{folder}: no tokenizer can be loaded from it ({reason}). Add its tokenizer "
            "files, or convert without one (--no-tokenizer)"
        ) from None
    for text in _probes():
        got = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        if got != (wanted := pieces.encode(text)):
            raise DataError(
                f"{folder}: its tokenizer files give {got[:6]}… for {text[:40]!r}, its "
                f"{_SENTENCEPIECE} {wanted[:6]}…: remove tokenizer.json and try again"
            )
    return tokenizer


def sentencepiece_of(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The SentencePiece processor in a tokenizer's folder.

    Raises:
        MissingModelError: there is none.
    """
    path = Path(tokenizer.name_or_path) / _SENTENCEPIECE
    pieces = _sentencepiece(path)
    if pieces is None:
        raise MissingModelError(
            f"{path}: not there; reference_compat needs the SentencePiece file of the "
            "language model, because other tokenizers split runs of spaces differently"
        )
    return pieces


def _sentencepiece(path: Path) -> Any:
    """The file's processor; None when there is no such file or it is of another kind."""
    if not path.is_file():
        return None
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(path))
    except RuntimeError:
        return None


def _probes() -> Iterator[str]:
    for preset in ALL_PRESETS:
        prompt = build_prompt(preset, subtitle="Don't! 你好。 It's 5 o'clock…")
        yield from PLACEHOLDER.split(prompt)[::2]
