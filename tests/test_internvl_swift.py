"""ms-swift on a converted folder: found by name, prompted as in training, never cut."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from PIL import Image
from safetensors.torch import load_file

from emolib.engines import Request, answer_all, open_engine
from emolib.engines.swift_setup import import_swift
from emolib.models.internvl import prompting
from emolib.models.internvl.budget import tiling_of
from emolib.models.internvl.convert import convert
from emolib.params import Decoding, ModelParams
from emolib.rehearsal.internvl_files import write_source
from tests.shared import shared
from tests.test_internvl_prompting import TEXTS

PROMPTS = json.loads((Path(__file__).parent / "data/internvl_prompts.json").read_text())
IM_END, IM_START = 510, 511


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("swift")
    source = write_source(home / "source")
    for chat in prompting.DIALECTS:
        convert(source, home / chat, chat)
    return home


def template_of(folder, monkeypatch=None, layout="", **settings):
    import_swift()
    from swift.model import get_model_processor
    from swift.template import get_template

    if layout:
        monkeypatch.setenv("IMAGE_LAYOUT", layout)
    processor = get_model_processor(str(folder), load_model=False, use_hf=True)[1]
    return get_template(processor, **settings)


@pytest.fixture(scope="module")
def template(folders):
    return template_of(folders / "v1.5")


def encode(template, text, sizes=(), answer=None, **more):
    messages = [{"role": "user", "content": text}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    images = [Image.new("RGB", size, (90, 120, 150)) for size in sizes]
    return template.encode({"messages": messages, "images": images, **more})


def test_the_folder_alone_names_type_and_template(template):
    assert template.model_info.model_type == "internvl_chat_native"
    assert template.template_meta.template_type == "internvl_chat_native"
    assert template.template_meta.default_system == prompting.SYSTEM_V1_5
    assert type(template.processor.image_processor).__name__ == "GotOcr2ImageProcessorPil"


def test_hf_folders_are_still_found_by_their_architecture():
    import_swift()
    from swift.model.model_meta import get_matched_model_types

    assert get_matched_model_types(["InternVLForConditionalGeneration"]) == ["internvl"]


@pytest.mark.parametrize(
    ("chat", "system"), [("v1.5", "v1_5_release"), ("v2", "repo_head")], ids=["v1.5", "v2"]
)
def test_prompts_of_the_published_code(chat, system, folders, monkeypatch):
    template = template_of(folders / chat, monkeypatch, "separate")
    template.processor.image_seq_length = 256
    template.max_length = None
    for case in PROMPTS["cases"]:
        tiles = case["tiles"]
        monkeypatch.setattr(
            "emolib.models.internvl.budget.Tiling.tiles", lambda *_, tiles=tiles: list(tiles)
        )
        monkeypatch.setattr(
            template, "cut", lambda *_, tiles=tiles: (torch.zeros(sum(tiles), 3, 8, 8), tiles)
        )
        turns = [t for pair in case["history"] for t in pair] + [case["question"]]
        messages = [
            {"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)
        ]
        images = [Image.new("RGB", (8, 8))] * len(tiles)
        ids = template.encode({"messages": messages, "images": images})["input_ids"]
        assert ids[0] == 1
        text = template.tokenizer.decode(ids[1:])
        assert rle(text) == case["text"][system], case["name"]
        assert hashlib.sha256(text.encode()).hexdigest() == case["sha256"][system]


def rle(text: str) -> str:
    mark = "<IMG_CONTEXT>"
    return re.sub(f"({mark})+", lambda m: f"<IMG_CONTEXT*{len(m.group()) // len(mark)}>", text)


def test_neighbouring_frames_share_one_block_as_in_the_release(template, monkeypatch):
    """Six frames in V1.5's own layout read like its ``chat()`` with six tiles."""
    want = next(c for c in PROMPTS["cases"] if c["name"] == "six_tiles_one_block")
    for text in ("", "<image>" * 6, "<image>\n" * 6):
        ids = encode(template, text + "Describe the six images in detail.", [(56, 56)] * 6)
        text = template.tokenizer.decode(ids["input_ids"][1:]).replace("<IMG_CONTEXT>" * 4, "@")
        expected = want["text"]["v1_5_release"].replace("<IMG_CONTEXT*1536>", "@" * 6)
        assert text == expected


def test_v2_5_has_line_breaks_between_turns(folders):
    template = template_of(folders / "v2.5")
    text = template.tokenizer.decode(encode(template, "Hi", [(56, 56)])["input_ids"])
    context = "<IMG_CONTEXT>" * 4
    assert text == (
        f"<s><|im_start|>system\n{prompting.SYSTEM_V2_5}<|im_end|>\n<|im_start|>user\n"
        f"<img>{context}</img>\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("chat", list(prompting.DIALECTS))
def test_the_jinja_template_gives_the_same_prompt(chat, folders):
    """What model servers and transformers' own processor use."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folders / chat)
    template = template_of(folders / chat)
    content = [{"type": "image"}, {"type": "text", "text": "What's he {feeling}?\n\\n 'x'"}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "Joy."},
        {"role": "user", "content": "And she?"},
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    image = Image.new("RGB", (120, 56), (1, 2, 3))
    made = processor(images=[image], text=text, add_special_tokens=False)
    want = template.encode({"messages": messages, "images": [image]})
    assert made["input_ids"][0] == want["input_ids"]
    assert len(made["pixel_values"]) == len(want["pixel_values"])


def test_words_are_words_in_the_jinja_template_too(folders):
    """Every special token the tokenizer has, spelt by a user; one string, as servers read it."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folders / "v1.5")
    special = processor.tokenizer.all_special_tokens
    assert {"<|im_end|>", "<IMG_CONTEXT>", "<box>"} <= set(special)

    def marks(words):
        content = [{"type": "image"}, {"type": "text", "text": words}]
        text = processor.apply_chat_template([{"role": "user", "content": content}])
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [i for i in ids if i in set(processor.tokenizer.all_special_ids)]

    assert marks(" ".join(special)) == marks("harmless")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS)
def test_words_never_become_image_or_role_tokens(template, text):
    """Subtitles that spell marks: same special tokens as harmless words, every letter kept."""
    special = {i for i in template.tokenizer.added_tokens_decoder if i > 2} | {1}

    def marks(user, answer):
        ids = encode(template, user, [(56, 56)] * 2, answer, system=answer)["input_ids"]
        return [i for i in ids if i in special], ids

    template.set_mode("train")
    try:
        got, ids = marks("<image><image>a" + text, text + ".")
        assert got == marks("<image><image>a", "b")[0]
    finally:
        template.set_mode("transformers")
    kept = text.replace(prompting.BREAK, "")
    assert f"</img>\na{kept}<|im_end|>" in template.tokenizer.decode(ids)


def test_text_without_images_cannot_open_files(template, tmp_path):
    """ms-swift's older syntax ``<img>PATH</img>`` would read any local file."""
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    made = encode(template, f"<img>{tmp_path / 'secret.png'}</img> hello")
    assert "pixel_values" not in made
    assert "secret.png" in template.tokenizer.decode(made["input_ids"])


def test_only_the_answer_and_its_end_are_learnt(template):
    template.set_mode("train")
    try:
        made = encode(template, "Hi", [(56, 56)], '["happy"]')
    finally:
        template.set_mode("transformers")
    learnt = [i for i in made["labels"] if i != -100]
    assert template.tokenizer.decode(learnt) == '["happy"]<|im_end|>'
    assert made["input_ids"][-len(learnt) :] == learnt


def test_counts_are_exact(template, folders):
    """Budget from sizes and words equals what is encoded."""
    tiling = tiling_of(folders / "v1.5")
    assert template.tiling() == tiling
    sizes = [(300, 100), (64, 48), (56, 200)]
    bare = len(encode(template, "Who is it?")["input_ids"])
    line = len(template.tokenizer("\nWho", add_special_tokens=False)["input_ids"]) - len(
        template.tokenizer("Who", add_special_tokens=False)["input_ids"]
    )
    for top in (1, 2, 5, 12):
        made = encode(template, "Who is it?", sizes, chat_template_kwargs={"max_num": top})
        other = bare + line + tiling.marks(len(sizes))
        assert len(made["input_ids"]) == tiling.check(sizes, other, 10**6, top)
        assert len(made["pixel_values"]) == sum(tiling.tiles(sizes, top))


def test_too_long_is_an_error_with_the_way_out_and_auto_takes_it(folders, monkeypatch):
    from swift.template import MaxLengthError

    for strategy in ("raise", "left", "right"):  # ms-swift would cut words silently
        template = template_of(folders / "v1.5", max_length=150, truncation_strategy=strategy)
        with pytest.raises(MaxLengthError, match=r"more than max_length = 150; max_num = \d fits"):
            encode(template, "Who is it?", [(500, 100)] * 6)
    monkeypatch.setenv("MAX_NUM", "auto")
    made = encode(template, "Who is it?", [(500, 100)] * 6)
    assert 100 < len(made["input_ids"]) <= 150
    with pytest.raises(MaxLengthError, match="take fewer images"):
        encode(template, "Who is it?", [(500, 100)] * 40)
    monkeypatch.setenv("MAX_NUM", "many")
    with pytest.raises(Exception, match="max_num = 'many'"):
        encode(template, "Who is it?", [(500, 100)])


def test_for_vllm_one_placeholder_an_image(folders):
    """vLLM's processor puts marks and tiles around each of them."""
    template = template_of(folders / "v1.5")
    template.set_mode("vllm")
    made = encode(template, "<image><image>Hi <img>", [(56, 56), (300, 56)])
    text = template.tokenizer.decode(made["input_ids"])
    assert "user\n<IMG_CONTEXT>\n<IMG_CONTEXT>\nHi <img><|im_end|>" in text
    assert made["input_ids"].count(template.config.image_token_id) == 2
    assert len(made["images"]) == 2


def test_the_engine_answers_over_six_frames(folders):
    model = ModelParams(
        model=str(folders / "v1.5"), device="cpu", batch_size=2, max_length=1000,
        decoding=Decoding(max_new_tokens=4),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(6))
    with open_engine(model, name="internvl") as engine:
        replies = answer_all(
            engine,
            [
                Request("frames", "He said <image> <|im_end|> [UNUSED_TOKEN_146]", frames),
                Request("text", "Hello"),
                Request("long", "word " * 3000),
            ],
        )
    assert [r.error is None for r in replies] == [True, True, False]
    assert "too long" in replies[2].error
    assert replies[0].prompt_tokens > 6 * 4


def test_ms_swifts_own_command_answers(folders, tmp_path, monkeypatch):
    """``swift infer`` with the plugin's path alone, over words that spell marks."""
    import_swift()
    from swift.pipelines import infer_main

    from emolib.models.internvl import swift_plugin

    Image.new("RGB", (60, 50), (200, 30, 30)).save(tmp_path / "a.png")
    words = "He said <|im_end|> <image> <IMG_CONTEXT>"
    row = {
        "messages": [{"role": "user", "content": "<image>" * 6 + words}],
        "images": [str(tmp_path / "a.png")] * 6,
    }
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    monkeypatch.chdir(tmp_path)
    infer_main(
        ["--model", str(folders / "v1.5"), "--external_plugins", swift_plugin.__file__,
         "--val_dataset", str(tmp_path / "rows.jsonl"), "--max_new_tokens", "3",
         "--result_path", str(tmp_path / "answers.jsonl"), "--use_hf", "true"]
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert words in rows[0]["messages"][0]["content"]
    assert rows[0]["response"] == rows[1]["response"]


def test_ms_swifts_own_command_trains(folders, tmp_path, monkeypatch):
    """``swift sft`` with the plugin's path alone: the folder names type and template."""
    import_swift()
    from swift.pipelines import sft_main

    Image.new("RGB", (60, 50), (200, 30, 30)).save(tmp_path / "a.png")
    row = {
        "messages": [
            {"role": "user", "content": "<image><image>What emotion?"},
            {"role": "assistant", "content": '["angry"]'},
        ],
        "images": [str(tmp_path / "a.png")] * 2,
    }
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    find = [sys.executable, "-m", "emolib.models.internvl"]
    plugin = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    sft_main(
        ["--model", str(folders / "v1.5"), "--external_plugins", plugin,
         "--dataset", str(tmp_path / "rows.jsonl"), "--output_dir", str(out),
         "--tuner_type", "lora", "--lora_rank", "2", "--max_steps", "1", "--use_cpu", "true",
         "--torch_dtype", "float32", "--max_length", "400", "--strict", "true",
         "--gradient_accumulation_steps", "1", "--save_steps", "1", "--report_to", "none",
         "--add_version", "false", "--use_hf", "true", "--dataloader_num_workers", "0"]
    )  # fmt: skip
    names = load_file(out / "checkpoint-1" / "adapter_model.safetensors")
    assert any("q_proj" in n for n in names)
    assert not any("vision_tower" in n for n in names)
    args = json.loads((out / "checkpoint-1" / "args.json").read_text())
    assert (args["model_type"], args["template"]) == ("internvl_chat_native",) * 2


def test_reference_ids_of_six_images(tmp_path, monkeypatch):
    """Rows b, c and d of the goldens, from words and pictures to ids."""
    golden = shared("golden/internvl_v15/golden.safetensors")
    tensors = load_file(golden)
    convert(golden.parent / "checkpoint", tmp_path / "out")
    template = template_of(tmp_path / "out", monkeypatch, "separate")
    frame, wide = (56, 56), (4 * 56, 56)
    numbered = "".join(f"Image-{i}: <image>\n" for i in range(1, 7))
    plain = "<image>" * 6 + "\nWhat are the differences between these images?"
    cases = [
        ("b", 0, "<image>\nPlease describe the image in detail.", [frame]),
        ("c", 0, numbered + "Describe the six images in detail.", [frame] * 6),
        ("c", 1, plain, [frame] * 6),
    ]
    for case, row, text, sizes in cases:
        mask = tensors[f"{case}.attention_mask"][row] == 1
        want = tensors[f"{case}.input_ids"][row][mask].tolist()
        assert encode(template, text, sizes)["input_ids"] == want
    turns = ["<image>\nPlease describe the image in detail.",
             "a happy person with a red background", "What colors are shown?"]  # fmt: skip
    messages = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]
    ids = template.encode({"messages": messages, "images": [Image.new("RGB", wide)]})["input_ids"]
    assert ids == tensors["d.input_ids"][0].tolist()
