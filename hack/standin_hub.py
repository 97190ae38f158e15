"""A stand-in for the model hub on the loopback: the routes that fetching needs, spoken to by the real client library.

As on the real hub, a large file is not sent by the hub itself: it redirects to another host, which knows no tokens.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"
REPOSITORY = "acme/coder"
WEIGHTS = b"\x08\0\0\0\0\0\0\0{}" * 1000
MODEL = {
    "model.safetensors": WEIGHTS,
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "modeling_coder.py": b"import os",
    "onnx/model.onnx": b"onnx",
    "README.md": b"# Coder",
}
_LARGE = (".safetensors", ".bin")


@dataclass
class Hub:
    """What the stand-in answers."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(MODEL))
    token: str = ""
    """Asked for when set."""
    fault: tuple[int, str, str] | None = None
    """Status, error code and message instead of any answer."""
    gated: bool = False
    """As the hub has it: the description is public, the files are not."""
    damaged: set[str] = field(default_factory=set)
    """Files that come with other content than announced."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Announced sizes that are not the real ones."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the connection of the next large download breaks off."""
    storage_fault: int = 0
    """Status of the host of large files instead of a file."""
    commit: str = COMMIT
    """Of the branch `main`; one that was announced once stays known."""
    known: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    """Files whose content was sent."""
    ranges: list[str] = field(default_factory=list)
    """Of the downloads of large files."""
    storage_tokens: list[str] = field(default_factory=list)
    """What the host of large files got to see of the token."""
    url: str = ""
    storage: str = ""
    """The host of large files."""

    def describe(self, commit: str) -> dict[str, Any]:
        """The answer of `/api/models/...`."""
        siblings = []
        for name, content in self.files.items():
            size = self.sizes.get(name, len(content))
            entry: dict[str, Any] = {"rfilename": name, "size": size}
            if name.endswith(_LARGE):
                digest = hashlib.sha256(content).hexdigest()
                entry |= {"blobId": "0" * 40, "lfs": {"sha256": digest, "size": size, "pointerSize": 100}}
            else:
                entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            siblings.append(entry)
        return {"_id": "1", "id": REPOSITORY, "sha": commit, "siblings": siblings, "private": False}


class HubHandler(BaseHTTPRequestHandler):
    """The hub and, under the name `localhost`, the host of large files."""

    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        if path.startswith("/storage/"):
            self.send_stored(path.removeprefix("/storage/"))
            return
        hub.requests.append(path)
        if hub.fault is not None:
            status, code, message = hub.fault
            self.reply(status, b"", {"X-Error-Code": code, "X-Error-Message": message})
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.reply(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path.startswith("/api/models/"):
            self.describe(path)
        elif hub.gated:
            self.reply(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "restricted"})
        else:
            self.resolve(*path.removeprefix(f"/{REPOSITORY}/resolve/").split("/", 1))

    def describe(self, path: str) -> None:
        hub = self.hub
        repository, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        hub.known.add(hub.commit)
        if repository != REPOSITORY:
            self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision != "main" and revision not in hub.known:
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            told = hub.describe(hub.commit if revision == "main" else revision)
            self.reply(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def resolve(self, commit: str, name: str) -> None:
        hub, content = self.hub, self.hub.files[name]
        tag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        if name.endswith(_LARGE):
            linked = {"X-Linked-ETag": f'"{tag}"', "X-Linked-Size": str(len(content))}
            self.reply(302, b"", {**headers, **linked, "Location": f"{hub.storage}/storage/{name}"})
            return
        if self.command == "GET":
            hub.downloads.append(name)
        self.reply(200, content[::-1] if name in hub.damaged else content, headers)

    def send_stored(self, name: str) -> None:
        hub = self.hub
        hub.storage_tokens.append(self.headers.get("Authorization", ""))
        if hub.storage_fault:
            self.reply(hub.storage_fault, b"", {})
            return
        content = hub.files[name][::-1] if name in hub.damaged else hub.files[name]
        wanted = self.headers.get("Range", "")
        first = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
        if self.command == "GET":
            hub.downloads.append(name)
            hub.ranges.append(wanted)
        headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if wanted else {}
        cut = hub.cuts.pop(0) if hub.cuts and self.command == "GET" else None
        self.reply(206 if wanted else 200, content[first:], headers, cut)

    def reply(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub that answers on the loopback."""
    made = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": made})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        port = server.server_address[1]
        made.url, made.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        yield made
        server.shutdown()
        thread.join()
