"""Fill-in-the-middle in `/v1/completions`: `vllm … --middleware codetune_server.infilling.InfillMiddleware`.

vLLM refuses `suffix` for nearly all models. Here the text before and the text after the cursor become one prompt of
token ids in the model family's own format: the one that the trainer trains with, from the same table.

A prompt that a client has laid out in that format itself stays as it is: vLLM reads the tokens in it. What ends a
middle is added: vLLM stops at the model's end of text alone, and a client's `stop` meets no token that is special,
because answers hold none of these.
"""

import asyncio
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codetune_api.infilling import FAMILIES, Encode, Family, Format, build_literal, find_format, spell
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from codetune_server.answering import with_length
from codetune_server.bodies import BodyTooLarge, read_body, replay
from codetune_server.replies import error_reply
from codetune_server.rewriting import parse_object

ENV_TOKENIZER = "CODETUNE_TOKENIZER"
"""Folder with the served model's tokenizer; `serve` sets it."""
COMPLETIONS = "/v1/completions"
MAX_BODY_BYTES = 64 << 20
# What would mean something else, or nothing, beside a prompt that is made of two texts.
_UNSUPPORTED = ("echo", "prompt_embeds", "truncate_prompt_tokens")
# Most requests are not parsed at all: without one of these there is no `suffix`, and no prompt that is laid out.
_SIGNS = (b"suffix", b"\\u", *sorted({spell(family.suffix).encode() for family in FAMILIES}))


class Refused(Exception):
    """A request can't be carried out as it stands; `param` is the field to change."""

    def __init__(self, message: str, param: str = "suffix") -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class Infiller:
    """One model's tokenizer and its format."""

    begin: tuple[int, ...]
    """What the tokenizer puts before any text."""
    format: Format | None
    encode: Encode
    """Token ids of a text, nothing added; code that spells a special token stays text."""
    readable: tuple[Family, ...] = ()
    """Families whose tokens the tokenizer has, so that a prompt may be laid out in their format."""

    @classmethod
    def load(cls, folder: Path) -> "Infiller":
        """Read a model folder. Raises: OSError, ValueError when it holds no tokenizer."""
        # Late: a server that never gets a `suffix` need not read its tokenizer a second time.
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        leading = tokenizer("a")["input_ids"][:1]
        begin = tuple(leading) if leading == [tokenizer.bos_token_id] else ()

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            return ids

        vocabulary = tokenizer.get_vocab()
        readable = tuple(family for family in FAMILIES if all(token in vocabulary for token in family.sentinels))
        found = find_format(vocabulary, tokenizer.eos_token_id)
        return cls(begin, found, build_literal(encode, vocabulary), readable)

    def build_prompt(self, prefix: str, suffix: str) -> list[int]:
        """Token ids between which and the end the middle belongs. Raises: Refused."""
        if self.format is None:
            raise Refused("this model has no fill-in-the-middle tokens: leave `suffix` out")
        return [*self.begin, *self.format.prompt(prefix, suffix, self.encode)]

    def rewrite(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request that vLLM gets instead of one that asks for a middle. Raises: Refused."""
        return self._end(request) if request.get("suffix") is None else self._lay_out(request)

    def _end(self, request: dict[str, Any]) -> dict[str, Any]:
        """A request whose prompts the client has laid out. Raises: Refused when this model lacks the tokens."""
        if find_layout(request, self.readable):
            return {**request, "stop_token_ids": self._list_stops(request)}
        found = find_layout(request)
        if found is None:
            return request
        message = f"`prompt` has the fill-in-the-middle format {found.layout}, and this model"
        if self.format is None:
            raise Refused(f"{message} has none: turn fill-in-the-middle off in the editor", "prompt")
        own = self.format.family.layout
        raise Refused(f"{message}'s is {own}: set that one in the editor, or let it send `suffix`", "prompt")

    def _lay_out(self, request: dict[str, Any]) -> dict[str, Any]:
        suffix, prompt = request["suffix"], request.get("prompt")
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(suffix, str):
            raise Refused("`suffix` must be a text")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise Refused("`prompt` must be a text, or a list of texts, where there is a `suffix`", "prompt")
        for field in _UNSUPPORTED:
            if request.get(field):
                raise Refused(f"`{field}` can't be combined with `suffix`: leave one of them out", field)
        stops = self._list_stops(request)
        prompts = [self.build_prompt(text, suffix) for text in texts]
        rest = {key: value for key, value in request.items() if key != "suffix"}
        return {**rest, "prompt": prompts if isinstance(prompt, list) else prompts[0], "stop_token_ids": stops}

    def _list_stops(self, request: dict[str, Any]) -> list[int]:
        asked = request.get("stop_token_ids") or []
        if not isinstance(asked, list) or not all(type(token) is int for token in asked):
            raise Refused("`stop_token_ids` must be a list of token ids", "stop_token_ids")
        return [*asked, *(self.format.stops if self.format else ())]


def find_layout(request: dict[str, Any], families: Iterable[Family] = FAMILIES) -> Family | None:
    """The first of the formats in which the client has laid out its prompts; None: they are plain."""
    prompt = request.get("prompt")
    texts = [text for text in (prompt if isinstance(prompt, list) else [prompt]) if isinstance(text, str)]
    return next((family for family in families if texts and all(map(family.has_laid_out, texts))), None)


class InfillMiddleware:
    """Rewrites requests for a middle; everything else passes untouched."""

    def __init__(self, app: ASGIApp, folder: Path | None = None) -> None:
        self._app = app
        self._folder = folder or Path(os.environ.get(ENV_TOKENIZER, ""))
        self._infiller: Infiller | None = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one ASGI connection."""
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else ""
        if path != COMPLETIONS or scope["method"] != "POST" or not _is_json(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await read_body(receive, MAX_BODY_BYTES)
        except BodyTooLarge as error:
            await error_reply(413, str(error))(scope, receive, send)
            return
        if body is None:
            return
        request = parse_object(body) if any(sign in body for sign in _SIGNS) else None
        if request is not None and (request.get("suffix") is not None or find_layout(request)):
            try:
                body = await self._rewrite(request, body)
            except Refused as error:
                await error_reply(400, str(error), error.param)(scope, receive, send)
                return
            scope = {**scope, "headers": with_length(scope["headers"], len(body))}
        await self._app(scope, replay(body, receive), send)

    async def _rewrite(self, request: dict[str, Any], body: bytes) -> bytes:
        try:
            infiller = await self._load()
        except Refused:
            if request.get("suffix") is None:
                return body  # the prompt is whole without us
            raise
        return json.dumps(await asyncio.to_thread(infiller.rewrite, request)).encode()

    async def _load(self) -> Infiller:
        async with self._loading:
            if self._infiller is None:
                try:
                    self._infiller = await asyncio.to_thread(Infiller.load, self._folder)
                except (OSError, ValueError) as error:
                    message = f"`suffix` can't be served, because the tokenizer in {self._folder} can't be read"
                    raise Refused(f"{message}: {type(error).__name__}") from error
        return self._infiller


def _is_json(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "application/json").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")
