"""Which headers of an answer pass, where a server says it in unusual ways."""

import pytest
from codetune_gateway.headers import pass_down, pass_up
from multidict import CIMultiDict


@pytest.mark.parametrize(
    ("expected", "headers"),
    [
        pytest.param(
            {"Via": "x"}, {"Via": "x", "Transfer-Encoding": "chunked", "Content-Length": "3"}, id="two lengths"
        ),
        pytest.param({"content-length": "3"}, {"content-length": "3", "KEEP-ALIVE": "5"}, id="in any case"),
        pytest.param(
            {}, {"Connection": "close ,X-One,, x-two", "X-One": "1", "X-TWO": "2"}, id="what Connection names"
        ),
        pytest.param({"Via": "é\tx"}, {"Via": "é\tx", "Server": "\udcff"}, id="no text"),
    ],
)
def test_what_passes_down(expected: dict[str, str], headers: dict[str, str]) -> None:
    assert dict(pass_down(CIMultiDict(headers))) == expected


def test_each_of_several_headers_of_one_name_passes() -> None:
    several = [("Vary", "Origin"), ("Vary", "Accept"), ("Connection", "a"), ("Connection", "b"), ("B", "1"), ("A", "1")]
    assert list(pass_down(CIMultiDict(several)).items()) == several[:2]


def test_text_that_cannot_be_sent_again_does_not_pass_up() -> None:
    assert "User-Agent" not in pass_up(CIMultiDict({"User-Agent": "\udcff"}), None)
