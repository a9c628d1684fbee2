"""The converted model against the published code's own numbers (fp32, see the goldens' README)."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emolib.models.internvl.convert import convert
from emolib.models.internvl.settings import IMAGENET_MEAN, IMAGENET_STD, image_processor
from tests.shared import shared

pytestmark = pytest.mark.shared
LOGITS, VISION = 1e-4, 2e-5  # tolerances of the goldens for another fp32 implementation


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    from transformers import InternVLForConditionalGeneration

    root = shared("golden/internvl_v15")
    out = tmp_path_factory.mktemp("converted") / "out"
    convert(root / "checkpoint", out)

    def fresh():
        return InternVLForConditionalGeneration.from_pretrained(
            out, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    return SimpleNamespace(
        root=root,
        out=out,
        fresh=fresh,
        model=fresh(),
        tensors=load_file(root / "golden.safetensors"),
        notes=json.loads((root / "golden.json").read_text()),
    )


def inputs(golden, case: str) -> dict[str, torch.Tensor]:
    tensors = golden.tensors
    given = {name: tensors[f"{case}.{name}"] for name in ("input_ids", "attention_mask")}
    if len(tiles := tensors[f"{case}.tile_index"]):
        given["pixel_values"] = tensors["pixel_values"][tiles]
    return given


@torch.no_grad()
def test_vision_tower_and_projector(golden):
    made = golden.model.model.get_image_features(
        golden.tensors["pixel_values"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    want = golden.tensors["vision.last_hidden_state"]
    torch.testing.assert_close(made.last_hidden_state, want, atol=VISION, rtol=0)
    want = golden.tensors["vision.extract_feature"]
    torch.testing.assert_close(made.pooler_output, want, atol=VISION, rtol=0)


@torch.no_grad()
def test_vision_tower_on_a_larger_image(golden):
    pixels = torch.nn.functional.interpolate(
        golden.tensors["pixel_values"][:1], size=(84, 84), mode="nearest"
    )
    made = golden.model.model.vision_tower(pixels).last_hidden_state
    want = golden.tensors["vision.interp.last_hidden_state"]
    torch.testing.assert_close(made, want, atol=VISION, rtol=0)


@pytest.mark.parametrize("case", list("abcde"))
@torch.no_grad()
def test_logits_and_greedy_tokens(golden, case):
    """a text, b one image, c six images left-padded, d five tiles, e mixed left-padded batch."""
    given = inputs(golden, case)
    mask = given["attention_mask"]
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    logits = golden.model(**given, position_ids=positions).logits
    if (want := golden.tensors.get(f"{case}.logits")) is None:
        want, keep = golden.tensors[f"{case}.logits_last32"], mask[:, -32:] == 1
        logits = logits[:, -32:]
    else:
        keep = mask == 1
    torch.testing.assert_close(logits[keep], want[keep], atol=LOGITS, rtol=0)
    made = golden.model.generate(**given, max_new_tokens=16)[:, mask.shape[1] :]
    assert torch.equal(made, golden.tensors[f"{case}.generate_ids"])


@torch.no_grad()
def test_beyond_max_position_embeddings(golden):
    """A fresh model: at exactly the limit the native class keeps an earlier, longer base."""
    ids, tensors, model = golden.tensors["f.input_ids"], golden.tensors, golden.fresh()
    made = model(input_ids=ids[:, :320]).logits[:, -16:]
    torch.testing.assert_close(made, tensors["f.at_max.logits_last16"], atol=LOGITS, rtol=0)
    made = model(input_ids=ids).logits
    torch.testing.assert_close(made[:, :16], tensors["f.logits_first16"], atol=LOGITS, rtol=0)
    torch.testing.assert_close(made[:, -48:], tensors["f.logits_last48"], atol=LOGITS, rtol=0)
    prompt = tensors["f.cross.prompt_ids"]
    made = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt),
                          max_new_tokens=14)  # fmt: skip
    assert torch.equal(made[:, prompt.shape[1] :], tensors["f.cross.generate_ids"])


def test_loss_and_gradients(golden):
    """Teacher forced, right padded; fused projections' gradients are those of their parts."""
    report = json.loads((golden.out / "conversion.json").read_text())
    model = golden.fresh()
    loss = model(**inputs(golden, "g"), labels=golden.tensors["g.labels"]).loss
    loss.backward()
    assert loss.item() == pytest.approx(golden.notes["cases"]["g"]["loss"], rel=1e-5)
    from emolib.models.internvl.mapping import saved_name

    norms = {saved_name(n): p.grad.norm().item() for n, p in model.named_parameters()}
    for source, want in golden.notes["cases"]["g"]["grad_l2"].items():
        parts = [norms[target] for target in report["used"][source]]
        assert np.linalg.norm(parts) == pytest.approx(want, rel=2e-5, abs=1e-6), source


def picture(root, row):
    """The golden's picture, from its file or its formula."""
    from PIL import Image

    if row.get("png"):
        return Image.open(root / row["png"]).convert("RGB")
    width, height = row["width"], row["height"]
    rs = np.random.RandomState(row["seed"])
    size, gx, gy, period, cx, cy, r = (
        rs.randint(12, 40), rs.randint(5, 40), rs.randint(5, 40), rs.randint(17, 41),
        rs.randint(0, width), rs.randint(0, height), rs.randint(900, 5000),
    )  # fmt: skip
    blocks = rs.randint(0, 256, (height // size + 1, width // size + 1, 3))
    y, x = np.mgrid[0:height, 0:width]
    image = blocks[y // size, x // size] + ((x * gx + y * gy) >> 5)[..., None]
    image[(x + 2 * y) % period < 2] += 128
    image[((x - cx) ** 2 + (y - cy) ** 2) // r % 2 == 1] += 77
    return Image.fromarray((image & 255).astype(np.uint8))


@pytest.mark.parametrize("index", range(5))
def test_tiles_and_pixels(index):
    """Tile by tile the same bytes as PIL gave the published pipeline, at 448 pixels."""
    from transformers import GotOcr2ImageProcessorPil

    root = shared("golden/internvl_v15")
    row = json.loads((root / "preprocess.json").read_text())["images"][index]
    image = picture(root, row)
    assert hashlib.sha256(np.asarray(image).tobytes()).hexdigest() == row["sha256_rgb_hwc"]
    config = {
        "force_image_size": 448, "dynamic_image_size": True, "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
    }  # fmt: skip
    processor = GotOcr2ImageProcessorPil(**image_processor(config))
    samples = np.load(root / "preprocess.npz", allow_pickle=False)
    for run in row["runs"]:
        if not run["use_thumbnail"]:
            continue
        made = processor(images=[image], max_patches=run["max_num"], return_tensors="np")
        pixels = np.stack(made["pixel_values"])
        assert len(pixels) == run["n_tiles"]
        name = f"f32_sub/{row['width']}x{row['height']}/max{run['max_num']}"
        np.testing.assert_allclose(pixels[:, :, 5::56, 11::56], samples[name], atol=1e-6)
        back = pixels.transpose(0, 2, 3, 1) * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
        for tile, want in zip(np.rint(back * 255).astype(np.uint8), run["tiles"], strict=True):
            assert hashlib.sha256(tile.tobytes()).hexdigest() == want["sha256_u8_hwc"]
