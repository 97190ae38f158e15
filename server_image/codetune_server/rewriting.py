"""Model names in JSON bytes: a request's is replaced by the version's, an answer's by the stable name. Pure.

Both work on the bytes as they are, so that nothing else in a body changes. That is safe because inside a JSON
string every quote is escaped: `"model":"x"` can only be a key with its value, never a part of somebody's text. (Of
UTF-8 that is true. JSON in UTF-16, which parsers take too, may spell it with other letters: it is written anew.)
"""

import json
import re
from typing import Any

_MODEL_KEY = re.compile(rb'"model"\s*:\s*"')


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body holds; None for anything else, which is vLLM's to refuse."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def replace_model(body: bytes, request: dict[str, Any], model: str) -> bytes:
    """The request with another `model`; `request` is what `body` holds.

    The bytes are spliced where exactly one plain `"model": "…"` can be the one that is meant; otherwise (nested
    keys of the same name, escaped letters, no UTF-8) the whole body is written anew.
    """
    matches = list(_MODEL_KEY.finditer(body))
    old = json.dumps(request["model"]).encode()[1:]
    is_plain = json.detect_encoding(body).startswith("utf-8") and b"\\u" not in body
    if len(matches) == 1 and is_plain and body.startswith(old, matches[0].end()):
        start = matches[0].end()
        return body[:start] + json.dumps(model).encode()[1:] + body[start + len(old) :]
    return json.dumps({**request, "model": model}).encode()


class NameRestorer:
    """Turns `"model":"NAME@…"` back into `"model":"NAME"` in an answer that comes in pieces.

    A piece that could be the beginning of the key is held back until the next one decides; an event of a stream
    ends with a line break, so it is never held.
    """

    def __init__(self, model: str, name: str) -> None:
        pairs = ((b'"model":"', b'"'), (b'"model": "', b'"'))  # compact, as vLLM writes it, and Python's default
        self._replacements = [(head + model.encode() + tail, head + name.encode() + tail) for head, tail in pairs]
        self._held = b""

    def feed(self, piece: bytes, *, last: bool) -> bytes:
        """What can be sent on after this piece."""
        data = self._held + piece
        for old, new in self._replacements:
            if old in data:
                data = data.replace(old, new)
        held = 0 if last else max(_open_end(data, old) for old, _ in self._replacements)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]


def _open_end(data: bytes, needle: bytes) -> int:
    """How many bytes at the end of `data` are a beginning of `needle`."""
    if data[-1:] not in needle:  # as after every whole event
        return 0
    earliest = max(0, len(data) - len(needle) + 1)
    start = data.find(needle[:1], earliest)
    while start != -1:
        if needle.startswith(data[start:]):
            return len(data) - start
        start = data.find(needle[:1], start + 1)
    return 0
