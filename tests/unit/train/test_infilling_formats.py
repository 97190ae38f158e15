"""Fill-in-the-middle: each family's published prompt format, and that a text comes back whole."""

import random
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.train.encoding import Encoder, build_encoder
from codetune_trainer.train.feeding import Corpus
from codetune_trainer.train.infilling import FAMILIES, FimTokens, find_fim_tokens, infill
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = "def add(a, b):\n    return a + b\n"
TOKENS = FimTokens(prefix=1001, suffix=1002, middle=1003)


# What the family publishes stands before the prefix, between prefix and suffix, and before the middle.
PUBLISHED = [
    pytest.param("<fim_prefix>", "<fim_suffix>", "<fim_middle>", id="StarCoder2, Granite-Code, StableCode"),
    pytest.param("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", id="Qwen2.5-Coder, CodeGemma"),
    pytest.param("▁<PRE>", "▁<SUF>", "▁<MID>", id="CodeLlama"),
    pytest.param("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", id="DeepSeek-Coder"),
]


def test_there_is_a_row_for_each_family() -> None:
    assert {row.values for row in PUBLISHED} == set(FAMILIES.values())


@pytest.mark.parametrize(("before", "between", "after"), PUBLISHED)
def test_prefix_first_is_the_familys_published_prompt(
    make_tokenizer: "Callable[..., Any]", before: str, between: str, after: str
) -> None:
    tokenizer = make_tokenizer(before, between, after)
    encoder, tokens = build_encoder(tokenizer), find_fim_tokens(tokenizer)
    assert tokens is not None
    made = [tokenizer.decode(infill(TEXT, encoder, tokens, random.Random(seed), 500)) for seed in range(40)]
    cuts = [(first, second) for second in range(len(TEXT) + 1) for first in range(second + 1)]
    prefix_first = {
        f"{before}{TEXT[:first]}{between}{TEXT[second:]}{after}{TEXT[first:second]}" for first, second in cuts
    }
    suffix_first = {
        f"{before}{between}{TEXT[second:]}{after}{TEXT[:first]}{TEXT[first:second]}" for first, second in cuts
    }
    assert set(made) <= prefix_first | suffix_first
    # About half each; suffix first reads like prefix first with an empty prefix, which is what makes it the joint form.
    assert 10 <= sum(text in suffix_first for text in made) <= 30


def test_a_tokenizer_without_sentinels_has_no_fill_in_the_middle(make_tokenizer: "Callable[..., Any]") -> None:
    assert find_fim_tokens(make_tokenizer("<fim_prefix>", "<fim_suffix>")) is None


@given(text=st.text(min_size=1, max_size=80), seed=st.integers(0, 1000))
def test_prefix_middle_and_suffix_give_the_text_again(text: str, seed: int) -> None:
    encoder = _ENCODER[0]
    made = infill(text, encoder, TOKENS, random.Random(seed), 10_000)
    if made[1] == TOKENS.suffix:
        middle = made.index(TOKENS.middle)
        suffix, rest = made[2:middle], made[middle + 1 :]
        assert [*rest, *suffix] == encoder.encode([text])[0]
    else:
        at, middle = made.index(TOKENS.suffix), made.index(TOKENS.middle)
        assert [*made[1:at], *made[middle + 1 :], *made[at + 1 : middle]] == encoder.encode([text])[0]


_ENCODER: list[Encoder] = []


@pytest.fixture(autouse=True, scope="module")
def _byte_encoder(make_tokenizer: "Callable[..., Any]") -> None:
    _ENCODER.append(build_encoder(make_tokenizer()))


@given(text=st.text(min_size=1, max_size=80), seed=st.integers(0, 1000), room=st.integers(4, 60))
def test_an_example_never_needs_more_room_than_there_is_and_keeps_what_is_next_to_the_cut(
    text: str, seed: int, room: int
) -> None:
    encoder = _ENCODER[0]
    made = infill(text, encoder, TOKENS, random.Random(seed), room)
    whole = infill(text, encoder, TOKENS, random.Random(seed), 10_000)
    assert len(made) <= room
    assert len(made) == min(room, len(whole))
    if made[1] != TOKENS.suffix:
        prefix, full = made[1 : made.index(TOKENS.suffix)], whole[1 : whole.index(TOKENS.suffix)]
        assert full[len(full) - len(prefix) :] == prefix


def test_a_long_text_becomes_examples_that_each_fit_a_sequence(make_tokenizer: "Callable[..., Any]") -> None:
    tokenizer = make_tokenizer("<fim_prefix>", "<fim_suffix>", "<fim_middle>", begins=True)
    encoder = build_encoder(tokenizer)
    text = "".join(f"line_{index} = {index}\n" for index in range(40))
    corpus = Corpus(
        [text], [[*encoder.encode([text])[0], encoder.end]], encoder, 64, find_fim_tokens(tokenizer), 1.0, 0
    )
    packed = corpus.epoch(0)
    vocabulary = tokenizer.get_vocab()
    sentinels = [vocabulary[token] for token in ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")]
    assert len(packed) > 5
    for row in range(len(packed)):
        for segment in range(int(packed.segments[row].max()) + 1):
            piece = packed.tokens[row][packed.segments[row] == segment].tolist()
            assert [piece.count(token) for token in sentinels] == [1, 1, 1]
            assert (piece[0], piece[-1]) == (vocabulary["<s>"], vocabulary["</s>"])


@pytest.mark.parametrize(("rate", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_the_rate_is_the_share_of_documents(
    make_tokenizer: "Callable[..., Any]", rate: float, least: int, most: int
) -> None:
    tokenizer = make_tokenizer("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
    encoder = build_encoder(tokenizer)
    texts = [f"x{index} = {index}" for index in range(200)]
    plain = [[*tokens, encoder.end] for tokens in encoder.encode(texts)]
    corpus = Corpus(texts, plain, encoder, 64, find_fim_tokens(tokenizer), rate, 3)
    found = int((corpus.epoch(0).tokens == tokenizer.get_vocab()["<fim_middle>"]).sum())
    assert least <= found <= most
