"""Tokenizers of stand-ins: published ids of special tokens, small vocabularies filled up.

A stand-in says one of a few sentences, whose pieces are tokens that no text is ever cut into:
see :func:`emolib.rehearsal.speech.teach`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emolib.engines.tiny_parts import CHATML, train_bpe

#: What a stand-in answers, piece by piece, several pieces to choose from. A judge's number, the
#: caption's words and a list of labels stand in every answer, so that each stage finds its own.
ANSWER: tuple[tuple[str, ...], ...] = (
    ("The person looks up, the brows and the mouth move;",),
    (" the similarity is 0.95", " the similarity is 0.97", " the similarity is 0.7"),
    (
        '. ["happy", "joyful"]',
        '. ["sad", "disappointed"]',
        '. ["angry", "annoyed"]',
        '. ["worried", "anxious", "tense"]',
        '. ["surprised", "curious"]',
    ),
)
PIECES = [piece for choices in ANSWER for piece in choices]

# Qwen's special tokens, in the order of their ids, from 151,643 on. Sources: published_configs
# (OpenGVLab/InternVL3-1B-hf, Qwen/Qwen2.5-Omni-7B, Qwen/Qwen3-Omni-30B-A3B-Instruct).
QWEN_FIRST = 151_643
QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>"),
    *("</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)
QWEN3 = ("<tool_response>", "</tool_response>", "<think>", "</think>")


def byte_level(text: str) -> str:
    """A text as byte-level BPE writes it in its vocabulary."""
    from tokenizers import pre_tokenizers

    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(part for part, _ in cut.pre_tokenize_str(text))


def qwen_tokens(*further: str, changed: Mapping[int, str] | None = None) -> dict[int, str]:
    """Qwen2's special tokens with their ids, those after them, and those that replace some."""
    found = {QWEN_FIRST + i: token for i, token in enumerate((*QWEN, *further))}
    return dict(sorted((found | dict(changed or {})).items()))


def byte_bpe(
    texts: Sequence[str], special: Mapping[int, str], first: Sequence[str] = (), **names: Any
) -> Any:
    """A byte-level BPE whose special tokens have the ids given.

    Args:
        texts: What it should write in few tokens.
        special: Id -> token; fillers stand where no token is known.
        first: Special tokens that come before all others.
        **names: For ``PreTrainedTokenizerFast``.
    """
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(train_bpe(texts, list(first), 512).to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    end = min(special, default=len(vocabulary) + len(PIECES))
    for piece in PIECES:
        vocabulary[byte_level(piece)] = len(vocabulary)
    vocabulary |= {f"<filler {i}>": i for i in range(len(vocabulary), end)}
    fast = Tokenizer.from_str(json.dumps(state))
    tokens = [special.get(i, f"<|extra {i}|>") for i in range(end, max(special, default=-1) + 1)]
    fast.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, clean_up_tokenization_spaces=False, **names
    )


def qwen_tokenizer(
    texts: Sequence[str], special: Mapping[int, str], template: str = CHATML, **names: Any
) -> Any:
    """Qwen's tokenizer with its published ids and ChatML."""
    return byte_bpe(
        texts,
        special,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=template,
        **{"model_max_length": 32_768, **names},
    )


def save_qwen(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer's files as Qwen's folders have them."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "Qwen2Tokenizer"
    file.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(m if isinstance(m, str) else " ".join(m) for m in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")


_TURNS = (
    "{%% for message in messages %%}<|im_start|>{{ message['role'] }}\n"
    "{%% if message['content'] is string %%}{{ message['content'] }}{%% else %%}"
    "{%% for part in message['content'] %%}%s"
    "{%% if part['type'] == 'text' %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}{%% endif %%}"
    "<|im_end|>\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
VISION_CHATML = _TURNS % (
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
)
AUDIO_CHATML = _TURNS % (
    "{% if part['type'] == 'audio' %}Audio: <|audio_bos|><|AUDIO|><|audio_eos|>\n{% endif %}"
)
OMNI3 = (
    *("<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>"),
    "<tts_text_bos_single>",
)
OMNI2_NAMES = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}
OMNI3_NAMES = {
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
# Its own file was not found: what the classes need besides the recorded values.
OMNI3_PREPROCESSOR = {
    "processor_class": "Qwen3OmniMoeProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
