"""Complete checkpoints of real architectures with a few hundred thousand random weights.

They load through the same code as the published models (config, tokenizer, processor, chat
template, generation config, safetensors), so tests and the demo run every stage on a CPU in
seconds. What they answer means nothing until they are trained.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from emolib import prompts
from emolib.errors import ParamsError

IMAGE_SIZE = 56  # px; patches of 14, so 16 patches an image
_PATCH = 14
_HIDDEN = 64
_MERGES = 1024
_CONTEXT = 4096  # longest sequence in tokens

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
USER_ASSISTANT = (
    "{% for message in messages %}"
    "{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '\n' if message['role'] == 'user' else '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

# What a small tokenizer should be able to write in few tokens, beside the prompts.
_ANSWERS = (
    'The person in the picture smiles with raised cheeks. ["happy", "joyful", "excited"]',
    'The person frowns and looks down, the voice is low. ["sad", "disappointed", "helpless"]',
    'The eyebrows are lowered and the lips are pressed. ["angry", "annoyed", "dissatisfied"]',
    'The eyes are wide open and the mouth is open. ["surprised", "shocked", "curious"]',
    'The gaze wanders and the body draws back. ["worried", "anxious", "nervous", "afraid"]',
    'The face is calm and relaxed. ["neutral", "calm", "serious", "doubtful", "disgusted"]',
    "0.0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1.0",
)


def build_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """Write one tiny checkpoint; takes about a second once torch is imported.

    Args:
        family: "internvl" (``InternVLForConditionalGeneration``: InternViT, pixel shuffle,
            Llama; 4 visual tokens a tile), "llava" (``LlavaForConditionalGeneration``:
            CLIP, Llama; 16 visual tokens an image), "qwen2audio"
            (:mod:`emolib.engines.tiny_audio`), "affectgpt" or "affectgpt2025"
            (:mod:`emolib.models.affectgpt.tiny`).
        folder: Where the checkpoint goes. It appears complete or not at all.
        seed: Seed of the weights; same seed, same bytes.

    Returns:
        ``folder``.

    Raises:
        ParamsError: ``family`` is not known.
        FileExistsError: ``folder`` exists.
    """
    if family not in FAMILIES:
        raise ParamsError(f"tiny model {family!r} is not known; choose from {sorted(FAMILIES)}")
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a checkpoint is never overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        FAMILIES[family](draft, seed)
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def tiny_folder(family: str, cache: Path, seed: int = 0) -> Path:
    """Return the tiny checkpoint of ``family`` under ``cache``, building it on first use.

    The folder's name carries a hash of this module and of the prompts, so a changed recipe
    is built anew. Several processes may ask at once.
    """
    if family not in FAMILIES:
        raise ParamsError(f"tiny model {family!r} is not known; choose from {sorted(FAMILIES)}")
    recipe = Path(__file__).read_bytes() + Path(prompts.__file__).read_bytes()
    if family.startswith("affectgpt"):
        from emolib.models.affectgpt import tiny

        recipe += Path(tiny.__file__).read_bytes()
    if family == "qwen2audio":
        from emolib.engines import tiny_audio

        recipe += Path(tiny_audio.__file__).read_bytes()
    folder = Path(cache) / f"tiny-{family}-{seed}-{hashlib.sha256(recipe).hexdigest()[:7]}"
    if not folder.is_dir():
        try:
            build_tiny(family, folder, seed)
        except OSError:  # another process was faster: rename onto a non-empty folder fails
            if not folder.is_dir():
                raise
    return folder


def internvl_processor(
    image_size: int,
    visual_tokens: int,
    max_tiles: int,
    context: int | None = _CONTEXT,
    **words: Any,
) -> tuple[Any, Any]:
    """Make a processor as InternVL's, with its small tokenizer.

    Args:
        image_size: Side of a tile, px.
        visual_tokens: Tokens of a tile.
        max_tiles: Most tiles of an image.
        context: Longest sequence in tokens; None = the tokenizer sets no limit.
        words: ``more`` and ``merges`` of :func:`train_tokenizer`.

    Returns:
        Processor and tokenizer.
    """
    from transformers import (
        GotOcr2ImageProcessorPil,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer = train_tokenizer(
        [
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<img>",
            "</img>",
            "<IMG_CONTEXT>",
            "<video>",
        ],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        chat_template=CHATML,
        **words,
    )
    if context is not None:
        tokenizer.model_max_length = context
    pixels = {
        "size": {"height": image_size, "width": image_size},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            **pixels, crop_to_patches=True, min_patches=1, max_patches=max_tiles
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**pixels),
        image_seq_length=visual_tokens,
        chat_template=CHATML,
    )
    return processor, tokenizer


def _internvl(folder: Path, seed: int) -> None:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    visual_tokens = (IMAGE_SIZE // _PATCH) ** 2 // 4
    processor, tokenizer = internvl_processor(IMAGE_SIZE, visual_tokens, 1)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": [IMAGE_SIZE, IMAGE_SIZE],
            "patch_size": [_PATCH, _PATCH],
            "norm_type": "rms_norm",  # the 6B tower of V1.5
            "use_qk_norm": True,
            "layer_scale_init_value": 1.0,
            "use_mean_pooling": True,
        },
        text_config=llama_sizes(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=visual_tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    save_random(InternVLForConditionalGeneration, config, processor, tokenizer, folder, seed)


def llava_processor(
    image_size: int, patch: int, pixels: Mapping[str, Any] | None = None, **words: Any
) -> tuple[Any, Any]:
    """Make a processor as LLaVA's, with its small tokenizer.

    Args:
        image_size: Side of a picture, px.
        patch: Side of a patch, px.
        pixels: Further settings of the image processor: ``image_mean``, ``image_std``.
        words: ``more`` and ``merges`` of :func:`train_tokenizer`.

    Returns:
        Processor and tokenizer.
    """
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    tokenizer = train_tokenizer(
        ["<unk>", "<s>", "</s>", "<pad>", "<image>"],
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=USER_ASSISTANT,
        **words,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": image_size},
            crop_size={"height": image_size, "width": image_size},
            **(pixels or {}),
        ),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=USER_ASSISTANT,
    )
    return processor, tokenizer


def _llava(folder: Path, seed: int) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    processor, tokenizer = llava_processor(IMAGE_SIZE, _PATCH)
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": IMAGE_SIZE,
            "patch_size": _PATCH,
            "projection_dim": 32,
        },
        text_config=llama_sizes(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    save_random(LlavaForConditionalGeneration, config, processor, tokenizer, folder, seed)


def _qwen2audio(folder: Path, seed: int) -> None:
    from emolib.engines.tiny_audio import build

    build(folder, seed)


def _affectgpt(folder: Path, seed: int) -> None:
    from emolib.models.affectgpt.tiny import build

    build(folder, seed)


def _affectgpt_2025(folder: Path, seed: int) -> None:
    from emolib.models.affectgpt.tiny import build_2025

    build_2025(folder, seed)


FAMILIES: dict[str, Callable[[Path, int], None]] = {
    "internvl": _internvl,
    "llava": _llava,
    "qwen2audio": _qwen2audio,
    "affectgpt": _affectgpt,
    "affectgpt2025": _affectgpt_2025,
}


def llama_sizes(tokenizer: Any) -> dict[str, object]:
    """A language model of some 200,000 weights over a tokenizer's vocabulary."""
    return {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": _CONTEXT,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def train_tokenizer(
    special: list[str], more: Iterable[str] = (), merges: int = _MERGES, **names: Any
) -> Any:
    """Byte-level BPE over the project's own prompts: every Unicode text round-trips.

    Args:
        special: Special tokens; they come first.
        more: Further texts it should write in few tokens.
        merges: Most pairs that become tokens.
        **names: For ``PreTrainedTokenizerFast``.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(special) + merges,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [p.template for p in prompts.ALL.values()] + [*_ANSWERS, *more]
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=special,
        **names,
    )


def random_model(build: Callable[[], Any], seed: int, embedding: float = 0.5) -> Any:
    """Build a model and draw its weights; same seed, same weights.

    Args:
        build: Makes the model.
        seed: Of the weights.
        embedding: Standard deviation of embeddings.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build().to(torch.float32)
        # Wider than a fresh model's 0.02, so that the answer depends on image and words.
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim > 1:
                std = embedding if "embed" in name else weight[0].numel() ** -0.5
                weight.normal_(0.0, std)
    return model


def save_random(
    architecture: Any,
    config: Any,
    processor: Any,
    tokenizer: Any,
    folder: Path,
    seed: int,
    embedding: float = 0.5,
) -> None:
    """Write a model of random weights with its processor; same seed, same weights.

    Args:
        architecture: Class of the model.
        config: Its configuration.
        processor: Written beside it.
        tokenizer: For the generation settings.
        folder: Where.
        seed: Of the weights.
        embedding: Standard deviation of embeddings: the less, the more a token's neighbours say.
    """
    from transformers import GenerationConfig

    model = random_model(lambda: architecture(config), seed, embedding)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
