"""What evaluation measures: a fixed, bounded sample of the held-out files, and the sentence about it."""

import hashlib
from pathlib import Path

import pytest
from codetune_api.contracts import DatasetFile
from codetune_api.finetune import EvaluationScores
from codetune_trainer.train import evaluating
from codetune_trainer.train.encoding import Encoder
from codetune_trainer.train.evaluating import HeldOut, compare, prepare
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def _file(index: int, text: str) -> DatasetFile:
    digest = hashlib.sha256(f"{index}{text}".encode()).hexdigest()
    return DatasetFile(path=f"{index}.py", type="Python", sha256=digest, split="holdout", text=text)


def _prepare(files: list[DatasetFile], encoder: Encoder) -> HeldOut | None:
    return prepare(files, encoder, 64, "cpu", shared=True)


@pytest.mark.parametrize("files", [[], [_file(0, "")]], ids=["no file", "an empty one"])
def test_nothing_held_out_is_nothing_to_measure(encoder: Encoder, files: list[DatasetFile]) -> None:
    assert _prepare(files, encoder) is None


def test_a_small_sample_is_measured_whole(encoder: Encoder) -> None:
    held_out = _prepare([_file(0, "x" * 40), _file(1, "y" * 100)], encoder)
    assert held_out is not None
    assert held_out.files == 2
    assert (
        held_out.tokens == 40 + 63 + 36
    )  # of 41 and 101 tokens in pieces of at most 64, each but the first of its piece


def test_a_large_sample_is_bounded_and_takes_from_every_file(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "MOST_TOKENS", {"cpu": 1000})
    files = [_file(index, f"line {index}\n" * 200) for index in range(8)]
    held_out = _prepare(files, encoder)
    assert held_out is not None
    assert 900 < held_out.tokens <= 1000
    assert 2 <= held_out.files < 8  # the first few are more than enough to choose from


def test_one_large_file_leaves_room_for_the_small_ones(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "MOST_TOKENS", {"cpu": 500})
    files = [_file(0, "a = 1\n" * 300), *(_file(index, f"value_{index} = {index}\n") for index in range(1, 9))]
    held_out = _prepare(files, encoder)
    assert held_out is not None
    assert held_out.files >= 2


def test_the_sample_does_not_depend_on_the_order_of_files(encoder: Encoder) -> None:
    files = [_file(index, f"def f{index}(value):\n    return value * {index}\n" * 20) for index in range(6)]
    one, other = _prepare(files, encoder), _prepare(files[::-1], encoder)
    assert one is not None
    assert other is not None
    assert one.packed.tokens.equal(other.packed.tokens)
    assert one.questions == other.questions


def test_questions_are_bounded_lines_worth_completing_with_what_stands_before_them(encoder: Encoder) -> None:
    text = "".join(f"number_{index} = {index}\n\n}}\n" for index in range(200))
    held_out = _prepare([_file(index, text) for index in range(9)], encoder)
    assert held_out is not None
    assert len(held_out.questions) == 16
    for before, line in held_out.questions:
        assert text.startswith(before + line)
        assert len(line.strip()) >= 8


def test_a_line_counts_as_matched_only_to_the_letter(
    tiny_model: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    held_out = _prepare([_file(0, "a\n" * 3 + "first_line = 1\nsecond_line = 2\n")], encoder)
    assert held_out is not None
    wanted = {line: f"\n  {line.strip()}  \nmore" for _, line in held_out.questions}
    wanted["second_line = 2\n"] = "second_line = 2  # and more"
    monkeypatch.setattr(
        evaluating, "_continue", lambda *_: [wanted[line] for _, line in held_out.questions]
    )  # fmt: skip
    assert evaluating.exact_match(model, encoder, held_out, lambda: None) == 0.5


def test_greedy_answers_do_not_depend_on_what_else_is_asked(tiny_model: Path, encoder: Encoder) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    prompts = ["def add(", "value = " * 9, "x"]
    together = evaluating._continue(model.eval(), encoder, prompts)
    assert together == [evaluating._continue(model, encoder, [prompt])[0] for prompt in prompts]


@pytest.mark.parametrize(
    ("base", "tuned", "improvement", "said"),
    [
        pytest.param(2.0, 1.5, 0.25, "fell from 2.000 to 1.500 (25.0% better)", id="better"),
        pytest.param(2.0, 2.2, -0.1, "rose from 2.000 to 2.200 (10.0% worse)", id="worse"),
        pytest.param(2.0, 2.0, 0.0, "stayed at 2.000", id="the same"),
    ],
)
def test_the_sentence_says_what_was_measured_and_on_how_much(
    encoder: Encoder, base: float, tuned: float, improvement: float, said: str
) -> None:
    held_out = _prepare([_file(0, "value = 1\n" * 9)], encoder)
    assert held_out is not None
    scores = EvaluationScores(loss=base, exact_match=0.25), EvaluationScores(loss=tuned, exact_match=0.5)
    found = compare(*scores, held_out)
    assert found.improvement == pytest.approx(improvement)
    assert said in found.message
    assert f"on 1 files, {held_out.tokens} tokens" in found.message
    assert "next line exact: 1/4 → 2/4" in found.message
