"""A store service on a temporary store, spoken to over real HTTP."""

import hashlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from codetune_api.metadata import STORE_TOKEN_HEADER
from codetune_api.uploads import UploadEntry, manifest_line, pack_header
from codetune_store.app import build_app
from codetune_store.settings import StoreSettings
from yarl import URL

TOKEN = "the-token-of-this-namespace"


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """As JSON."""
        return json.loads(self.body)

    @property
    def rows(self) -> list[Any]:
        """As JSON Lines."""
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class Service:
    """A running store service and a client of it."""

    root: Path
    url: str
    requests: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=lambda: {STORE_TOKEN_HEADER: TOKEN})

    @property
    def upload(self) -> Path:
        """The folder of the upload source `code` of the Project `shop`."""
        return self.root / "team/projects/shop/uploads/code"

    async def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request, its path as it stands."""
        url, sent = URL(self.url + path, encoded=True), {**self.headers, **headers}
        async with self.requests.request(method, url, data=body and io.BytesIO(body), headers=sent) as answer:
            return Reply(answer.status, await answer.read(), answer.headers)

    async def begin(self, manifest: bytes, source: str = "code") -> "Sending":
        """Begin an upload and send its manifest."""
        sending = Sending(self, f"/v1/projects/shop/uploads/{source}", hashlib.sha256(manifest).hexdigest())
        request = json.dumps({"sha256": sending.session, "bytes": len(manifest)}).encode()
        begun = await self.call("POST", sending.root, request)
        assert begun.status == 200, begun.body
        if not begun.json["complete"]:
            sent = await sending.call("PUT", f"manifest?offset={begun.json['offset']}", manifest)
            assert sent.status == 200, sent.body
        return sending

    async def send(self, files: Mapping[str, bytes]) -> Reply:
        """A whole upload. Returns: the answer to its commit."""
        sending = await self.begin(self.manifest(files))
        missing = {row["sha256"] for row in (await sending.call("GET", "missing")).rows}
        contents = [content for content in files.values() if self.digest(content) in missing]
        assert (await sending.call("POST", "packs", self.pack(*contents))).status == 200
        return await sending.call("POST", "commit")

    @staticmethod
    def digest(content: bytes) -> str:
        """Hex SHA-256."""
        return hashlib.sha256(content).hexdigest()

    @staticmethod
    def manifest(files: Mapping[str, bytes]) -> bytes:
        """The manifest of these files."""
        entries = [
            UploadEntry(path=path, bytes=len(content), sha256=Service.digest(content))
            for path, content in sorted(files.items(), key=lambda item: item[0].encode())
        ]
        return b"".join(map(manifest_line, entries))

    @staticmethod
    def pack(*contents: bytes) -> bytes:
        """A pack of these contents."""
        return b"".join(pack_header(Service.digest(content), len(content)) + content for content in contents)

    def blobs(self) -> set[str]:
        """Digests of the contents that are there."""
        return {path.name for path in self.upload.glob("blobs/*/*")}


@dataclass(frozen=True)
class Sending:
    """An open session."""

    service: Service
    root: str
    session: str

    async def call(self, method: str, rest: str, body: bytes | None = None) -> Reply:
        """One request below the session."""
        return await self.service.call(method, f"{self.root}/{self.session}/{rest}", body)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A store service on loopback."""
    root = (tmp_path / "store").resolve()
    root.mkdir()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    settings = StoreSettings(root=root, namespace="team", token_file=tmp_path / "token")
    runner = web.AppRunner(build_app(settings), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as requests:
        yield Service(root, f"http://127.0.0.1:{runner.addresses[0][1]}", requests)
    await runner.cleanup()
