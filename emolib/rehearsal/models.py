"""Stand-ins of published models: architecture, files and tokens as published, small inside."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emolib import prompts
from emolib.assets import STAND_IN
from emolib.errors import EmolibError
from emolib.files import write_json
from emolib.rehearsal import words
from emolib.rehearsal.published import dtype_of, entry_of, shrink
from emolib.rehearsal.speech import piece_ids, teach, teach_model

_NOTES = ("note", "read_from", "_note", "template_stop", "llm_eos_token_id", "_from_model_config")
Entry = Mapping[str, Any]


class NotKnown(EmolibError):
    """Too little of a publication is known to make a stand-in of it."""


def build(name: str, folder: Path) -> Path:
    """Write the stand-in of a published model.

    Args:
        name: Hub id, or the last part of one.
        folder: New folder, or for an openai-whisper checkpoint the ``.pt`` file. It appears
            complete or not at all.

    Returns:
        ``folder``.

    Raises:
        NotKnown: no published configuration is recorded, or no builder for its kind.
        FileExistsError: ``folder`` exists.
    """
    found = entry_of(name)
    if found is None:
        raise NotKnown(f"{name}: no published configuration is recorded")
    hub_id, entry = found
    kind = entry["config"].get("model_type", "")
    builder = _remote_code if entry["needs_remote_code"] else _BUILDERS.get(kind)
    if kind == "internvl_chat" and "reference_towers" in entry:
        builder = _internvl_chat
    if builder is None:
        raise NotKnown(f"{hub_id}: no stand-in is made of model type {kind!r}")
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a stand-in is never written over something")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        builder(draft, entry)
        mark(draft, hub_id, entry.get("missing", ()))
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def mark(folder: Path, name: str, unknown: Sequence[str] = (), **more: Any) -> None:
    """Write the marker that says whose stand-in a folder is."""
    text = {
        "stand_in_for": name,
        "made_by": "emolib rehearse",
        "weights": "random, small widths and depths; answers mean nothing",
        "not_known_of_the_publication": list(unknown),
    }
    write_json(folder / STAND_IN, text | more)


# Parts all have in common -------------------------------------------------------------------


def _texts() -> list[str]:
    return [prompt.template for prompt in prompts.ALL.values()]


def _make(
    folder: Path,
    config: dict[str, Any],
    *,
    silent: bool = False,
    tied: bool | None = None,
    architecture: str = "",
    shards: int = 2,
) -> tuple[Any, Any]:
    """Build the model that a config.json describes, with random weights.

    Args:
        folder: Gets config.json.
        config: As published, with small sizes.
        silent: Leave parts that generate sound out (``enable_audio_output``).
        tied: Whether output layer and embeddings are one; None = as the configuration says.
        architecture: Class; "" = the configuration's.
        shards: Files the weights are divided into.

    Returns:
        The model (float32), and a function that saves it in its published weight type.
    """
    import transformers

    from emolib.engines.tiny_parts import random_model

    write_json(folder / "config.json", config)
    parsed = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if silent:
        parsed.enable_audio_output = False
    if tied is not None:
        parsed.tie_word_embeddings = tied
        if parsed.get_text_config() is not parsed:
            parsed.get_text_config().tie_word_embeddings = tied
    kind = getattr(transformers, architecture or config["architectures"][0])
    model = random_model(lambda: kind(parsed), 0, embedding=0.3)

    def save(default_dtype: str = "bfloat16") -> None:
        import torch

        dtype = getattr(torch, dtype_of(config, default_dtype))
        size = sum(p.numel() for p in model.parameters()) * dtype.itemsize
        model.to(dtype).save_pretrained(folder, max_shard_size=-(-size // shards) + 1024)
        write_json(folder / "config.json", config)  # as published, not as this library writes it

    return model, save


def _generation(folder: Path, entry: Entry, *drop: str) -> None:
    given = {k: v for k, v in (entry.get("generation") or {}).items() if k not in _NOTES + drop}
    write_json(folder / "generation_config.json", given)


def _speaks(model: Any, tokenizer: Any, starts: tuple[str, ...] = ("\n", "\n\n", ":", " ")) -> None:
    vocabulary = tokenizer.get_vocab()
    starting = [vocabulary[w] for s in starts if (w := words.byte_level(s)) in vocabulary]
    pieces = piece_ids(vocabulary, words.byte_level)
    teach_model(model, pieces, starting, vocabulary["<|im_end|>"])


def _added(entry: Entry) -> dict[int, str]:
    """Special tokens of an entry that lists all of them: id -> token."""
    return {number: token for token, number in entry["tokenizer"]["added_tokens"].items()}


# One function a model type ------------------------------------------------------------------


def _causal(folder: Path, entry: Entry) -> None:
    """Qwen2.5 and Qwen3, texts alone."""
    config = shrink(entry["config"])
    further = words.QWEN3 if config["model_type"] == "qwen3" else ()
    tokenizer = words.qwen_tokenizer(_texts(), words.qwen_tokens(*further))
    model, save = _make(folder, config)
    _speaks(model, tokenizer)
    save()
    words.save_qwen(tokenizer, folder)
    _generation(folder, entry)


def _bloom(folder: Path, entry: Entry) -> None:
    config = shrink(entry["config"]) | {"hidden_size": 32, "n_head": 2, "n_layer": 2}
    marks = ("<unk>", "<s>", "</s>", "<pad>")
    tokenizer = words.byte_bpe(
        _texts(),
        {},
        marks,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
    )
    _, save = _make(folder, config)
    save("float16")
    tokenizer.save_pretrained(folder)
    _tokenizer_class(folder, "BloomTokenizerFast")


def _tokenizer_class(folder: Path, name: str) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    write_json(file, settings | {"tokenizer_class": name})


def _internvl(folder: Path, entry: Entry) -> None:
    """InternVL3 and 3.5 in the native layout, with Qwen's tokenizer and eight more tokens."""
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    config = shrink(entry["config"])
    context = config["image_token_id"]
    if "added_tokens" in entry["tokenizer"]:
        special = _added(entry)
    else:
        tail = [
            "<img>",
            "</img>",
            "<IMG_CONTEXT>",
            "<quad>",
            "</quad>",
            "<ref>",
            "</ref>",
            "<box>",
            "</box>",
            "<video>",
        ]
        special = words.qwen_tokens(*words.QWEN3)
        special |= {context - 2 + i: token for i, token in enumerate(tail)}
    marks = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = words.qwen_tokenizer(_texts(), special, extra_special_tokens=marks)
    keys = ("size", "resample", "image_mean", "image_std", "crop_to_patches", "min_patches")
    given = entry["preprocessor"]
    images = {key: given[key] for key in (*keys, "max_patches") if key in given}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**images),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=config["image_seq_length"],
        chat_template=tokenizer.chat_template,
    )
    files = (entry.get("files") or {}).get("weights", {})
    model, save = _make(folder, config, tied=False, shards=len(files) or 2)
    _speaks(model, tokenizer)
    save()
    processor.save_pretrained(folder)
    words.save_qwen(tokenizer, folder)
    _generation(folder, entry)


def _qwen3_vl(folder: Path, entry: Entry) -> None:
    config = shrink(entry["config"])
    tokenizer = words.qwen_tokenizer(_texts(), words.qwen_tokens(*words.QWEN3), words.VISION_CHATML)
    model, save = _make(folder, config)
    _speaks(model, tokenizer)
    save()
    words.save_qwen(tokenizer, folder)
    given = entry["preprocessor"]
    write_json(folder / "preprocessor_config.json", given["image"])
    write_json(folder / "video_preprocessor_config.json", given["video"])
    _generation(folder, entry)


def _qwen2_audio(folder: Path, entry: Entry) -> None:
    config = shrink(entry["config"])
    special = {
        **{151_643 + i: token for i, token in enumerate(words.QWEN[:3])},
        **{151_646: "<|AUDIO|>", 151_647: "<|audio_bos|>", 151_648: "<|audio_eos|>"},
    }
    tokenizer = words.qwen_tokenizer(_texts(), special, words.AUDIO_CHATML)
    model, save = _make(folder, config)
    _speaks(model, tokenizer)
    save()
    words.save_qwen(tokenizer, folder)
    write_json(folder / "preprocessor_config.json", entry["preprocessor"])
    _generation(folder, entry)


def _omni(folder: Path, entry: Entry) -> None:
    """Qwen2.5-Omni and Qwen3-Omni: the thinker alone, for the voice is never loaded here."""
    import torch

    config = shrink(entry["config"])
    third = config["model_type"] == "qwen3_omni_moe"
    text = config["thinker_config"]["text_config"]
    if third:
        special = words.qwen_tokens(*words.QWEN3, *words.OMNI3)
        special |= {151_675: "<|audio_pad|>"}
        names = words.OMNI3_NAMES
    else:
        special, names = _added(entry), words.OMNI2_NAMES
    tokenizer = words.qwen_tokenizer(
        _texts(), special, words.VISION_CHATML, extra_special_tokens=names
    )
    text.pop("pad_token_id", None)
    model, save = _make(folder, config, silent=True)
    _speaks(model.thinker, tokenizer)
    save()
    words.save_qwen(tokenizer, folder)
    settings = {k: v for k, v in entry["preprocessor"].items() if k not in _NOTES}
    write_json(folder / "preprocessor_config.json", words.OMNI3_PREPROCESSOR | settings
               if third else settings)  # fmt: skip
    if not third:
        torch.save({}, folder / "spk_dict.pt")  # voices; the class reads the file in any case
    _generation(folder, entry)


def _clip(folder: Path, entry: Entry) -> None:
    config = shrink(entry["config"])
    _, save = _make(folder, config, shards=1)
    save("float32")
    write_json(folder / "preprocessor_config.json", entry["preprocessor"])
    tokenizer = words.byte_bpe(_texts(), {}, ("<|startoftext|>", "<|endoftext|>"))
    tokenizer.save_pretrained(folder)


def _hubert(folder: Path, entry: Entry) -> None:
    import torch
    from transformers import Wav2Vec2FeatureExtractor

    config = shrink(entry["config"]) | {"num_hidden_layers": 5}  # the last four are averaged
    model, _ = _make(folder, config)
    # As published: one pickled file of 2022, with the names that weight normalization had then.
    then = {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        for new, old in then.items():
            name = name.replace(new, old)
        state[name] = tensor
    torch.save(state, folder / "pytorch_model.bin")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def _bert(folder: Path, entry: Entry) -> None:
    from transformers import BertTokenizerFast

    config = shrink(entry["config"])
    marks = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in (*range(33, 127), *range(0x4E00, 0x9000))]
    tail = [f"##{letter}" for letter in letters[:94]]
    rows = [*marks, *letters, *tail][: config["vocab_size"]]
    (folder / "vocab.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    _, save = _make(folder, config, shards=1)
    save("float32")


def _whisper(folder: Path, entry: Entry) -> None:
    """A folder with the checkpoint file that openai-whisper loads, ``<size>.pt``."""
    import torch
    import whisper

    from emolib.engines.tiny_parts import random_model

    config = entry["config"]
    dims = {
        "n_mels": config["num_mel_bins"],
        "n_audio_ctx": config["max_source_positions"],
        "n_audio_state": 64,
        "n_audio_head": 1,
        "n_audio_layer": 2,
        "n_vocab": config["vocab_size"],
        "n_text_ctx": config["max_target_positions"],
        "n_text_state": 64,
        "n_text_head": 1,
        "n_text_layer": 2,
    }
    model = random_model(lambda: whisper.Whisper(whisper.ModelDimensions(**dims)), 0)
    state = {key: tensor.half() for key, tensor in model.state_dict().items()}
    torch.save({"dims": dims, "model_state_dict": state}, folder / "checkpoint.pt")


def _remote_code(folder: Path, entry: Entry) -> None:
    """What asks for Python code of its own: its config.json says so, one number for weights."""
    import torch
    from safetensors.torch import save_file

    config = shrink(entry["config"])
    if not isinstance(config.get("auto_map"), dict):
        kind = config["architectures"][0]
        name = config["model_type"]
        config["auto_map"] = {
            "AutoConfig": f"configuration_{name}.{name}Config",
            "AutoModelForCausalLM": f"modeling_{name}.{kind}",
        }
    write_json(folder / "config.json", config)
    save_file({"stand_in": torch.zeros(1)}, folder / "model.safetensors")


def _internvl_chat(folder: Path, entry: Entry) -> None:
    """InternVL-Chat-V1.5 as published: to be put through ``emolib convert internvl``."""
    from emolib.rehearsal import internvl_files as files

    towers = entry["reference_towers"]
    vision, llm = shrink(towers["vision"]), shrink(towers["llm"])
    llm |= {"max_position_embeddings": 32_768, "rope_scaling": {"factor": 3.0, "type": "dynamic"}}
    llm |= {"num_key_value_heads": 1}
    size = {"vision": vision | {"initializer_factor": 0.1}, "llm": llm}
    vocabulary = towers["llm"]["vocab_size"]

    def speak(weights: dict[str, Any], pieces: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        words_of = SentencePieceProcessor(model_proto=pieces)
        ids = {words_of.id_to_piece(number): number for number in range(len(words_of))}
        for weight in weights.values():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                weight.mul_(3 * weight[0].numel() ** -0.5)  # was uniform, a unit wide
        out = [w for n, w in weights.items() if n.endswith((".wo.weight", ".w2.weight"))]
        embeddings = weights["language_model.model.tok_embeddings.weight"]
        head = weights["language_model.output.weight"]
        sentence = piece_ids(ids, lambda text: text.replace(" ", "▁"))
        teach(embeddings, head, out, sentence, [ids["<0x0A>"]], vocabulary - 11)

    files.write_source(folder, size, shards=2, pieces=vocabulary - 9, speak=speak)


_BUILDERS: dict[str, Callable[[Path, Entry], None]] = {
    "internvl": _internvl,
    "qwen3_vl": _qwen3_vl,
    "qwen2_audio": _qwen2_audio,
    "qwen2_5_omni": _omni,
    "qwen3_omni_moe": _omni,
    "qwen2": _causal,
    "qwen3": _causal,
    "bloom": _bloom,
    "clip": _clip,
    "hubert": _hubert,
    "bert": _bert,
    "whisper": _whisper,
}
