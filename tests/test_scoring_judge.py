from __future__ import annotations

import json
import re

import pytest

from emolib import scoring
from emolib.cli.score import main
from emolib.engines.base import Reply
from emolib.errors import EngineError, ScoreError
from emolib.judging import EngineJudge
from emolib.scoring.judge import LlmGrouping, parse_partition
from tests.fakes import FakeEngine

TABLE = {"glad": "happy", "joyful": "happy", "mad": "angry"}


def words_in(prompt):
    return json.loads(re.findall(r"Words: (\[.*\])", prompt)[-1])


def by_table(request):
    groups: dict[str, list[str]] = {}
    for word in words_in(request.prompt):
        groups.setdefault(TABLE.get(word, word), []).append(word)
    return json.dumps(list(groups.values()))


GOLD = {"a": ["joyful", "calm"], "b": ["mad"], "c": ["shy"]}
PRED = {"a": ["glad"], "b": ["angry", "sad"], "c": ["shy"]}


def test_scores_with_a_model_as_judge():
    engine = FakeEngine(by_table)
    result = scoring.score(GOLD, PRED, LlmGrouping(EngineJudge(engine)), resamples=0)
    assert (result.accuracy, result.recall) == pytest.approx(((1 + 0.5 + 1) / 3, (0.5 + 1 + 1) / 3))
    assert result.grouping["name"] == "llm"
    assert result.coverage == 1
    # sorted input; a single label ("shy") is not worth a question
    assert [words_in(r.prompt) for r in engine.seen] == [
        ["calm", "glad", "joyful"],
        ["angry", "mad", "sad"],
    ]


def test_answers_are_asked_once_and_kept_by_content(tmp_path):
    engine = FakeEngine(by_table)
    for _ in range(2):
        grouping = scoring.open_grouping("llm", tmp_path, engine=EngineJudge(engine))
        scoring.score(GOLD, PRED, grouping, resamples=0)
    assert len(engine.seen) == 2
    renamed = {f"new-{name}": labels[::-1] for name, labels in GOLD.items()}
    fresh = scoring.open_grouping("llm", tmp_path, engine=EngineJudge(engine))
    scoring.score(renamed, {f"new-{n}": x for n, x in PRED.items()}, fresh, resamples=0)
    assert len(engine.seen) == 2
    other = FakeEngine(by_table, identity={"engine": "other"})
    scoring.score(GOLD, PRED, LlmGrouping(EngineJudge(other), tmp_path), resamples=0)
    assert len(other.seen) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "empty answer"),
        ("I would group them by valence.", "not a list of lists"),
        ('[["calm", "glad"', "not a list of lists"),
        ('[["calm", "glad", "joyful",], [x]]', "is broken"),
        ('[["calm", "glad"]]', r"lost \['joyful'\]"),
        ('[["calm", "glad", "joyful", "merry"]]', r"invented \['merry'\]"),
        ('[["calm", "glad"], ["glad", "joyful"]]', r"repeated \['glad'\]"),
    ],
)
def test_a_bad_answer_is_an_error_and_is_not_kept(tmp_path, answer, message):
    grouping = LlmGrouping(EngineJudge(FakeEngine(lambda request: answer)), tmp_path)
    with pytest.raises((ScoreError, EngineError), match=message):
        scoring.score(GOLD, PRED, grouping)
    assert not list(tmp_path.rglob("*.json"))


def test_an_engine_error_is_an_error():
    engine = FakeEngine(lambda r: Reply(id=r.id, error="busy", transient=True))
    with pytest.raises(EngineError, match="busy; nothing was scored") as caught:
        scoring.score(GOLD, PRED, LlmGrouping(EngineJudge(engine)))
    assert caught.value.transient


def test_a_cut_answer_is_an_error():
    engine = FakeEngine(lambda r: Reply(id=r.id, text=by_table(r), finish_reason="length"))
    with pytest.raises(EngineError, match="max_new_tokens"):
        scoring.score(GOLD, PRED, LlmGrouping(EngineJudge(engine)))


def test_a_broken_stored_answer_is_named(tmp_path):
    judge = EngineJudge(FakeEngine(by_table))
    scoring.score(GOLD, PRED, LlmGrouping(judge, tmp_path), resamples=0)
    file = next(iter(tmp_path.rglob("*.json")))
    file.write_text('{"answer": ""}')
    with pytest.raises(ScoreError, match=f"{file.name}.*delete this file"):
        scoring.score(GOLD, PRED, LlmGrouping(judge, tmp_path), resamples=0)


@pytest.mark.parametrize(
    "answer",
    [
        '[["don\'t believe", "doubt"]]',
        '```json\n[["Doubt", "don\'t believe "]]\n```',
        "Here: [[\"don't believe\", 'doubt']] as asked",
        '[["doubt", "don\'t believe"], []]',
    ],
)
def test_answers_are_read_in_their_usual_dress(answer):
    [group] = parse_partition(answer, ["don't believe", "doubt"])
    assert sorted(group) == ["don't believe", "doubt"]


def test_votes_and_their_agreement():
    def fickle(request):  # joins the first two words it sees
        first, second, *rest = words_in(request.prompt)
        return json.dumps([[first, second], *[[word] for word in rest]])

    steady = LlmGrouping(EngineJudge(FakeEngine(by_table)), votes=3)
    engine = FakeEngine(fickle)
    wavering = LlmGrouping(EngineJudge(engine), votes=3)
    assert steady.agreement is None
    for grouping in (steady, wavering):
        scoring.score(GOLD, PRED, grouping, resamples=0)
    assert steady.agreement == 1
    assert 0 < wavering.agreement < 1
    assert len(engine.seen) == 6
    assert len({tuple(words_in(r.prompt)) for r in engine.seen}) > 2  # orders differ
    assert steady.version != LlmGrouping(EngineJudge(FakeEngine(by_table))).version


def test_two_systems_need_the_union_grouped():
    other = {"a": ["calm"], "b": ["mad"], "c": ["joyful"]}
    grouping = LlmGrouping(EngineJudge(FakeEngine(by_table)))
    alone = [scoring.score(GOLD, pred, grouping, resamples=0) for pred in (PRED, other)]
    with pytest.raises(ScoreError, match="LlmGrouping.freeze"):
        scoring.compare(*alone)
    shared = grouping.freeze(GOLD, PRED, other)
    both = [scoring.score(GOLD, pred, shared, resamples=0) for pred in (PRED, other)]
    assert scoring.compare(*both).n == 3


def test_an_engine_must_be_wrapped():
    with pytest.raises(ScoreError, match="EngineJudge"):
        scoring.open_grouping("llm", engine=FakeEngine(by_table))  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match="--judge"):
        scoring.open_grouping("llm")


def test_command_line_groups_both_systems_together(tmp_path, monkeypatch, capsys):
    engine = FakeEngine(by_table)
    monkeypatch.setattr("emolib.engines.open_engine", lambda params, *, name: engine)
    (tmp_path / "judge.yaml").write_text("model: some/model\n")
    for name, side in (("gold", GOLD), ("a", PRED), ("b", {**PRED, "a": ["calm"]})):
        (tmp_path / f"{name}.json").write_text(json.dumps(side))
    arguments = ["--gold", str(tmp_path / "gold.json"), "--pred", str(tmp_path / "a.json")]
    arguments += ["--grouping", "llm", "--judge", str(tmp_path / "judge.yaml")]
    out = tmp_path / "out.json"
    assert main([*arguments, "--json", str(out), "--resamples", "50"]) == 0
    assert json.loads(out.read_text())["grouping"]["name"] == "llm"
    arguments += ["--compare", str(tmp_path / "b.json"), "--votes", "2", "--resamples", "50"]
    assert main([*arguments, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["compare"]["n"] == 3
    assert found["grouping"]["version"].startswith("llm-")
    assert "agreement of 2 votes on pairs of labels: 1.000" in capsys.readouterr().out
    assert main(arguments[:6]) == 2  # no judge
    assert "--judge" in capsys.readouterr().err
