"""Names and shapes of the published AffectGPT and Video-LLaMA weight files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, out: int, inner: int, bias: bool = True) -> Shapes:
    """A linear layer: weight [out, inner], bias [out]."""
    shapes: Shapes = {f"{name}.weight": (out, inner)}
    return shapes | ({f"{name}.bias": (out,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    """A LayerNorm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def eva_layout(config: Any, blocks: int) -> Shapes:
    """The published names and shapes of the image tower file, with spare blocks."""
    c = config.vision_config
    d, m, p = c.hidden_size, c.intermediate_size, c.patch_size
    shapes = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, (c.image_size // p) ** 2 + 1, d),
        "patch_embed.proj.weight": (d, 3, p, p),
        "patch_embed.proj.bias": (d,),
    }
    for i in range(blocks):
        b = f"blocks.{i}"
        shapes |= norm(f"{b}.norm1", d) | norm(f"{b}.norm2", d)
        shapes |= {f"{b}.attn.q_bias": (d,), f"{b}.attn.v_bias": (d,)}
        shapes |= linear(f"{b}.attn.qkv", 3 * d, d, bias=False) | linear(f"{b}.attn.proj", d, d)
        shapes |= linear(f"{b}.mlp.fc1", m, d) | linear(f"{b}.mlp.fc2", d, m)
    return shapes


def qformer_layout(prefix: str, c: Any) -> Shapes:
    """A BERT-style Q-Former under a prefix, as LAVIS names it."""
    d, m = c.hidden_size, c.intermediate_size
    shapes = norm(f"{prefix}.bert.embeddings.LayerNorm", d)
    shapes[f"{prefix}.bert.embeddings.position_ids"] = (1, 512)
    for i in range(c.num_hidden_layers):
        layer = f"{prefix}.bert.encoder.layer.{i}"
        attentions = [("attention", d)]
        if i % c.cross_attention_frequency == 0:
            attentions.append(("crossattention", c.encoder_hidden_size))
        for name, inner in attentions:
            a = f"{layer}.{name}"
            shapes |= linear(f"{a}.self.query", d, d)
            shapes |= linear(f"{a}.self.key", d, inner) | linear(f"{a}.self.value", d, inner)
            shapes |= linear(f"{a}.output.dense", d, d) | norm(f"{a}.output.LayerNorm", d)
        shapes |= linear(f"{layer}.intermediate_query.dense", m, d)
        shapes |= linear(f"{layer}.output_query.dense", d, m)
        shapes |= norm(f"{layer}.output_query.LayerNorm", d)
    return shapes


def blip2_layout(config: Any) -> Shapes:
    """BLIP-2's image Q-Former."""
    c = config.image_qformer_config
    return (
        {"query_tokens": (1, c.num_query_tokens, c.hidden_size)}
        | qformer_layout("Qformer", c)
        | norm("ln_vision", config.vision_config.hidden_size)
        | linear("t5_proj", 24, c.hidden_size)
    )


def imagebind_layout(config: Any) -> Shapes:
    """ImageBind: its audio half and one tensor of another modality."""
    c = config.audio_config
    d, m = c.hidden_size, c.intermediate_size
    pre, trunk = "modality_preprocessors.audio", "modality_trunks.audio.blocks"
    rows, columns = c.patch_grid
    shapes = {
        f"{pre}.cls_token": (1, 1, d),
        f"{pre}.rgbt_stem.proj.weight": (d, 1, c.kernel_size, c.kernel_size),
        f"{pre}.pos_embedding_helper.pos_embed": (1, 1 + rows * columns, d),
        "modality_heads.audio.2.weight": (c.output_size, d),
        "modality_postprocessors.audio.1.log_logit_scale": (),
        "modality_heads.vision.2.weight": (5, 5),
    }
    shapes |= norm(f"{pre}.rgbt_stem.norm_layer", d) | norm("modality_heads.audio.0", d)
    for i in range(c.num_hidden_layers):
        b = f"{trunk}.{i}"
        shapes |= {f"{b}.attn.in_proj_weight": (3 * d, d), f"{b}.attn.in_proj_bias": (3 * d,)}
        shapes |= {f"{b}.attn.bias_k": (1, 1, d), f"{b}.attn.bias_v": (1, 1, d)}
        shapes |= linear(f"{b}.attn.out_proj", d, d)
        shapes |= norm(f"{b}.norm_1", d) | norm(f"{b}.norm_2", d)
        shapes |= linear(f"{b}.mlp.fc1", m, d) | linear(f"{b}.mlp.fc2", d, m)
    return shapes


def branch_layout(config: Any, branch: str) -> Shapes:
    """The video or the audio branch of Video-LLaMA."""
    c = getattr(config, f"{branch}_qformer_config")
    position, projection, rows = {
        "video": ("video_frame_position_embedding", "llama_proj", config.max_frames),
        "audio": ("audio_position_embedding", "audio_llama_proj", config.max_clips),
    }[branch]
    return (
        {f"{branch}_query_tokens": (1, c.num_query_tokens, c.hidden_size)}
        | {f"{position}.weight": (rows, c.encoder_hidden_size)}
        | qformer_layout(f"{branch}_Qformer", c)
        | linear(projection, config.text_config.hidden_size, c.hidden_size)
    )


def layouts(config: Any, blocks: int) -> dict[str, Shapes]:
    """All five files: kind -> names and shapes; ``blocks`` of the image tower."""
    return {
        "eva": eva_layout(config, blocks),
        "blip2": blip2_layout(config),
        "imagebind": imagebind_layout(config),
        "video": branch_layout(config, "video"),
        "audio": branch_layout(config, "audio"),
    }


#: File names of the publication, by kind.
FILES = {
    "eva": "eva_vit_g.pth",
    "blip2": "blip2_pretrained_flant5xxl.pth",
    "imagebind": "imagebind_huge.pth",
    "video": "finetune-vicuna7b-v2.pth",
    "audio": "finetune_vicuna7b_audiobranch.pth",
}


def small_config() -> Any:
    """AffectGPT's configuration of 2024 with small widths and depths.

    Image and patch size, spectrogram, queries and positions stay as published.
    """
    from emolib.models.affectgpt import AffectGPTConfig
    from emolib.rehearsal.published import LAYERS, WIDTH

    blocks = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
    }
    read = blocks | {"encoder_hidden_size": WIDTH}
    whole = AffectGPTConfig()
    return AffectGPTConfig(
        vision_config=blocks,
        image_qformer_config=read
        | {"cross_attention_frequency": whole.image_qformer_config.cross_attention_frequency},
        video_qformer_config=read | {"cross_attention_frequency": 1},
        audio_config=blocks | {"output_size": WIDTH},
        audio_qformer_config=read | {"cross_attention_frequency": 1},
    )


def write_part(kind: str, path: Path) -> None:
    """Write one published ``.pth`` file at small size: random half-precision tensors.

    Args:
        kind: A key of :data:`FILES`.
        path: The file.
    """
    import torch

    config = small_config()
    config.text_config.hidden_size = _llm_config()["hidden_size"]
    generator = torch.Generator().manual_seed(0)
    shapes = layouts(config, config.vision_config.num_hidden_layers + 1)[kind]
    state = {
        key: (0.2 * torch.randn(shape, generator=generator)).half()
        for key, shape in shapes.items()
        if not key.endswith("position_ids")
    }
    if kind == "imagebind":
        state["modality_postprocessors.audio.1.log_logit_scale"] = torch.tensor(20.0).log()
    path.parent.mkdir(parents=True, exist_ok=True)
    bare = kind in ("eva", "imagebind")
    torch.save(state if bare else {"model": state, "epoch": 3}, path)


def _llm_config() -> dict[str, Any]:
    from emolib.rehearsal.published import entry_of, shrink

    known = entry_of("lmsys/vicuna-7b-v1.5")
    assert known is not None
    config = shrink(known[1]["config"])
    # v0 is LLaMA-7B of 2023 with a row for [PAD].
    return config | {
        "vocab_size": 32_001,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "float16",
    }


def write_vicuna(folder: Path) -> None:
    """Write a Vicuna-7B v0 folder at small size: two ``.bin`` files, SentencePiece tokenizer."""
    import json

    import torch
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoConfig, AutoModelForCausalLM

    from emolib.engines.tiny_parts import random_model
    from emolib.files import write_json
    from emolib.rehearsal.internvl_files import sentencepiece_model
    from emolib.rehearsal.speech import piece_ids, teach_model
    from emolib.rehearsal.words import PIECES

    config = _llm_config()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    pieces = sentencepiece_model(True, config["vocab_size"] - 1, tuple(PIECES))
    (folder / "tokenizer.model").write_bytes(pieces)
    settings = {"tokenizer_class": "LlamaTokenizer", "model_max_length": 2048}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", {})
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": config["vocab_size"] - 1}))
    parsed = AutoConfig.from_pretrained(folder, local_files_only=True)
    model = random_model(lambda: AutoModelForCausalLM.from_config(parsed), 0, embedding=0.3)
    words = SentencePieceProcessor(model_proto=pieces)
    ids = {words.id_to_piece(number): number for number in range(len(words))}
    starts = [ids[t] for t in (":", "▁", "<0x3A>", "<0x0A>") if t in ids]
    teach_model(model, piece_ids(ids, lambda text: text.replace(" ", "▁")), starts, ids["</s>"])
    state = model.half().state_dict()
    names = sorted(state)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: state[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    write_json(folder / "pytorch_model.bin.index.json", index)
