"""How many tokens an answer took: read as it passes, whatever pieces it comes in, and unseen by the client.

The streams are those of vLLM 0.32 without and with `include_usage`, as it wrote them.
"""

import json
from itertools import pairwise
from typing import Any

import pytest
from codetune_gateway.counting import Answer, EventStream, Tokens, WholeAnswer, ask_for_usage
from hypothesis import example, given
from hypothesis import strategies as st

PIECE = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"base","choices":[{"index":0,"text":%b,'
    b'"logprobs":null,"finish_reason":%b,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]%b}\n\n'
)
CHAT_PIECE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"base","choices":[{"index":0,'
    b'"delta":{"content":%b},"logprobs":null,"finish_reason":%b,"token_ids":null}]%b}\n\n'
)
FINGERPRINT = b',"system_fingerprint":"vllm-0.32.0-893d5fc5"'
USAGE = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"base","choices":[],'
    b'"usage":{"prompt_tokens":2,"total_tokens":5,"completion_tokens":3}%b}\n\n'
)
DONE = b"data: [DONE]\n\n"
NASTY = rb'"}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}, \"finish_reason\":\"stop\""'


def stream(piece: bytes, end: bytes = FINGERPRINT) -> bytes:
    """What a client sees that asks for nothing more."""
    texts = [piece % (text, b"null", b"") for text in (b'"a"', NASTY)]
    return b"".join([*texts, piece % (b'""', b'"length"', end), DONE])


def with_usage(piece: bytes) -> bytes:
    """The same if it asks for the usage: the fingerprint stands there."""
    return stream(piece, b"").replace(DONE, USAGE % FINGERPRINT + DONE)


def pass_in_pieces(answer: Answer, data: bytes, size: int) -> bytes:
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    return b"".join(map(answer.feed, pieces)) + answer.finish()


SIZES = [*range(1, 40), 100, 250, 10_000]


@pytest.mark.parametrize("piece", [pytest.param(PIECE, id="completion"), pytest.param(CHAT_PIECE, id="chat")])
@pytest.mark.parametrize("size", SIZES)
def test_a_client_that_did_not_ask_sees_what_it_would_have_seen(size: int, piece: bytes) -> None:
    answer = EventStream(is_asked_for=True)
    assert pass_in_pieces(answer, with_usage(piece), size) == stream(piece)
    assert answer.tokens == Tokens(2, 3)


@pytest.mark.parametrize("size", SIZES)
def test_a_client_that_asked_gets_it_and_it_is_counted_too(size: int) -> None:
    answer = EventStream(is_asked_for=False)
    assert pass_in_pieces(answer, with_usage(PIECE), size) == with_usage(PIECE)
    assert answer.tokens == Tokens(2, 3)


def test_of_a_running_count_only_the_last_one_counts() -> None:
    running = PIECE % (b'"a"', b"null", b',"usage":{"prompt_tokens":2,"total_tokens":3,"completion_tokens":1}')
    answer = EventStream(is_asked_for=False)
    assert answer.feed(running) == running
    assert answer.tokens is None
    assert answer.feed(USAGE % b"") == USAGE % b""
    assert answer.tokens == Tokens(2, 3)


@pytest.mark.parametrize("size", SIZES)
def test_what_a_server_tells_everybody_is_not_taken_out(size: int) -> None:
    """As vLLM does with `--enable-force-include-usage`."""
    running = b',"usage":{"prompt_tokens":2,"total_tokens":3,"completion_tokens":1}'
    told = b"".join(PIECE % (b'"a"', end, running) for end in (b"null", b'"stop"')) + USAGE % FINGERPRINT + DONE
    answer = EventStream(is_asked_for=True)
    assert pass_in_pieces(answer, told, size) == told
    assert answer.tokens == Tokens(2, 3)


def test_every_event_is_passed_on_as_soon_as_it_is_whole() -> None:
    first, second = PIECE % (b'"a"', b"null", b""), PIECE % (b'"b"', b"null", b"")
    answer = EventStream(is_asked_for=True)
    assert [answer.feed(first), answer.feed(second[:50]), answer.feed(second[50:] + first[:9])] == [first, b"", second]


def test_the_end_of_a_choice_waits_for_the_next_event_and_no_longer() -> None:
    """The event that follows may be that of another choice, which has a while to go."""
    end, other = PIECE % (b'"a"', b'"stop"', b""), PIECE % (b'"b"', b"null", b"")
    answer = EventStream(is_asked_for=True)
    assert [answer.feed(end), answer.feed(other)] == [b"", end + other]
    assert [answer.feed(end), answer.feed(end), answer.finish()] == [b"", end, end]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b": ping\n\n" + PIECE % (b'"a"', b"null", b""), id="a comment"),
        pytest.param(b"event: x\ndata: 1\n\n", id="a named event"),
        pytest.param(b'data: {"error":{"message":"x"}}\n\n', id="an error"),
        pytest.param(b'data: {"choices":[]}\n\n', id="no usage"),
        pytest.param(b'data: {"choices":[],"usage":null}\n\n', id="usage that is none"),
        pytest.param(b'data: {"choices":[],"usage":{"prompt_tokens":-1}}\n\n', id="tokens that are none"),
        pytest.param(b'data: {"choices":[],"usage":\n\n', id="no JSON"),
        pytest.param(b"data: 1\r\n\r\ndata: 2\r\n\r\n", id="line breaks of another kind"),
        pytest.param(b"no events at all" * 9, id="no events"),
        pytest.param(b"\n\n\n\n\n", id="line breaks only"),
        pytest.param(PIECE % (b'"%b"' % (b"x" * 40_000), b"null", b"") + DONE, id="a long event"),
        pytest.param(PIECE % (b'"a"', b'"stop"', b"") + b"data: {", id="cut off"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_what_is_not_about_the_usage_is_passed_on_byte_by_byte(size: int, data: bytes) -> None:
    answer = EventStream(is_asked_for=True)
    assert pass_in_pieces(answer, data, size) == data
    assert answer.tokens is None


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_the_usage_after_a_long_event_is_found(size: int) -> None:
    long = PIECE % (b'"%b"' % (b"x" * 40_000), b"null", b"")
    answer = EventStream(is_asked_for=True)
    assert pass_in_pieces(answer, long + USAGE % b"" + DONE, size) == long + DONE
    assert answer.tokens == Tokens(2, 3)


ANY = [PIECE % (b'"a"', b"null", b""), PIECE % (b'"a"', b'"stop"', b""), b": ping\n\n", b"event: x\ndata: 1\n\n", DONE]
ANY += [b"data: 1\ndata: 2\n\n", b'data: {"error":{}}\r\n\r\n', b"data: x\r\r", b"data: %b\n\n" % (b"x" * 20_000)]
ANY += [b"\n", b"\r", b"\r\n", b"d", b"data", b"data: 1\n", b"\r" * 20_000]


@given(
    st.lists(st.sampled_from(ANY), max_size=8), st.lists(st.integers(0, 1000) | st.integers(0, 50_000)), st.booleans()
)
@example([b"\r" * 20_000], [], True)
def test_wherever_a_stream_is_cut_it_is_the_same_and_little_of_it_is_held(
    parts: list[bytes], cuts: list[int], is_asked_for: bool
) -> None:
    whole, passed = b"".join(parts), b""
    answer = EventStream(is_asked_for=is_asked_for)
    for start, end in pairwise([0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]):
        passed += answer.feed(whole[start:end])
        assert end - len(passed) < 17_000
    assert passed + answer.finish() == whole


def test_of_an_event_that_can_not_be_about_the_usage_nothing_is_held_back() -> None:
    answer = EventStream(is_asked_for=True)
    assert answer.feed(b"event: tick") == b"event: tick"
    long = b"data: " + b"x" * 20_000
    answer = EventStream(is_asked_for=True)
    assert (answer.feed(long), answer.feed(b"more")) == (long, b"more")


WHOLE = {
    "choices": [{"text": 'a "usage": {"prompt_tokens": 9}', "logprobs": {"tokens": ["x"] * 2000}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}},
    "prompt_logprobs": [None] * 2000,
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("size", [1, 2, 3, 100, 5000, 100_000])
def test_a_whole_answer_is_passed_on_and_counted(size: int, indent: int | None) -> None:
    data, answer = json.dumps(WHOLE, indent=indent).encode(), WholeAnswer()
    assert pass_in_pieces(answer, data, size) == data
    assert answer.tokens == Tokens(7, 4)


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": True}, {"prompt_tokens": "7"}, {"completion_tokens": 1}])
def test_a_whole_answer_without_usage_counts_nothing(usage: Any) -> None:
    answer = WholeAnswer()
    answer.feed(json.dumps({"choices": [], "usage": usage}).encode())
    assert answer.tokens is None


NOW = {"include_usage": True, "continuous_usage_stats": False}
ASKED = [
    pytest.param(NOW, {"stream": True}, id="nothing said"),
    pytest.param(NOW, {"stream": 1, "stream_options": None}, id="null"),
    pytest.param(NOW, {"stream": True, "stream_options": {"include_usage": False}}, id="not wanted"),
    pytest.param(NOW, {"stream": True, "stream_options": {"continuous_usage_stats": True}}, id="half of it wanted"),
    pytest.param(NOW | {"x": 1}, {"stream": True, "stream_options": {"x": 1}}, id="what else is said stays"),
    pytest.param(None, {}, id="no stream"),
    pytest.param(None, {"stream": False, "stream_options": {}}, id="no stream, by the word"),
    pytest.param(None, {"stream": True, "stream_options": {"include_usage": True}}, id="wanted"),
    pytest.param(None, {"stream": True, "stream_options": {"include_usage": 1}}, id="wanted, in other words"),
    pytest.param(None, {"stream": True, "stream_options": {"include_usage": "x"}}, id="refused by the server"),
    pytest.param(None, {"stream": True, "stream_options": {"continuous_usage_stats": "x"}}, id="refused as well"),
    pytest.param(None, {"stream": True, "stream_options": []}, id="no options"),
]


@pytest.mark.parametrize(("expected", "request_"), ASKED)
@pytest.mark.parametrize("end", [b"", b" \r\n"])
def test_a_stream_is_asked_for_its_usage_unless_the_client_has(
    end: bytes, expected: Any, request_: dict[str, Any]
) -> None:
    request_ = {"model": "base", "prompt": "é}", **request_}
    asked = ask_for_usage(json.dumps(request_, ensure_ascii=False).encode() + end, request_)
    assert (asked and json.loads(asked)) == (expected and {**request_, "stream_options": expected})


def test_nothing_else_of_the_request_changes() -> None:
    body = b'{ "n":1.50,"stream":true}'
    asked = ask_for_usage(body, json.loads(body))
    assert asked is not None
    assert asked.startswith(body[:-1])
    assert not [1 for first, second in pairwise(json.loads(asked, object_pairs_hook=list)) if first == second]
