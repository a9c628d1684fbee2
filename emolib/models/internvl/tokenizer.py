"""InternLM2's sentencepiece model as a fast tokenizer with the same ids.

Differences that are meant: pieces that sentencepiece never produces (``[UNUSED_TOKEN_n]``)
have no merges, so no text can reach the ids of role marks through them; and ``<|plugin|>``, which
V1.5 does not use, stands for the video token the native processor asks for, because a token
beyond the vocabulary would crash the model as soon as a text spelt it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emolib.errors import DataError, MissingDependencyError
from emolib.files import read_json

IMAGE = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<|plugin|>",
}
_REQUIRED = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", *IMAGE.values())
_NORMAL, _UNKNOWN, _USER, _UNUSED, _BYTE = 1, 2, 4, 5, 6  # piece types of sentencepiece

# Compared with sentencepiece itself at every conversion.
_PROBES = (
    "These pictures are different frames of the same video.",
    " leading,  double and trailing spaces   \n\n\ttabs\u3000wide",
    "请描述画面中人物的表情。“我没事”，他说……",
    "café Ünïcödé ﬁ Ａ１ ½ 👩‍👩‍👧 🙂 \u200b\ufeff\x00\x07 𝔘",
    'In the format of ["**"]: 1234567890 3.14 <tag> a_b ▁ ▁▁x',
)


def build(folder: Path) -> Any:
    """Make the fast tokenizer of a published folder.

    Args:
        folder: Holds ``tokenizer.model`` and ``tokenizer_config.json`` (or
            ``added_tokens.json``).

    Returns:
        A ``PreTrainedTokenizerFast`` that puts ``<s>`` first and pads left with ``</s>``.

    Raises:
        DataError: files missing or not InternLM2's, or ids that differ from sentencepiece.
        MissingDependencyError: sentencepiece or protobuf is not installed.
    """
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2 as proto
    except ImportError as error:
        raise MissingDependencyError(
            f"reading tokenizer.model needs sentencepiece ({error}): pip install 'emolib[train]'"
        ) from error
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.model"
    if not path.is_file():
        raise DataError(f"{folder} has no tokenizer.model: not a complete InternLM2 folder")
    model = proto.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:
        raise DataError(f"{path}: not a sentencepiece model: {error}") from error
    if model.trainer_spec.model_type != 2 or not model.trainer_spec.byte_fallback:
        raise DataError(f"{path}: InternLM2 has a BPE model with byte fallback, this is another")
    added = added_tokens(folder, len(model.pieces))
    if missing := [token for token in _REQUIRED if token not in added.values()]:
        raise DataError(f"{folder}: the tokenizer lacks {missing}: not an InternVL-Chat folder")
    tokenizer = _fast(model, added)
    _verify(tokenizer, sentencepiece.SentencePieceProcessor(str(path)), path)
    names = {content: number for number, content in added.items()}
    config = _optional(folder / "tokenizer_config.json")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=sorted(set(names) - {"<s>", "</s>", "<unk>"}, key=names.__getitem__),
        model_specific_special_tokens=IMAGE,
        model_max_length=config.get("model_max_length", 8192),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def added_tokens(folder: Path, pieces: int) -> dict[int, str]:
    """Special tokens of a published folder: id -> content.

    Args:
        folder: The published folder.
        pieces: Size of the sentencepiece vocabulary; ids beyond it must follow without gap.

    Raises:
        DataError: nothing found, or ids with gaps.
    """
    rows = _optional(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    added = {int(number): row["content"] for number, row in rows.items()}
    for content, number in _optional(folder / "added_tokens.json").items():
        added.setdefault(number, content)
    added = {0: "<unk>", 1: "<s>", 2: "</s>"} | added
    beyond = sorted(n for n in added if n >= pieces)
    if not beyond or beyond != list(range(pieces, pieces + len(beyond))):
        raise DataError(f"{folder}: added tokens do not follow the {pieces} pieces: {beyond}")
    return dict(sorted(added.items()))


def _fast(model: Any, added: dict[int, str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
    from tokenizers.models import BPE

    spec = model.normalizer_spec
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    vocab = {
        added.get(i, text): i for i, (text, _, kind) in enumerate(pieces) if _kept(i, kind, added)
    }
    scores = {text: score for text, score, kind in pieces if kind in (_NORMAL, _USER)}
    # Pieces without merges are never produced, but keep their ids: tokens beyond the vocabulary
    # get the next free one, which must not lie in a hole.
    tokenizer = Tokenizer(
        BPE(vocab=vocab, merges=_merges(scores), unk_token="<unk>", fuse_unk=True,
            byte_fallback=True)
    )  # fmt: skip
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(_runs(), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    decode = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if spec.add_dummy_prefix:
        decode.append(decoders.Strip(" ", left=1))
    tokenizer.decoder = decoders.Sequence(decode)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    user = [text for i, (text, _, kind) in enumerate(pieces) if kind == _USER and i not in added]
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in user])
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in added.values()]
    )
    if wrong := [t for n, t in added.items() if tokenizer.token_to_id(t) != n]:
        raise DataError(f"the tokenizer gives another id to {wrong[0]!r}")
    return tokenizer


def _kept(number: int, kind: int, added: dict[int, str]) -> bool:
    return number in added or kind in (_NORMAL, _UNKNOWN, _USER, _UNUSED, _BYTE)


def _runs() -> Any:
    from tokenizers import Regex

    return Regex(" {2,}")


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """All pairs of pieces that make a piece, best score first, as sentencepiece merges them."""
    pairs: list[tuple[float, str, str]] = []
    for text, score in scores.items():
        for cut in range(1, len(text)):
            if text[:cut] in scores and text[cut:] in scores:
                pairs.append((score, text[:cut], text[cut:]))
    pairs.sort(key=lambda pair: -pair[0])
    return [(left, right) for _, left, right in pairs]


def _verify(tokenizer: Any, reference: Any, path: Path) -> None:
    for text in _PROBES:
        want, got = reference.encode(text), tokenizer.encode(text, add_special_tokens=False).ids
        if want != got:
            at = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), -1)
            raise DataError(
                f"{path}: the fast tokenizer and sentencepiece disagree on {text!r} from token "
                f"{at} on ({want[at : at + 3]} against {got[at : at + 3]})"
            )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
