"""A real git server over HTTP with a password: git's own backend behind Python's HTTP server, on the loopback."""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from codetune_trainer.errors import AuthenticationFailed, SourceUnavailable

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

USER, PASSWORD = "robot", "correct-horse"
BACKEND = ["git", "http-backend"]


class GitHandler(BaseHTTPRequestHandler):
    """Asks for basic-auth, then runs git's CGI program."""

    root: str
    seen: list[str]

    def do_GET(self) -> None:
        self.serve(b"")

    def do_POST(self) -> None:
        self.serve(self.rfile.read(int(self.headers["Content-Length"])))

    def serve(self, body: bytes) -> None:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self.seen.append(self.headers.get("Authorization", ""))
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        parts = urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        answer = subprocess.run(BACKEND, env=environment, input=body, capture_output=True, check=True).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's output is not for it."""


@pytest.fixture
def server(workshop: "Workshop") -> Iterator[str]:
    """The server's address; it serves the workshop's repositories."""
    workshop.repository().commit({"a.py": workshop.code("a")})
    handler = type("Handler", (GitHandler,), {"root": str(workshop.root / "files"), "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def source(url: str, *, secret: bool = True) -> dict[str, Any]:
    reference = {"credentialsSecretRef": {"name": "secret"}} if secret else {}
    return {"name": "repo", "git": {"url": url}, **reference}


def write_secret(workshop: "Workshop", username: str, password: str) -> None:
    folder = workshop.root / "credentials" / "repo"
    folder.mkdir()
    (folder / "username").write_text(username)
    (folder / "password").write_text(password)


def test_a_repository_behind_a_password_is_scanned(workshop: "Workshop", server: str) -> None:
    write_secret(workshop, USER, PASSWORD)
    scanned = workshop.scan(source(f"{server}/repo/.git"))
    assert list(scanned.files) == ["repo/a.py"]
    written = b"".join(path.read_bytes() for path in workshop.places.store.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in written
    assert PASSWORD not in workshop.events.getvalue()


def test_without_a_secret_the_failure_says_so(workshop: "Workshop", server: str) -> None:
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(source(f"{server}/repo/.git", secret=False))
    assert "credentialsSecretRef" in failure.value.hint


def test_a_wrong_password_is_refused_and_not_shown(workshop: "Workshop", server: str) -> None:
    write_secret(workshop, USER, "wrong-battery")
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(source(f"{server}/repo/.git"))
    assert "wrong-battery" not in failure.value.message + failure.value.hint


def test_a_repository_that_the_server_does_not_have_is_unavailable(workshop: "Workshop", server: str) -> None:
    write_secret(workshop, USER, PASSWORD)
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(source(f"{server}/missing.git"))
    assert "not found" in failure.value.message


def test_a_server_that_does_not_answer_is_unavailable(workshop: "Workshop") -> None:
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(source("http://127.0.0.1:1/repo.git", secret=False))
    assert "127.0.0.1" in failure.value.message
