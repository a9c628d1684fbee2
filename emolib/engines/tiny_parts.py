"""What tiny checkpoints are made of: tokenizers, processors, random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from emolib import prompts

IMAGE_SIZE = 56  # px; patches of 14, so 16 patches an image
PATCH = 14
HIDDEN = 64
_MERGES = 1024
CONTEXT = 4096  # longest sequence in tokens

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


def internvl_processor(
    image_size: int,
    visual_tokens: int,
    max_tiles: int,
    context: int | None = CONTEXT,
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


def llama_sizes(tokenizer: Any) -> dict[str, object]:
    """A language model of some 200,000 weights over a tokenizer's vocabulary."""
    return {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
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
    from transformers import PreTrainedTokenizerFast

    texts = [p.template for p in prompts.ALL.values()] + [*_ANSWERS, *more]
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(texts, special, merges),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=special,
        **names,
    )


def train_bpe(texts: Iterable[str], special: list[str], merges: int) -> Any:
    """Train a byte-level BPE, which every Unicode text passes unchanged.

    Args:
        texts: What it should write in few tokens.
        special: Special tokens; they come first.
        merges: Most pairs that become tokens.

    Returns:
        A ``tokenizers.Tokenizer``.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(special) + merges,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


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
