"""Names are exchanged in the bytes as they pass, wherever a chunk ends, and nothing else changes."""

import json
from typing import Any

import pytest
from codetune_server.answering import NameRestoring
from codetune_server.rewriting import NameRestorer, parse_object, replace_model
from hypothesis import example, given
from hypothesis import strategies as st

MODEL, NAME = "tuned@0123456789ab", "tuned"
TEXTS = st.text(st.sampled_from('model":,{}\\@tuned0123456789ab \n'), max_size=40) | st.just(f'"model":"{MODEL}"')
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("model"), inner, max_size=3),
    max_leaves=8,
)


def restore(pieces: list[bytes]) -> bytes:
    restorer = NameRestorer(MODEL, NAME)
    return b"".join(restorer.feed(piece, last=index == len(pieces) - 1) for index, piece in enumerate(pieces))


def renamed(value: object) -> object:
    if isinstance(value, dict):
        return {key: NAME if key == "model" and inner == MODEL else renamed(inner) for key, inner in value.items()}
    return [renamed(inner) for inner in value] if isinstance(value, list) else value


@given(st.dictionaries(st.just("model") | TEXTS, VALUES | st.just(MODEL), max_size=4), st.data(), st.booleans())
def test_any_cut_of_an_answer_gives_the_same_names(value: dict[str, object], data: st.DataObject, spaced: bool) -> None:
    whole = json.dumps(value, separators=(", ", ": ") if spaced else (",", ":")).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert json.loads(restore(pieces)) == renamed(value)


def test_every_single_byte_may_come_alone() -> None:
    whole = f'data: {{"id":"x","model":"{MODEL}","choices":[]}}\n\n'.encode()
    assert restore([bytes([byte]) for byte in whole]) == whole.replace(MODEL.encode(), NAME.encode())


def test_an_event_is_never_held_back() -> None:
    restorer = NameRestorer(MODEL, NAME)
    assert restorer.feed(f'data: {{"model":"{MODEL}"}}\n\n'.encode(), last=False) == b'data: {"model":"tuned"}\n\n'


def test_what_is_held_back_at_the_end_is_sent() -> None:
    assert restore([b'{"mod', b""]) == b'{"mod'


def test_text_that_speaks_of_the_name_stays() -> None:
    text = json.dumps({"text": f'"model":"{MODEL}" {MODEL}', "model": MODEL}, separators=(",", ":")).encode()
    assert json.loads(restore([text])) == {"text": f'"model":"{MODEL}" {MODEL}', "model": NAME}


@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.booleans())
@example({"tools": [{"model": "tuned"}]}, False)
@example({"prompt": '"model":"tuned"'}, True)
def test_a_request_changes_in_its_model_only(rest: dict[str, object], ascii_only: bool) -> None:
    request = {**rest, "model": NAME}
    body = json.dumps(request, ensure_ascii=ascii_only).encode()
    assert json.loads(replace_model(body, request, MODEL)) == {**request, "model": MODEL}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"model":"tuned","n":1.0}', b'{"model":"tuned@0123456789ab","n":1.0}', id="spliced"),
        pytest.param(
            b'{ "n": 10000000000000000000000001e-2 ,\n"model" : "tuned" }',
            b'{ "n": 10000000000000000000000001e-2 ,\n"model" : "tuned@0123456789ab" }',
            id="digits and white space kept",
        ),
        pytest.param(
            b'{"\\u006dodel": "tuned", "x": {"model": "tuned"}}',
            b'{"model": "tuned@0123456789ab", "x": {"model": "tuned"}}',
            id="an escaped key beside a nested plain one",
        ),
        pytest.param(
            b'{"x": {"model": "tuned"}, "model": "tuned"}',
            b'{"x": {"model": "tuned"}, "model": "tuned@0123456789ab"}',
            id="a nested key",
        ),
        pytest.param(
            b'{"model": "a", "model": "tuned"}', b'{"model": "tuned@0123456789ab"}', id="a key twice: the last counts"
        ),
    ],
)
def test_a_name_is_replaced_where_it_stands(body: bytes, expected: bytes) -> None:
    request = parse_object(body)
    assert request is not None
    assert replace_model(body, request, MODEL) == expected


@pytest.mark.parametrize("mark", [pytest.param("", id="without a mark"), pytest.param("\ufeff", id="with a mark")])
def test_letters_whose_bytes_spell_a_name_in_utf_16_are_text(mark: str) -> None:
    """Were they replaced, the name that counts would stay: that of a model which was never asked for here."""
    name = "other@0123456789ab"
    letters = f'"model":"{name}"'.encode().decode("utf-16-le")
    body = (mark + json.dumps({"model": name, "prompt": letters}, ensure_ascii=False)).encode("utf-16-le")
    request = parse_object(body)
    assert request == {"model": name, "prompt": letters}
    assert json.loads(replace_model(body, request, MODEL)) == {"model": MODEL, "prompt": letters}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], id="compressed"),
        pytest.param([(b"content-type", b"audio/wav")], id="another type"),
        pytest.param([], id="no type"),
    ],
)
async def test_a_body_that_is_not_readable_json_is_not_touched(headers: list[tuple[bytes, bytes]]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    restoring = NameRestoring(send, MODEL, NAME)
    messages = [
        {"type": "http.response.start", "status": 200, "headers": [*headers, (b"content-length", b"28")]},
        {"type": "http.response.body", "body": f'"model":"{MODEL}"'.encode(), "more_body": False},
    ]
    for message in messages:
        await restoring(message)
    assert sent == messages
