"""The AffectGPT benchmark counts what torch counts, and all of --full runs at the tiny sizes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from emolib.params.profiles import resolve  # noqa: E402
from tests.paths import searched_first  # noqa: E402

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "benchmarks"))
affectgpt, affectgpt_model, phases = map(
    importlib.import_module, ("affectgpt", "affectgpt_model", "affectgpt_phases")
)

WAYS = ["fill", "cached_1", "cached_2", "checkpointed_2", "uncached_1", "uncached_2", "plain_1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


def options(home, *more):
    narrow = ["--full", "--narrow", "--clips", "4", "--batches", "1", "2", "--steps", "2"]
    places = ["--work", str(home), "--features", str(home / "features"), "--swift-steps", "2"]
    return [*narrow, *places, *more]


def test_wanted_most_comes_first():
    assert phases.phases([1, 2], swift=False) == WAYS
    assert phases.phases([4, 16], swift=True)[-3:] == ["plain_1", "swift", "swift_kept"]


def test_every_way_is_measured_as_at_full_size(home):
    """What a GPU is lent for, on a CPU: the same code, the tiny sizes."""
    found = {}
    for way in WAYS:
        args = affectgpt.parser().parse_args(options(home, "--phase", way))
        found[way] = phases.measure(args)
    json.dumps(found)
    filled = found["fill"]
    assert filled["cache_files"] == filled["videos"] + filled["audios"]
    assert min(filled["videos"], filled["audios"]) > 0
    assert filled["cache_bytes"] > 1000
    for way in WAYS[1:]:
        one = found[way]
        assert one["steps"] in (1, 2)  # twenty seconds are enough for both, if not always
        assert one["samples"] == one["steps"] * one["batch"] == one["steps"] * int(way[-1])
        assert one["trained_tensors"] == 116
        assert one["samples_per_second"] * one["seconds"] == pytest.approx(one["samples"])
        assert one["peak_memory_bytes"] > 0
        assert one["tokens_per_sample"] <= one["longest"] <= 1024
        assert one["parts"]["step_s"] > 0
    assert found["cached_1"]["padding"] == 0 < found["cached_2"]["padding"]
    assert found["cached_2"]["longest"] == found["uncached_2"]["longest"]


def test_the_training_stage_is_measured_through_ms_swift(home):
    file = home / "swift.json"
    script = str(REPO / "benchmarks/affectgpt.py")
    done = subprocess.run(
        [sys.executable, script, *options(home, "--phase", "swift", "--out", str(file))],
        env=os.environ | {"PYTHONPATH": searched_first(REPO)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(file.read_text())
    shipped = resolve(REPO, "h200", "04_affectgpt_sft").recipe
    for name, value in (
        ("batch", shipped.batch_size),
        ("gradient_checkpointing", shipped.gradient_checkpointing),
    ):
        assert found[name] == value
    assert found["batch"] == 16
    assert found["steps"] == 2
    assert found["step_s"] >= found["computing_s"] > 0
    assert found["samples_per_second"] > 0


def test_a_step_is_counted_as_torch_counts_it(home):
    config, _ = affectgpt_model.design(home, narrow=True)
    model = affectgpt_model.build(config, "cpu", torch.float32)
    model.freeze_towers()
    language = model.language_model
    language.set_attn_implementation("eager")
    embeds = torch.randn(3, 24, config.text_config.hidden_size, requires_grad=True)

    def counted(work):
        with FlopCounterMode(display=False) as counter:
            found = work()
        return counter.get_total_flops(), found

    forward, out = counted(lambda: language(inputs_embeds=embeds, use_cache=False))
    backward, _ = counted(out.logits.sum().backward)
    ours = affectgpt_model.step_flops(language, [24] * 3, causal=False)
    assert ours == (forward, forward + backward)
    half = affectgpt_model.step_flops(language, [24] * 3)
    assert forward > half[0] > forward / 2


def test_published_sizes_need_no_weights(home):
    """Some 6.6e9 multiplications a token forward, as many back; 45 million numbers learn."""
    config, processor = affectgpt_model.design(home)
    with torch.device("meta"):
        model = affectgpt_model.AffectGPTForConditionalGeneration(config)
    model.freeze_towers()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 44_959_744
    forward, step = affectgpt_model.step_flops(model.language_model, [400])
    assert forward == pytest.approx(2 * 6.6e9 * 400, rel=0.02)
    assert step == pytest.approx(2 * forward, rel=0.02)
    # all that making weights where the model runs leaves undefined, and makes again
    assert {name.split(".")[-2] for name, _ in model.named_buffers()} == {"rotary_emb"}
    assert processor.max_length == 1024


def test_few_layers_at_full_width(home):
    config, _ = affectgpt_model.design(home, layers=2)
    for name in affectgpt_model.TOWERS:
        assert getattr(config, name).num_hidden_layers == 2
    assert config.text_config.hidden_size == 4096
    with torch.device("meta"):
        model = affectgpt_model.AffectGPTForConditionalGeneration(config)
    assert len(model.freeze_towers()) == 116


def test_answers_are_as_long_as_asked(home):
    _, processor = affectgpt_model.design(home, narrow=True)
    rows, clips = affectgpt_model.write_rows(home, processor, 4, 0.5, 300, 80)
    assert 0 < clips < len(rows)

    def tokens(row):
        return len(processor.tokenizer.encode(row["messages"][1]["content"]))

    assert all(140 <= tokens(row) <= 460 for row in rows[:clips])
    assert all(35 <= tokens(row) <= 125 for row in rows[clips:])
    own, _ = affectgpt_model.write_rows(home, processor, 4, 0.0, 0, 0)
    assert len(own) == clips


def test_what_fails_costs_nothing_else_and_is_taken_again(home, monkeypatch, capsys):
    asked, broken = [], {"cached_2"}

    def one(phase, limit):
        asked.append(phase)
        return {"error": "took longer"} if phase in broken else {"samples_per_second": 60.0}

    monkeypatch.setattr(affectgpt, "in_a_process", one)
    out = home / "record.json"
    command = ["affectgpt.py", *options(home, "--out", str(out), "--resume")]
    monkeypatch.setattr(sys, "argv", command)
    assert affectgpt.main() == 1
    record = json.loads(out.read_text())
    assert asked == WAYS
    assert record["cached_2"] == {"error": "took longer"}
    broken.clear()
    assert affectgpt.main() == 0
    record = json.loads(out.read_text())
    assert asked == [*WAYS, "cached_2"]
    assert record["ratios"]["cached_over_target"] == 2.0
    monkeypatch.setattr(sys, "argv", [*command, "--pictures", "0.25"])
    with pytest.raises(SystemExit, match="other settings"):
        affectgpt.main()
    capsys.readouterr()


def test_figures_of_the_cpu_record_are_those_of_the_command(home, monkeypatch, capsys):
    out = home / "cpu.json"
    tiny = ["--clips", "4", "--epochs", "1", "--work", str(home), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["affectgpt.py", *tiny])
    assert affectgpt.main() == 0
    capsys.readouterr()
    stored = json.loads((REPO / "outputs/record/affectgpt_benchmark_cpu.json").read_text())
    found = json.loads(out.read_text())
    assert found.keys() == stored.keys()
    assert found["samples_per_second"].keys() == {"plain", "uncached", "cached"}


def test_the_whole_is_not_begun_without_a_gpu(home, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["affectgpt.py", "--full", "--work", str(home)])
    with pytest.raises(SystemExit, match="needs a GPU"):
        affectgpt.main()
