"""Text to tokens: nothing in source code poses as a special token, and pieces hold whole characters."""

from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.train.data.encoding import Encoder, build_encoder
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable


def test_code_that_spells_a_special_token_stays_text(encoder: Encoder) -> None:
    (tokens,) = encoder.encode(["end = '</s>'"])
    assert encoder.end not in tokens
    assert encoder.decode(tokens) == "end = '</s>'"


@pytest.mark.parametrize(
    ("begins", "expected"),
    [pytest.param(True, (256,), id="as the tokenizer does"), pytest.param(False, (), id="as the tokenizer does not")],
)
def test_texts_begin_as_a_server_lets_them_begin(
    make_tokenizer: "Callable[..., Any]", begins: bool, expected: tuple[int, ...]
) -> None:
    assert build_encoder(make_tokenizer(begins=begins)).begin == expected


_ENCODER: list[Encoder] = []


@pytest.fixture(autouse=True, scope="module")
def _byte_encoder(make_tokenizer: "Callable[..., Any]") -> None:
    _ENCODER.append(build_encoder(make_tokenizer()))


@given(st.text(max_size=120), st.integers(4, 40))
def test_pieces_of_a_text_are_the_text(text: str, room: int) -> None:
    pieces = _ENCODER[0].cut(text, room)
    assert "".join(pieces) == text
    # A character that lies on a border is whole in one of them: at most its three other bytes too many.
    assert all(len(piece.encode()) <= room + 3 for piece in pieces)


def test_no_text_gives_no_tokens(encoder: Encoder) -> None:
    assert encoder.encode([]) == []
    assert encoder.cut("", 8) == []
