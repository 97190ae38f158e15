"""A real git server over HTTP on the loopback: git's own backend behind Python's, with TLS, passwords and LFS."""

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from codetune_trainer.scan.archive import download

if TYPE_CHECKING:
    from unit.scan.conftest import Authority, Listen, Workshop

LFS_TYPE = "application/vnd.git-lfs+json"


@dataclass
class Asked:
    """A request that was answered."""

    method: str
    path: str
    authorization: str
    sent: int = 0
    """Bytes of the answer's body."""


@dataclass
class GitSite:
    """What a server gives, and what it was asked for."""

    root: Path
    """Its repositories."""
    url: str = ""
    login: tuple[str, str] | None = None
    """User name and password that it wants."""
    settings: dict[str, str] = field(default_factory=lambda: {"uploadpack.allowFilter": "true"})
    """git's, on the server's side."""
    newest_protocol: bool = True
    """Otherwise it speaks git's first protocol."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Beginning of a path → where it leads instead."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Git LFS objects by their digests."""
    place: Callable[[str], dict[str, Any]] | None = None
    """What is said of an LFS object; by default, that it is here."""
    asked: list[Asked] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Bytes of all answers."""
        return sum(asked.sent for asked in self.asked)

    @property
    def authorizations(self) -> set[str]:
        """All that were shown to this server."""
        return {asked.authorization for asked in self.asked}

    def source(self, path: str = "repo/.git", /, name: str = "repo", *, secret: bool = False, **git: Any) -> Any:
        """A source of a Project."""
        reference = {"credentialsSecretRef": {"name": "secret"}} if secret else {}
        return {"name": name, "git": {"url": f"{self.url}/{path}", **git}, **reference}

    def put(self, content: bytes) -> str:
        """Serve an LFS object; returns its pointer."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects[sha256] = content
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"


def basic(username: str, password: str) -> str:
    """The header that a login makes."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


class GitSiteHandler(BaseHTTPRequestHandler):
    """Asks for a login, then answers itself or runs git's CGI program."""

    site: GitSite

    def do_GET(self) -> None:
        self.serve(b"")

    def do_POST(self) -> None:
        self.serve(self.read_body())

    def read_body(self) -> bytes:
        """The request's body, whole or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def serve(self, body: bytes) -> None:
        """Answer a request."""
        self.seen = Asked(self.command, self.path, self.headers.get("Authorization", ""))
        self.site.asked.append(self.seen)
        for begin, target in self.site.redirects.items():
            if self.path.startswith(begin):
                return self.give(302, {"Location": target + self.path.removeprefix(begin)}, b"")
        if self.site.login is not None and self.seen.authorization != basic(*self.site.login):
            return self.give(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        if self.path.endswith("/info/lfs/objects/batch"):
            return self.give(200, {"Content-Type": LFS_TYPE}, self.answer_batch(json.loads(body)))
        if self.path.startswith("/lfs/"):
            content = self.site.objects.get(self.path.removeprefix("/lfs/"))
            return self.give(404 if content is None else 200, {}, content or b"")
        return self.run_backend(body)

    def answer_batch(self, asked: dict[str, Any]) -> bytes:
        """Where the objects are."""
        assert asked["operation"] == "download"
        assert self.headers["Content-Type"] == LFS_TYPE
        objects = []
        for wanted in asked["objects"]:
            there = {"actions": {"download": {"href": f"{self.site.url}/lfs/{wanted['oid']}"}}}
            missing = {"error": {"code": 404, "message": "Object does not exist"}}
            own = there if wanted["oid"] in self.site.objects else missing
            objects.append({**wanted, **(self.site.place(wanted["oid"]) if self.site.place else own)})
        return json.dumps({"transfer": "basic", "objects": objects}).encode()

    def run_backend(self, body: bytes) -> None:
        """Let git answer."""
        parts = urlsplit(self.path)
        settings = {"safe.directory": "*", **self.site.settings}
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.site.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": str(len(settings)),
            **{f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(settings)},
            **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(settings.values())},
            "REQUEST_METHOD": self.command,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", "") if self.site.newest_protocol else "",
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.give(int(headers.pop("Status", "200").split()[0]), headers, content)

    def give(self, status: int, headers: dict[str, str], content: bytes) -> None:
        """Send an answer."""
        self.seen.sent = len(content)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's output is not for it."""


@contextmanager
def serve(site: GitSite, listen: "Listen", *where: Any) -> Iterator[GitSite]:
    """A running site."""
    with listen(type("Handler", (GitSiteHandler,), {"site": site}), *where) as site.url:
        yield site


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once; of proxies and authorities there are those of the test only."""
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site(workshop: "Workshop", listen: "Listen") -> Iterator[GitSite]:
    """A site that serves the workshop's repositories."""
    with serve(GitSite(workshop.root / "files"), listen) as running:
        yield running


@pytest.fixture
def other_site(workshop: "Workshop", listen: "Listen") -> Iterator[GitSite]:
    """The same on another host."""
    with serve(GitSite(workshop.root / "files"), listen, "127.0.0.2") as running:
        yield running


@pytest.fixture
def secure_site(
    workshop: "Workshop", listen: "Listen", authority: "Authority", monkeypatch: pytest.MonkeyPatch
) -> Iterator[GitSite]:
    """A site with TLS whose authority the environment names."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))
    with serve(GitSite(workshop.root / "files"), listen, "127.0.0.1", authority.context()) as running:
        yield running


@pytest.fixture
def sentinel(workshop: "Workshop") -> Iterator[dict[str, bytes]]:
    """Files beside the store; afterwards they must be as they were, and nothing else may be there."""
    outside = workshop.root / "outside"
    for name in ("keep.txt", "deep/keep.txt", ".git/config"):
        path = outside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"kept {name}\n")
    before = _read_all(workshop.root)
    yield before
    assert _read_all(workshop.root) == before


def _read_all(root: Path) -> dict[str, bytes]:
    """What is there, but for what a scan may write to, and what a test puts up."""
    apart = {"store", "scratch", "files", "credentials"}
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
        if path.relative_to(root).parts[0] not in apart
    }
