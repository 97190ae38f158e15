"""Greedy answers: batches change nothing, a line ends an answer, and what counts as a match."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_trainer.train.data.encoding import Encoder, build_encoder
from codetune_trainer.train.data.infilling import find_fim_tokens
from codetune_trainer.train.pacing import Stopped
from codetune_trainer.train.scoring import answering
from codetune_trainer.train.scoring.answering import Mark, answer_lines, answer_middles, measure_similarity
from codetune_trainer.train.scoring.questions import Question
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

STARCODER = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """The tiny model with an adapter that changes nothing yet."""
    return get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))


def _line(before: str, answer: str, file: str = "a.py") -> Question:
    return Question(file, before, "", answer)


def test_answers_do_not_depend_on_what_else_is_asked(model: Any, encoder: Encoder) -> None:
    questions = [_line(text, "x") for text in ("def add(", "value = " * 9, "x", "class Cart:\n    ")]
    together = answer_lines(model, encoder, questions, lambda: None)
    assert together == [answer_lines(model, encoder, [question], lambda: None)[0] for question in questions]


def test_answers_are_those_of_decoding_token_by_token_without_a_cache(model: Any, encoder: Encoder) -> None:
    prompt = encoder.encode_one("def add(a, b):\n    ")
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(10):
            tokens.append(int(model.eval()(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    (answer,) = answering._generate(model, encoder, [prompt], 10, [encoder.end], lambda: None, by_line=False)
    assert answer == encoder.decode(tokens[len(prompt) :])


@pytest.mark.parametrize(
    ("exact", "given"),
    [
        pytest.param(True, "total = a + b\nmore", id="the line and more"),
        pytest.param(True, "\n\n  total = a + b  \n", id="white space around it"),
        pytest.param(False, "total = a + b  # and more", id="a longer line"),
        pytest.param(False, "total = a+b", id="almost"),
        pytest.param(False, "", id="nothing"),
    ],
)
def test_a_line_counts_as_matched_only_to_the_letter(
    monkeypatch: pytest.MonkeyPatch, encoder: Encoder, exact: bool, given: str
) -> None:
    monkeypatch.setattr(answering, "_generate", lambda *_, **__: [given])
    (mark,) = answer_lines(None, encoder, [_line("x", "total = a + b")], lambda: None)
    assert mark.exact is exact
    assert (mark.similarity == 1.0) is exact
    assert mark.file == "a.py"


def test_a_line_ends_the_answers_of_a_batch(monkeypatch: pytest.MonkeyPatch, model: Any, encoder: Encoder) -> None:
    newline = encoder.encode_one("\n")[0]
    letter = encoder.encode_one("a")[0]
    steps: list[int] = []

    def say_line(self: Any, *arguments: Any, **settings: Any) -> Any:
        out = real(self, *arguments, **settings)
        out.logits[:, -1] = 0.0
        out.logits[:, -1, newline if len(steps) in {0, 3} else letter] = 9.0
        steps.append(1)
        return out

    real = type(model.get_base_model()).forward
    monkeypatch.setattr(type(model.get_base_model()), "forward", say_line)
    (mark, _) = answer_lines(model, encoder, [_line("x", "aa"), _line("yy", "b")], lambda: None)
    assert mark.exact
    assert len(steps) == 4  # a line break, two letters, a line break


def test_middles_are_asked_for_as_the_family_is_served(
    monkeypatch: pytest.MonkeyPatch, make_tokenizer: Callable[..., Any]
) -> None:
    tokenizer = make_tokenizer(*STARCODER, begins=True)
    encoder, found = build_encoder(tokenizer), find_fim_tokens(tokenizer)
    assert found is not None
    asked: list[Any] = []
    monkeypatch.setattr(answering, "_generate", lambda *arguments, **_: asked.append(arguments) or [" b "])
    marks = answer_middles(None, encoder, found, [Question("a.py", "x = a +", "\nprint(x)\n", " b")], lambda: None)
    assert marks == [Mark("a.py", True, 1.0)]
    _, _, (prompt,), most, ends, _ = asked[0]
    assert prompt == [*encoder.begin, *found.prompt("x = a +", "\nprint(x)\n", encoder.encode_one)]
    assert (most, ends) == (48, list(found.stops))


def test_a_long_context_is_cut_to_what_stands_next_to_the_cursor(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(*STARCODER)
    encoder, found = build_encoder(tokenizer), find_fim_tokens(tokenizer)
    assert found is not None
    before, after = "a" * 5000 + "NEAR", "CLOSE" + "b" * 5000
    text = tokenizer.decode(answering._ask_middle(encoder, found, Question("a.py", before, after, "x")))
    assert text == f"<fim_prefix>{before[-192:]}<fim_suffix>{after[:192]}<fim_middle>"


def test_what_ends_an_answer_is_no_part_of_it(make_tokenizer: Callable[..., Any]) -> None:
    encoder = build_encoder(make_tokenizer())
    letter, stop = encoder.encode_one("a")[0], encoder.encode_one("b")[0]  # a stop that no tokenizer calls special
    assert answering._until([letter, stop, letter], [stop, encoder.end]) == [letter]
    assert answering._until([letter, letter], [stop]) == [letter, letter]


def test_an_answer_can_be_interrupted(model: Any, encoder: Encoder) -> None:
    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        answer_lines(model, encoder, [_line("x", "y")], stop)


@pytest.mark.parametrize(
    ("expected", "one", "other"),
    [
        pytest.param(1.0, "abc", "abc", id="equal"),
        pytest.param(1.0, "", "", id="both empty"),
        pytest.param(0.0, "abc", "", id="one empty"),
        pytest.param(0.0, "abc", "xyz", id="nothing in common"),
        pytest.param(2 / 3, "abc", "abd", id="one letter changed"),
        pytest.param(0.75, "abcd", "abd", id="one letter missing"),
        pytest.param(1 - 3 / 7, "kitten", "sitting", id="the textbook's pair"),
    ],
)
def test_similarity_is_one_less_the_share_of_letters_to_change(expected: float, one: str, other: str) -> None:
    assert measure_similarity(one, other) == pytest.approx(expected)
    assert measure_similarity(other, one) == pytest.approx(expected)


@given(st.text(max_size=12), st.integers(0, 99))
def test_taking_letters_away_costs_their_share(text: str, seed: int) -> None:
    chance = random.Random(seed)
    kept = "".join(letter for letter in text if chance.random() < 0.7)
    assert measure_similarity(text, kept) == pytest.approx(len(kept) / len(text) if text else 1.0)
