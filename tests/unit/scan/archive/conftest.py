"""A real HTTP server on the loopback that gives archives, cuts them, redirects, asks for credentials; with TLS too."""

import io
import os
import socket
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.scan.archive import asking, download

if TYPE_CHECKING:
    from unit.scan.conftest import Authority, Listen, Workshop

LONG_AGO = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass
class File:
    """What is behind a path."""

    content: bytes
    etag: str = '"1"'
    modified: str = ""
    ranges: bool = True
    most: int | None = None
    """Bytes that it gives of a range at a time."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the connection is cut, one for each answer with a body."""
    needs: dict[str, str] = field(default_factory=dict)
    """Headers that a request must have."""
    chunked: bool = False
    """Sent without its length."""


@dataclass
class Asked:
    """A request that was answered."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0
    """Bytes of the body."""


@dataclass
class Site:
    """What a server gives, and what it was asked for."""

    url: str = ""
    files: dict[str, File] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """Answers to give first, one for each request."""
    asked: list[Asked] = field(default_factory=list)
    stall: threading.Event | None = None
    """Where a cut would be, the server waits for this instead."""
    stalled: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, content: bytes, **fields: Any) -> File:
        """Serve content."""
        self.files[path] = File(content, **fields)
        return self.files[path]

    def source(self, path: str, name: str = "app", *, secret: bool = False, **fields: Any) -> dict[str, Any]:
        """A source of a Project for a path of this site."""
        reference = {"credentialsSecretRef": {"name": "secret"}} if secret else {}
        return {"name": name, "archive": {"url": f"{self.url}{path}", **fields}, **reference}

    @staticmethod
    def zip(files: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
        """A zip of files."""
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", method) as archive:
            for name, content in files.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o100644 << 16
                archive.writestr(info, content, method)
        return made.getvalue()

    @staticmethod
    def tar(files: Mapping[str, str | bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
        """A tar of files; the mode says how it is packed."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode=mode, format=form) as archive:  # type: ignore[call-overload]
            for name, content in files.items():
                data = content if isinstance(content, bytes) else content.encode()
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return made.getvalue()


class SiteHandler(BaseHTTPRequestHandler):
    """Answers as the site says."""

    site: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()})
        self.site.asked.append(asked)
        waiting = self.site.statuses.get(self.path, [])
        file = self.site.files.get(self.path)
        if waiting:
            self.reply(asked, *waiting.pop(0))
        elif self.path in self.site.redirects:
            self.reply(asked, 302, {"Location": self.site.redirects[self.path]})
        elif file is None:
            self.reply(asked, 404, {})
        elif any(asked.headers.get(name.lower()) != value for name, value in file.needs.items()):
            self.reply(asked, 401, {})
        elif self.is_held(file, asked):
            self.reply(asked, 304, {"ETag": file.etag} if file.etag else {})
        else:
            self.give(file, asked)

    def is_held(self, file: File, asked: Asked) -> bool:
        if "if-none-match" in asked.headers:
            return bool(file.etag) and asked.headers["if-none-match"] == file.etag
        return bool(file.modified) and asked.headers.get("if-modified-since") == file.modified

    def give(self, file: File, asked: Asked) -> None:
        start = 0
        if file.ranges and asked.headers.get("if-range") in {file.etag, file.modified} - {""}:
            start = int(asked.headers["range"].removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": file.etag, "Last-Modified": file.modified}
        end = min(len(file.content), start + file.most) if start and file.most else len(file.content)
        if start:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(file.content)}"
        body = file.content[start:end]
        told = {name: value for name, value in headers.items() if value}
        self.head(asked, 206 if start else 200, told, file, len(body))
        cut = file.cuts.pop(0) if file.cuts else len(body)
        asked.sent = len(body[:cut])
        if file.chunked:
            self.wfile.write(b"%x\r\n" % len(body) + body[:cut] + (b"\r\n0\r\n\r\n" if cut >= len(body) else b""))
        else:
            self.wfile.write(body[:cut])
        if cut < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.site.stalled.set()
            if self.site.stall is not None:
                self.site.stall.wait(60)

    def head(self, asked: Asked, status: int, headers: Mapping[str, str], file: File, length: int) -> None:
        asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if file.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def reply(self, asked: Asked, status: int, headers: Mapping[str, str]) -> None:
        asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's output is not for it."""


@contextmanager
def serve(listen: "Listen", *where: Any) -> Iterator[Site]:
    """A running site."""
    site = Site()
    with listen(type("Handler", (SiteHandler,), {"site": site}), *where) as site.url:
        yield site
        if site.stall is not None:
            site.stall.set()


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch: pytest.MonkeyPatch, authority: "Authority") -> None:
    """Attempts follow each other at once; of proxies and authorities there are those of the test only."""
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(asking, "CONNECT_SECONDS", 10.0)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def site(listen: "Listen") -> Iterator[Site]:
    """A site without TLS."""
    with serve(listen) as running:
        yield running


@pytest.fixture
def other_site(listen: "Listen") -> Iterator[Site]:
    """A site on another address."""
    with serve(listen, "127.0.0.2") as running:
        yield running


@pytest.fixture
def secure_site(listen: "Listen", authority: "Authority") -> Iterator[Site]:
    """A site with TLS whose authority the environment names."""
    with serve(listen, "127.0.0.1", authority.context()) as running:
        yield running


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watch:
    """Sees every change to the file system that this process asks for."""

    _kinds = frozenset(
        {
            "os.mkdir",
            "os.rename",
            "os.link",
            "os.symlink",
            "os.chmod",
            "os.chown",
            "os.remove",
            "os.rmdir",
            "os.truncate",
        }
    )

    def __init__(self) -> None:
        self.on = False
        self.changed: set[str] = set()
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in self._kinds:
            paths = arguments[:2] if event in {"os.rename", "os.link", "os.symlink"} else arguments[:1]
            # `shutil.rmtree` names what it removes below a folder that it holds open.
            inside = arguments[-1] if event in {"os.remove", "os.rmdir"} else -1
            folder = os.readlink(f"/proc/self/fd/{inside}") if isinstance(inside, int) and inside >= 0 else ""
            self.changed |= {
                os.path.join(folder, os.fsdecode(path)) for path in paths if isinstance(path, str | bytes | os.PathLike)
            }
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] is not None:
            self.changed |= {os.fsdecode(arguments[0])} if not isinstance(arguments[0], int) else set()


@pytest.fixture(scope="session")
def watch() -> Watch:
    """One hook for all tests: it can't be taken away again."""
    return Watch()


@pytest.fixture
def scan_archive(workshop: "Workshop", site: "Site", watch: Watch) -> Iterator[Callable[[bytes], Any]]:
    """Scan an archive that the site gives; nothing but store and scratch may be touched."""

    def run(content: bytes) -> Any:
        site.put("/code", content)
        watch.changed.clear()
        watch.on = True
        try:
            return workshop.scan(site.source("/code"))
        finally:
            watch.on = False

    yield run
    mine = [str(workshop.places.store.resolve()), str(workshop.places.scratch.resolve())]
    assert watch.changed
    assert [path for path in watch.changed if not any(os.path.realpath(path).startswith(root) for root in mine)] == []
    left = {path.name.rpartition(".")[2] for path in (workshop.places.store / "team/projects/code/sources").rglob("*")}
    assert left <= {"lock", "pack", "json"} | {path for path in left if path.startswith("archive-")}


@pytest.fixture(scope="session")
def site_class() -> type[Site]:
    """How archives are made, for tests that need no server."""
    return Site
