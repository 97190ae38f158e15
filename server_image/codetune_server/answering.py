"""Answers on their way out: the version's name in them becomes the stable name again."""

from collections.abc import Callable, Iterable

from starlette.datastructures import Headers
from starlette.types import Message, Send

from codetune_server.rewriting import NameRestorer

_NAMING_TYPES = ("application/json", "text/event-stream")


class NameRestoring:
    """A `send` that gives JSON and event streams the stable name; streams aren't held up, other types not touched."""

    def __init__(self, send: Send, model: str, name: str) -> None:
        self._send = send
        self._restorer = NameRestorer(model, name)
        self._touches = False
        self._head: Message | None = None
        """Head of a JSON answer, kept until its body is known: its length changes."""
        self._pieces: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Take one ASGI message."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body" and self._touches:
            await self._continue(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        headers = Headers(raw=list(message["headers"]))
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._touches = kind in _NAMING_TYPES and "content-encoding" not in headers
        if self._touches and "content-length" in headers:
            self._head = message
        else:
            await self._send(message)

    async def _continue(self, message: Message) -> None:
        is_last = not message.get("more_body", False)
        body = self._restorer.feed(message.get("body", b""), last=is_last)
        if self._head is not None:
            self._pieces.append(body)
            if not is_last:
                return
            body = b"".join(self._pieces)
            await self._send({**self._head, "headers": with_length(self._head["headers"], len(body))})
        if body or is_last:
            await self._send({**message, "body": body})


class Rewriting:
    """A `send` that gathers a whole answer and sends what `rewrite(status, body)` makes of it."""

    def __init__(self, send: Send, rewrite: Callable[[int, bytes], tuple[int, bytes]]) -> None:
        self._send = send
        self._rewrite = rewrite
        self._head: Message = {}
        self._pieces: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Take one ASGI message."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        self._pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            status, body = self._rewrite(self._head["status"], b"".join(self._pieces))
            headers = with_length(self._head["headers"], len(body))
            await self._send({**self._head, "status": status, "headers": headers})
            await self._send({"type": "http.response.body", "body": body, "more_body": False})


def with_length(headers: Iterable[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    """Raw headers for a body of this length."""
    kept = [(name, value) for name, value in headers if name.lower() not in (b"content-length", b"transfer-encoding")]
    return [*kept, (b"content-length", str(length).encode())]
