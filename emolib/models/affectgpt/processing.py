"""Text, videos and audio of a batch -> what the model takes, with labels when training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from emolib.errors import DataError
from emolib.models.affectgpt.configuration import AffectGPTConfig
from emolib.models.affectgpt.frames import AffectGPTVideoProcessor
from emolib.models.affectgpt.prompts import AUDIO, MULTI, STOP, VIDEO, build_prompt, media_fault
from emolib.models.affectgpt.sound import ImageBindFeatureExtractor, WaveformFeatureExtractor
from emolib.models.affectgpt.tokenizing import (
    PLACEHOLDER,
    multi_placeholder_id,
    placeholder_ids,
    sentencepiece_of,
)

IGNORE = -100

Turn = tuple[str, str | None]


class AffectGPTProcessor(ProcessorMixin):
    """One template for training and inference.

    Text is cut at the placeholders and every piece is tokenised on its own, which gives the
    published token ids with any kind of LLaMA tokenizer. Text can never turn into a special
    token.

    Args:
        video_processor: :class:`AffectGPTVideoProcessor`.
        feature_extractor: :class:`ImageBindFeatureExtractor`, or its heir for waveforms.
        tokenizer: The language model's, with or without the placeholders.
        video_tokens: Placeholders per video.
        audio_tokens: Placeholders per audio.
        multi_tokens: Placeholders per pre-fused video and audio; 0 = the model does not fuse.
        preset: Default of :meth:`prompt`.
        max_length: Longest sequence in tokens; a longer one is refused. 1024 holds every
            description of EMER; the published 512 lost a third of them without a word.
        reference_compat: Published token ids even for runs of spaces: tokenise by
            SentencePiece itself (``tokenizer.model``), and write the published prompts with
            those runs. The audio switch is the feature extractor's own.
    """

    def __init__(
        self,
        video_processor: AffectGPTVideoProcessor,
        feature_extractor: ImageBindFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        video_tokens: int = 32,
        audio_tokens: int = 8,
        multi_tokens: int = 0,
        preset: str = "paper",
        max_length: int = 1024,
        reference_compat: bool = False,
        **kwargs: Any,
    ) -> None:
        self.video_tokens = video_tokens
        self.audio_tokens = audio_tokens
        self.multi_tokens = multi_tokens
        self.preset = preset
        self.max_length = max_length
        self.reference_compat = reference_compat
        self.video_token_id, self.audio_token_id = placeholder_ids(tokenizer)
        self.multi_token_id = multi_placeholder_id(tokenizer) if multi_tokens else None
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        super().__init__(video_processor, feature_extractor, tokenizer, **kwargs)

    @classmethod
    def for_config(
        cls,
        config: AffectGPTConfig,
        tokenizer: PreTrainedTokenizerBase,
        reference_compat: bool = False,
        video_processor: AffectGPTVideoProcessor | None = None,
        waveforms: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> AffectGPTProcessor:
        """A processor that fits a model's sizes.

        Args:
            config: The model's.
            tokenizer: The language model's.
            reference_compat: Set in all parts.
            video_processor: Instead of the published one at the image tower's size.
            waveforms: Settings of :class:`WaveformFeatureExtractor`, for towers that hear such.
            **kwargs: As the class's.
        """
        side, audio = config.vision_config.image_size, config.audio_config
        clips: dict[str, Any] = {
            "num_clips": config.max_clips,
            "reference_compat": reference_compat,
        }
        return cls(
            video_processor or AffectGPTVideoProcessor(size={"height": side, "width": side}),
            WaveformFeatureExtractor(**clips, **(waveforms or {}))
            if config.waveforms
            else ImageBindFeatureExtractor(
                num_mel_bins=audio.num_mel_bins, target_length=audio.target_length, **clips
            ),
            tokenizer,
            reference_compat=reference_compat,
            video_tokens=config.video_tokens,
            audio_tokens=config.audio_tokens,
            multi_tokens=config.multi_tokens,
            **kwargs,
        )

    def prompt(self, preset: str | None = None, **what: Any) -> str:
        """One prompt, see :func:`emolib.models.affectgpt.prompts.build_prompt`."""
        what.setdefault("reference_compat", self.reference_compat)
        return build_prompt(preset or self.preset, **what)

    def __call__(
        self,
        text: str | Sequence[str | Sequence[Turn]],
        videos: Sequence[np.ndarray | None] | None = None,
        audio: Sequence[np.ndarray | None] | None = None,
        answers: Sequence[str] | None = None,
        sampling_rate: int = 16_000,
        rng: np.random.Generator | None = None,
        padding_side: str | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Prepare a batch.

        Args:
            text: Prompts (:meth:`prompt`), or dialogues as (prompt, answer) turns; the last
                answer None asks for one.
            videos: Per sample uint8 RGB [frames, height, width, 3], a still
                [height, width, 3], or None; the text must hold the placeholder accordingly.
            audio: Per sample float [samples] or [channels, samples] in [-1, 1], or None.
            answers: What to learn to say to each prompt; gives ``labels``.
            sampling_rate: Hz of all audio.
            rng: Draw training crops; None: whole frames.
            padding_side: Default: "right" with labels, else "left" (for ``generate``).
            return_tensors: Only "pt".

        Returns:
            ``input_ids``, ``attention_mask`` int64 [batch, length], ``labels`` when anything
            is supervised (-100 elsewhere), and packed over the samples that have them:
            ``pixel_values_videos`` (with ``video_mask`` when lengths differ) and
            ``input_features``.

        Raises:
            DataError: counts or placeholders do not match, or a sequence is too long; names
                the position.
            MediaError: unusable frames or samples.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r}: only 'pt' is supported")
        dialogues = _dialogues([text] if isinstance(text, str) else text, answers)
        size = len(dialogues)
        videos = [None] * size if videos is None else videos
        audio = [None] * size if audio is None else audio
        for name, given in (("videos", videos), ("audio", audio)):
            if len(given) != size:
                raise DataError(f"{len(given)} {name} for {size} texts; give None where absent")
        rows = [
            self._row(number, turns, clip is not None, sound is not None)
            for number, (turns, clip, sound) in enumerate(
                zip(dialogues, videos, audio, strict=True)
            )
        ]
        supervised = any(label != IGNORE for _, labels in rows for label in labels)
        data = self._padded(rows, padding_side or ("right" if supervised else "left"))
        if not supervised:
            del data["labels"]
        there: list[Any] = [clip for clip in videos if clip is not None]
        if there:
            data.update(self.video_processor(there, rng=rng, return_tensors="pt"))
        there = [sound for sound in audio if sound is not None]
        if there:
            data.update(self.feature_extractor(there, sampling_rate, return_tensors="pt"))
        return BatchFeature(data)

    def encode(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        """Token ids and labels of a dialogue.

        Args:
            turns: (prompt with placeholders, answer or None) pairs; ``###`` is appended to
                every answer.

        Returns:
            (input ids, labels), equally long; labels are -100 on prompts.
        """
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        ids, labels = list(start), [IGNORE] * len(start)
        counts: dict[str, list[Any]] = {
            VIDEO: [self.video_token_id] * self.video_tokens,
            AUDIO: [self.audio_token_id] * self.audio_tokens,
            MULTI: [self.multi_token_id] * self.multi_tokens,
        }
        for prompt, answer in turns:
            for piece in PLACEHOLDER.split(prompt):
                new = counts[piece] if piece in counts else self._pieces(piece)
                ids += new
                labels += [IGNORE] * len(new)
            if answer is not None:
                new = self._pieces(answer + STOP)
                ids += new
                labels += new
        return ids, labels

    def stopping(self) -> dict[str, Any]:
        """Arguments for ``generate`` that end an answer at ``###``, in every row."""
        return {"stop_strings": [STOP], "tokenizer": self.tokenizer}

    def decode_answers(self, generated: torch.Tensor, prompt_length: int) -> list[str]:
        """Texts of generated rows.

        Args:
            generated: int [batch, length], as ``generate`` gives them.
            prompt_length: Length of ``input_ids``.
        """
        texts = self.tokenizer.batch_decode(generated[:, prompt_length:], skip_special_tokens=True)
        return [text.split(STOP)[0].strip() for text in texts]

    @property
    def model_input_names(self) -> list[str]:
        """What a collator may hand to the model."""
        media = (*self.video_processor.model_input_names, *self.feature_extractor.model_input_names)
        return ["input_ids", "attention_mask", "labels", *media]

    def _row(
        self, number: int, turns: Sequence[Turn], video: bool, audio: bool
    ) -> tuple[list[int], list[int]]:
        prompts = [prompt for prompt, _ in turns]
        if fault := media_fault(prompts, video, audio, self.multi_tokens):
            raise DataError(f"sample {number}: {fault}")
        ids, labels = self.encode(turns)
        if len(ids) > self.max_length:
            raise DataError(
                f"sample {number}: {len(ids)} tokens, more than max_length={self.max_length}: "
                "shorten the answer or raise max_length"
            )
        return ids, labels

    def _padded(self, rows: Sequence[tuple[list[int], list[int]]], side: str) -> dict[str, Any]:
        longest = max(len(ids) for ids, _ in rows)
        fills = {
            "input_ids": self.tokenizer.pad_token_id,
            "attention_mask": 0,
            "labels": IGNORE,
        }
        data = {key: torch.full((len(rows), longest), fill) for key, fill in fills.items()}
        for row, (ids, labels) in enumerate(rows):
            where = slice(0, len(ids)) if side == "right" else slice(longest - len(ids), longest)
            data["input_ids"][row, where] = torch.tensor(ids)
            data["attention_mask"][row, where] = 1
            data["labels"][row, where] = torch.tensor(labels)
        return data

    def _pieces(self, text: str) -> list[int]:
        if not text:
            return []
        if self.reference_compat:
            return self._sentencepiece(text)
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    @cached_property
    def _sentencepiece(self) -> Callable[[str], list[int]]:
        return sentencepiece_of(self.tokenizer).encode


def _dialogues(
    texts: Sequence[str | Sequence[Turn]], answers: Sequence[str] | None
) -> list[Sequence[Turn]]:
    if answers is None:
        return [[(text, None)] if isinstance(text, str) else text for text in texts]
    if len(answers) != len(texts) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{len(answers)} answers for {len(texts)} prompts: give one per prompt")
    return [[(str(text), answer)] for text, answer in zip(texts, answers, strict=True)]
