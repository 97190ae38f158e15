"""What evaluation measures: a fixed, bounded sample of the held-out files, and what is asked about them."""

import hashlib
from pathlib import Path

import pytest
from codetune_api.contracts import DatasetFile
from codetune_api.finetune import Parameters
from codetune_trainer.train.data.encoding import Encoder
from codetune_trainer.train.scoring import evaluating
from codetune_trainer.train.scoring.evaluating import HeldOut, count_questions, file_losses, mean_loss, prepare
from codetune_trainer.train.scoring.questions import ask_middles
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def _file(index: int, text: str) -> DatasetFile:
    digest = hashlib.sha256(f"{index}{text}".encode()).hexdigest()
    return DatasetFile(path=f"{index}.py", type="Python", sha256=digest, split="holdout", text=text)


def _prepare(files: list[DatasetFile], encoder: Encoder) -> HeldOut | None:
    samples = prepare(files, encoder, 64, "cpu", shared=True)
    return samples.judging if samples else None


@pytest.mark.parametrize("files", [[], [_file(0, "")]], ids=["no file", "an empty one"])
def test_nothing_held_out_is_nothing_to_measure(encoder: Encoder, files: list[DatasetFile]) -> None:
    assert _prepare(files, encoder) is None


@pytest.mark.parametrize(
    ("expected", "count"),
    [
        pytest.param((19, 19), 19, id="too few to halve: all choose and judge"),
        pytest.param((22, 18), 40, id="enough: each file is in one half"),
    ],
)
def test_no_file_that_chooses_checkpoints_judges_them_where_enough_are_held_out(
    encoder: Encoder, expected: tuple[int, int], count: int
) -> None:
    samples = prepare(
        [_file(index, f"value_{index} = {index}\n") for index in range(count)], encoder, 64, "cpu", shared=True
    )
    assert samples is not None
    assert (samples.choosing.files, samples.judging.files) == expected
    assert samples.are_one is (expected[0] == count)
    if not samples.are_one:
        assert not {*samples.choosing.names} & {*samples.judging.names}
        assert {question.file for question in samples.judging.lines} <= {*samples.judging.names}
        assert samples.choosing.lines == ()


def test_a_file_stays_in_its_half_when_others_are_added(encoder: Encoder) -> None:
    files = [_file(index, f"value_{index} = {index}\n") for index in range(60)]
    before, after = (prepare(some, encoder, 64, "cpu", shared=True) for some in (files[:40], files))
    assert before is not None
    assert after is not None
    assert {*before.judging.names} < {*after.judging.names}
    assert {*before.choosing.names} < {*after.choosing.names}


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
    assert held_out.files == 8


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
    assert one.digest() == other.digest()


def test_questions_are_bounded_lines_worth_completing_with_what_stands_before_them(encoder: Encoder) -> None:
    text = "".join(f"number_{index} = {index}\n\n}}\n" for index in range(200))
    held_out = _prepare([_file(index, text) for index in range(9)], encoder)
    assert held_out is not None
    assert len(held_out.lines) == 16
    assert len({question.file for question in held_out.lines}) == 9  # every file first, then some of them again
    for question in held_out.lines:
        assert text.startswith(f"{question.before}{question.answer}\n")
        assert len(question.answer) >= 8


def test_middles_are_what_an_editor_would_insert_with_the_text_around_them() -> None:
    text = "".join(f"def f{index}(value):\n    return value * {index}\n\n" for index in range(30))
    asked = ask_middles([_file(index, text) for index in range(5)], 100)
    assert len(asked) == 20  # four a file
    for question in asked:
        assert question.before + question.answer + question.after == text
        assert 3 <= len(question.answer.strip()) <= len(question.answer) <= 120
    assert asked == ask_middles([_file(index, text) for index in range(5)], 100)


def test_middles_are_asked_for_only_where_the_model_has_them(encoder: Encoder) -> None:
    held_out = _prepare([_file(0, "value = 1\n" * 9)], encoder)
    assert held_out is not None
    assert held_out.middles == ()


def test_the_losses_of_the_files_add_up_to_the_mean_loss(tiny_model: Path, encoder: Encoder) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    held_out = _prepare([_file(index, f"value_{index} = {index}\n" * (3 * index + 1)) for index in range(6)], encoder)
    assert held_out is not None
    assert held_out.packed.is_shared
    by_file = file_losses(model, held_out, 2, "Float32", lambda: None)
    assert sum(count for _, count in by_file) == held_out.tokens
    mean = mean_loss(model, held_out, 4, "Float32", lambda: None)
    assert sum(total for total, _ in by_file) / held_out.tokens == pytest.approx(mean, rel=1e-5)
    alone = _prepare([_file(3, "value_3 = 3\n" * 10)], encoder)
    assert alone is not None
    index = held_out.names.index("3.py")
    assert by_file[index][0] / by_file[index][1] == pytest.approx(
        mean_loss(model, alone, 4, "Float32", lambda: None), rel=1e-5
    )


def _parameters(steps: int, tokens: int) -> Parameters:
    return Parameters.model_validate(
        {
            "preset": "Smaller", "rank": 4, "alpha": 8, "dropout": 0, "targetModules": [], "trainEmbeddings": False,
            "maxSteps": steps, "epochs": 1, "sequenceLength": 64, "batchTokens": tokens, "learningRate": 1.0,
            "scheduler": "Linear", "warmupSteps": 1, "weightDecay": 0, "fimRate": 0, "precision": "Float32",
            "gradientCheckpointing": False, "seed": 0, "everySteps": 10,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("least", "most", "steps", "tokens", "middles"),
    [
        pytest.param(16, 16, 6, 256, False, id="a few even of a tiny run"),
        pytest.param(40, 100, 100, 4096, False, id="more of a longer one"),
        pytest.param(16, 40, 100, 4096, True, id="fewer lines where middles are asked for too"),
        pytest.param(128, 128, 10_000, 4096, False, id="never more than enough"),
    ],
)
def test_questions_take_a_small_share_of_the_run(least: int, most: int, steps: int, tokens: int, middles: bool) -> None:
    assert least <= count_questions(_parameters(steps, tokens), "cpu", middles=middles) <= most
