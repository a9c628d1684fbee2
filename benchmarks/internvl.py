"""How fast converted InternVL runs: answers one by one and in batches, and a LoRA step.

Random weights are made on the device, so no checkpoint is needed; speed does not depend on
their values. On two CPU cores, in half a minute::

    python benchmarks/internvl.py

V1.5 at full size (26B, bfloat16; 52 GB of weights, some 80 GB with the LoRA step)::

    python benchmarks/internvl.py --size 26b --device cuda --dtype bfloat16 --attention sdpa \
        --frames 6 --words 300 --new-tokens 128 --batch 8 \
        --out outputs/record/internvl_benchmark_26b.json

MFU is the arithmetic the model needs, over what the device could do in the time: two
operations a weight and token forward, two more backward through the language model's frozen
weights (their own gradients are not needed), and attention's products; recomputation by
gradient checkpointing is not counted. Clocks stop after the device has finished.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from emolib.models.internvl import settings

_VIT_6B = {
    "qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm", "patch_size": 14,
    "layer_norm_eps": 1e-6,
}  # fmt: skip
_INTERNLM2 = {
    "architectures": ["InternLM2ForCausalLM"], "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5, "rope_theta": 1_000_000,
}  # fmt: skip
# Published configurations: 26b is V1.5's towers, InternViT-6B-448px-V1-5 and internlm2-chat-20b.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "force_image_size": 56,
        "vision_config": _VIT_6B | {
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 128, "image_size": 56,
        },
        "llm_config": _INTERNLM2 | {
            "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8,
            "num_key_value_heads": 2, "intermediate_size": 256, "vocab_size": 1024,
        },
    },
    "26b": {
        "force_image_size": 448,
        "vision_config": _VIT_6B | {
            "hidden_size": 3200, "num_hidden_layers": 45, "num_attention_heads": 25,
            "intermediate_size": 12800, "image_size": 448,
        },
        "llm_config": _INTERNLM2 | {
            "hidden_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 48,
            "num_key_value_heads": 8, "intermediate_size": 16384, "vocab_size": 92553,
            "rope_scaling": {"factor": 3.0, "type": "dynamic"},
        },
    },
}  # fmt: skip
# Dense bfloat16 operations a second, from the makers' data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A800": 312e12}
IMAGE_TOKEN = 7
NO_GPU = "No GPU was available. These figures check the benchmark; they say nothing about one."


def build(size: str, device: str, dtype: torch.dtype, attention: str) -> Any:
    """Make the model with random weights where it runs; no second copy exists anywhere."""
    config = InternVLConfig(**settings.native(SIZES[size], IMAGE_TOKEN))
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config).to(dtype)
    model = model.to_empty(device=device)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.02)
    # buffers are not kept by to_empty: rotary frequencies are computed again, in float32
    model.model.language_model.rotary_emb = LlamaRotaryEmbedding(config.text_config).to(device)
    model.generation_config.pad_token_id = 2
    model.set_attn_implementation(attention)
    return model.eval()


def sample(model: Any, batch: int, frames: int, words: int) -> dict[str, torch.Tensor]:
    """One batch: six frames of one tile each and random words, as ids and pixels."""
    config, device = model.config, model.device
    generator = torch.Generator().manual_seed(0)
    low, high = IMAGE_TOKEN + 1, config.text_config.vocab_size
    text = torch.randint(low, high, (batch, words), generator=generator)
    image = torch.full((batch, frames * config.image_seq_length), IMAGE_TOKEN)
    ids = torch.cat([image, text], dim=1).to(device)
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if frames:
        side = config.vision_config.image_size[0]
        shape = (batch * frames, 3, side, side)
        made["pixel_values"] = torch.randn(shape, generator=generator).to(device, model.dtype)
    return made


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of ``work`` after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        _wait()
        start = time.perf_counter()
        work()
        _wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forward_flops(model: Any, batch: int, frames: int, tokens: int) -> tuple[float, float]:
    """Operations of one forward pass: (vision tower and projector, language model)."""
    vision, text = model.config.vision_config, model.config.text_config

    def linear(module: Any) -> int:
        return sum(w.numel() for n, w in module.named_parameters() if w.ndim > 1
                   and "embed" not in n and "lora_" not in n)  # fmt: skip

    patches = (vision.image_size[0] // vision.patch_size[0]) ** 2 + 1
    seen = batch * frames * patches
    vit = 2 * linear(model.model.vision_tower) * seen
    vit += 4 * vision.num_hidden_layers * vision.hidden_size * seen * patches
    image_tokens = batch * frames * model.config.image_seq_length
    vit += 2 * linear(model.model.multi_modal_projector) * image_tokens
    llm = 2.0 * (linear(model.model.language_model) + model.lm_head.weight.numel())
    llm *= batch * tokens
    # a causal token looks at half of the others on average
    llm += 2 * text.num_hidden_layers * text.hidden_size * batch * tokens * tokens
    return float(vit), float(llm)


def answers(model: Any, args: argparse.Namespace, batch: int, peak: float | None) -> dict[str, Any]:
    """Greedy answers of fixed length to ``batch`` clips at once."""
    given = sample(model, batch, args.frames, args.words)
    length = {"max_new_tokens": args.new_tokens, "min_new_tokens": args.new_tokens}
    with torch.inference_mode():
        whole = seconds(lambda: model.generate(**given, **length, do_sample=False), args.repeats)
        read = seconds(lambda: model(**given, logits_to_keep=1), args.repeats)
    tokens = given["input_ids"].shape[1]
    work = sum(forward_flops(model, batch, args.frames, tokens))
    return {
        "clips": batch,
        "prompt_tokens": tokens,
        "clips_per_s": batch / whole,
        "new_tokens_per_s": batch * args.new_tokens / whole,
        "prompt_s": read,
        "prompt_mfu": work / read / peak if peak else None,
    }


def lora_step(model: Any, args: argparse.Namespace, peak: float | None) -> dict[str, Any]:
    """One optimiser step on one clip: LoRA on the language model, tower frozen."""
    from peft import LoraConfig, get_peft_model

    targets = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
    tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, target_modules=targets))
    tuned.enable_input_require_grads()
    tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tuned.train()
    trained = [w for w in tuned.parameters() if w.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    given = sample(model, 1, args.frames, args.words + args.new_tokens)
    labels = given["input_ids"].clone()
    labels[:, : -args.new_tokens] = -100

    def step() -> None:
        tuned(**given, labels=labels, use_cache=False).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    took = seconds(step, args.repeats)
    tokens = given["input_ids"].shape[1]
    vision, text = forward_flops(model, 1, args.frames, tokens)
    return {
        "tokens": tokens,
        "step_s": took,
        "tokens_per_s": tokens / took,
        "trained_parameters": sum(w.numel() for w in trained),
        "mfu": (vision + 2 * text) / took / peak if peak else None,
    }


def main() -> None:
    """Measure and print one JSON record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention", choices=("eager", "sdpa"), default="sdpa")
    parser.add_argument("--frames", type=int, default=6, help="frames of a clip, one tile each")
    parser.add_argument("--words", type=int, default=64, help="text tokens of a prompt")
    parser.add_argument("--new-tokens", type=int, default=16, help="length of every answer")
    parser.add_argument("--batch", type=int, default=8, help="clips answered at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the record to this file")
    args = parser.parse_args()

    start = time.perf_counter()
    model = build(args.size, args.device, getattr(torch, args.dtype), args.attention)
    _wait()
    cuda = model.device.type == "cuda"
    device = torch.cuda.get_device_name() if cuda else platform.processor() or "cpu"
    peak = next((p for name, p in PEAK.items() if name in device), None)
    record: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/internvl.py", *sys.argv[1:]]),
        "note": "" if cuda else NO_GPU,
        "settings": {k: v for k, v in vars(args).items() if k != "out"},
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "parameters": sum(w.numel() for w in model.parameters()),
        "build_s": time.perf_counter() - start,
        "one_by_one": answers(model, args, 1, peak),
        "batched": answers(model, args, args.batch, peak),
    }
    record["batched_speedup"] = (
        record["batched"]["clips_per_s"] / record["one_by_one"]["clips_per_s"]
    )
    record["lora_step"] = lora_step(model, args, peak)
    record["peak_memory_bytes"] = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    )
    text = json.dumps(record, indent=2)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
