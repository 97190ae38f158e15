"""How many tokens an answer took, read from the answer itself as it passes. Pure.

A stream tells it only on request, in an event of its own at the end. Where the client did not ask, the gateway does and
takes that event out again, so that the client sees what it would have seen. vLLM then also puts its fingerprint into
that event, and not into those with which choices end: so each of these waits for the next one, which vLLM has written
by then, and the last one gets the fingerprint back. (Others would have to wait for all choices: they go without.)
Every other event is passed on as soon as it is whole.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

_SWITCHES = ("include_usage", "continuous_usage_stats")
_OPTIONS = "stream_options"
_MAX_EVENT_BYTES = 16 << 10
"""The event with the usage has some hundred bytes; what is longer passes as it comes."""
_MAX_BREAK_BYTES = 3
"""What ends a line, and all but the last byte of what ends the next one."""
_KEPT_BYTES = 2 << 10
"""Of a whole answer: `usage` with everything in it."""
_DATA = b"data:"
_BLANK_LINE = re.compile(rb"\n\r?\n")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_ENDS_CHOICE = re.compile(rb'"finish_reason"\s*:\s*"')
# In a text of somebody's every quote is escaped, so this can't be part of one.
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


@dataclass(frozen=True)
class Tokens:
    """What an answer took."""

    prompt: int
    completion: int


def ask_for_usage(body: bytes, request: dict[str, Any]) -> bytes | None:
    """The body of a request that asks for the usage too; None where the client has asked, or there is nothing to ask.

    Args:
        body: A JSON object in UTF-8.
        request: What `body` holds.
    """
    given = request.get(_OPTIONS)
    options = {} if given is None else given
    if not request.get("stream") or not isinstance(options, dict) or options.get("include_usage") is True:
        return None
    if not all(isinstance(options.get(switch), bool | None) for switch in _SWITCHES):
        return None  # what that means, or whether it is refused, is the server's to say
    # Without `include_usage` the other switch does nothing, with it each event would be another one.
    options = {**options, "include_usage": True, "continuous_usage_stats": False}
    if _OPTIONS in request:
        return json.dumps({**request, _OPTIONS: options}).encode()
    return body.rstrip()[:-1] + f', "{_OPTIONS}": {json.dumps(options)}}}'.encode()


class Answer:
    """An answer of which nothing is known: it passes."""

    tokens: Tokens | None = None

    def feed(self, piece: bytes) -> bytes:
        """What can be passed on after this piece."""
        return piece

    def finish(self) -> bytes:
        """What is left at the end, wherever that is."""
        return b""


class WholeAnswer(Answer):
    """One JSON object."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """The piece; the tokens are known once `usage` has passed."""
        if self.tokens is None:
            data = self._kept + piece
            found = _USAGE.search(data)
            self.tokens = read_tokens(_parse(found.group(1))) if found else None
            self._kept = data[-_KEPT_BYTES:]
        return piece


class EventStream(Answer):
    """Server-sent events.

    Args:
        is_asked_for: Whether the gateway has asked for the usage, and not the client.
    """

    def __init__(self, *, is_asked_for: bool) -> None:
        self._is_asked_for = is_asked_for
        self._open = b""
        """The beginning of an event."""
        self._waiting = b""
        """An event that ends a choice."""
        self._is_within = False
        """The beginning of the event that comes was passed on already."""

    def feed(self, piece: bytes) -> bytes:
        """Every event that is whole, and of others what can't be about the usage."""
        data, start, passed = self._open + piece, 0, b""
        for found in _BLANK_LINE.finditer(data):
            passed += self._take(data[start : found.end()])
            start = found.end()
        rest = data[start:]
        if not self._is_within and rest[: len(_DATA)] == _DATA[: len(rest)] and len(rest) <= _MAX_EVENT_BYTES:
            self._open = rest
            return passed
        # A line break stays: with the next one it may be the end of the event.
        end = max(len(rest.rstrip(b"\r\n")), len(rest) - _MAX_BREAK_BYTES)
        self._open = rest[end:]
        if not end:
            return passed
        self._is_within = True
        return passed + self._release() + rest[:end]

    def finish(self) -> bytes:
        """What a stream that broke off has begun."""
        rest, self._open = self._release() + self._open, b""
        return rest

    def _take(self, event: bytes) -> bytes:
        """What a whole event is passed on as."""
        if self._is_within:
            self._is_within = False
            return self._release() + event
        if not self._is_asked_for or not event.startswith(_DATA):
            self._note(event)
            return self._release() + event
        usage = self._note(event)
        if usage is not None:
            return self._release(usage.get("system_fingerprint"))
        passed = self._release()
        if b'"usage":{' in event:
            self._is_asked_for = False  # a server that tells it in each event tells it to everybody
        if not self._is_asked_for or not _ENDS_CHOICE.search(event):
            return passed + event
        self._waiting = event
        return passed

    def _note(self, event: bytes) -> dict[str, Any] | None:
        """The content of an event, if it is the one about the usage."""
        if not event.startswith(_DATA) or not _NO_CHOICES.search(event):
            return None
        content = _parse(event[len(_DATA) :])
        if not isinstance(content, dict) or content.get("choices") != []:
            return None
        tokens = read_tokens(content.get("usage"))
        self.tokens = tokens or self.tokens
        return content if tokens else None

    def _release(self, fingerprint: object = None) -> bytes:
        """The event that waits, with what vLLM would have written into it."""
        event, self._waiting = self._waiting, b""
        text = event.rstrip()
        if not isinstance(fingerprint, str) or not text.endswith(b"}") or b'"system_fingerprint"' in text:
            return event
        return text[:-1] + b',"system_fingerprint":' + json.dumps(fingerprint).encode() + b"}" + event[len(text) :]


def read_tokens(usage: object) -> Tokens | None:
    """What `usage` says; None where it is no such object."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if type(prompt) is not int or type(completion) is not int or prompt < 0 or completion < 0:
        return None
    return Tokens(prompt, completion)


def _parse(text: bytes) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value
