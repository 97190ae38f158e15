"""vLLM's own HTTP routes, called in process: what lies beneath the middleware is an ASGI callable like any other."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Scope

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
MODELS = "/v1/models"
HEALTH = "/health"
MAX_MESSAGE_LETTERS = 1000


class VllmError(Exception):
    """vLLM refused a call or failed in it; the text is vLLM's own sentence."""


@dataclass(frozen=True)
class Answer:
    """What a route said."""

    status: int
    body: bytes

    def sentence(self) -> str:
        """The message of an error, bounded."""
        try:
            text = json.loads(self.body)["error"]["message"]
        except (ValueError, KeyError, TypeError):  # another release may word its errors in another form
            text = self.body.decode(errors="replace")
        return f"vLLM answered {self.status}: {str(text)[:MAX_MESSAGE_LETTERS]}"


class VllmRoutes:
    """Calls to vLLM's public routes, past the middleware."""

    def __init__(self, app: ASGIApp, outer: Scope, api_key: str = "") -> None:
        """`outer` is any scope that the server sent: it carries the application and its state."""
        self._app = app
        self._shared = {key: outer[key] for key in ("app", "state") if key in outer}
        self._api_key = api_key

    async def is_healthy(self) -> bool:
        """Whether the engine runs."""
        return (await self._call("GET", HEALTH)).status == 200

    async def base_models(self) -> list[str]:
        """The names of the base model. Raises: VllmError."""
        return [card["id"] for card in await self._cards() if card.get("parent") is None]

    async def load(self, model: str, folder: Path) -> None:
        """Have vLLM hold a folder under a name. Raises: VllmError."""
        answer = await self._call("POST", LOAD, {"lora_name": model, "lora_path": str(folder)})
        # A load whose answer was lost is found in the list: the name holds the digest, so it is the same adapter.
        if answer.status != 200 and model not in [card["id"] for card in await self._cards()]:
            raise VllmError(answer.sentence())

    async def unload(self, model: str) -> None:
        """Have vLLM let go of a name; one that it doesn't hold is fine. Raises: VllmError."""
        answer = await self._call("POST", UNLOAD, {"lora_name": model})
        if answer.status not in (200, 404):
            raise VllmError(answer.sentence())

    async def _cards(self) -> list[dict[str, Any]]:
        answer = await self._call("GET", MODELS)
        if answer.status != 200:
            raise VllmError(answer.sentence())
        try:
            cards: list[dict[str, Any]] = json.loads(answer.body)["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise VllmError(f"{MODELS} is not the list of models that it was: {answer.body[:200]!r}") from error
        return cards

    async def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> Answer:
        body = b"" if content is None else json.dumps(content).encode()
        received = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            if received:
                return received.pop()
            return await asyncio.Future()  # nobody hangs up on this call

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            await self._app(self._scope(method, path, len(body)), receive, send)
        except Exception as error:  # the border: whatever vLLM lets out becomes our one error, cause kept
            raise VllmError(
                f"{method} {path} failed: {type(error).__name__}: {str(error)[:MAX_MESSAGE_LETTERS]}"
            ) from error
        status = next((message["status"] for message in sent if message["type"] == "http.response.start"), 500)
        return Answer(status, b"".join(message.get("body", b"") for message in sent))

    def _scope(self, method: str, path: str, length: int) -> Scope:
        headers = [(b"host", b"localhost"), (b"content-length", str(length).encode())]
        headers.append((b"content-type", b"application/json"))
        if self._api_key:
            headers.append((b"authorization", f"Bearer {self._api_key}".encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            **{key: dict(value) if key == "state" else value for key, value in self._shared.items()},
        }
