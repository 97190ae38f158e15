"""Archive sources from `kubectl apply` to the dataset: the real operator and scan, archives served on the loopback."""

import base64
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

CODE = {
    "shop-1a2b3c/shop/cart.py": "def total(items):\n    return sum(item.price for item in items)\n",
    "shop-1a2b3c/shop/tax.py": "def tax(amount):\n    return amount * 19 / 100\n",
    "shop-1a2b3c/../../evil.py": "import os\n",
}
USER, PASSWORD = "ann", "correct-horse-battery"


def pack(files: dict[str, str]) -> bytes:
    """A tar.gz of files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


@dataclass
class Depot:
    """What the server gives, and what it answered."""

    url: str = ""
    content: bytes = field(default_factory=lambda: pack(CODE))
    answers: list[int] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """Of what it gives."""
        return hashlib.sha256(self.content).hexdigest()

    def source(self, path: str = "open", **fields: Any) -> Obj:
        """A source of a Project."""
        return {"name": "zip", "archive": {"url": f"{self.url}/{path}", **fields}}


class DepotHandler(BaseHTTPRequestHandler):
    """`/open` for everybody, `/closed` by basic-auth; both with an ETag."""

    depot: Depot

    def do_GET(self) -> None:
        expected = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        etag = f'"{self.depot.sha256}"'
        status = 304 if self.headers.get("If-None-Match") == etag else 200
        if self.path == "/closed" and self.headers.get("Authorization") != expected:
            status = 401
        self.depot.answers.append(status)
        body = self.depot.content if status == 200 else b""
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's output is not for it."""


@pytest.fixture
def depot() -> Iterator[Depot]:
    """A running server."""
    made = Depot()
    handler = type("Handler", (DepotHandler,), {"depot": made})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        made.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield made
        running.shutdown()
        thread.join()


def make_project(*sources: Obj) -> Obj:
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": "shop"},
        "spec": {"sources": list(sources)},
    }


def test_an_archive_becomes_a_dataset_and_is_not_fetched_twice(team: "Team", depot: Depot) -> None:
    team.apply(make_project(depot.source()))

    status = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    assert status["sources"][0]["digest"] == f"sha256:{depot.sha256}"
    assert status["sources"][0].get("commit", "") == ""
    assert status["files"]["accepted"] == 2
    assert status["rejections"] == [
        {"reason": "Unreadable", "files": 1, "examples": ["zip/shop-1a2b3c/../../evil.py"]},
    ]
    assert not list(team.store().rglob("evil.py"))

    team.kubectl("annotate", "cproj", "shop", "codetune.dev/rescan=1")
    team.wait_until(lambda: len(depot.answers) == 2, "the archive is asked for again")
    again = team.wait_for_phase("cproj", "shop", "Ready")["status"]
    assert depot.answers == [200, 304]
    assert again["revision"] == status["revision"]


def test_a_wrong_digest_is_told_on_its_source_and_stops_no_other(team: "Team", depot: Depot) -> None:
    url = team.repository("app", {"a.py": "def a():\n    return 1\n", "b.py": "def b():\n    return 2\n"})
    wrong = depot.source(sha256="0" * 64)
    team.apply(make_project(wrong, {"name": "app", "git": {"url": url}}))

    status = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    told = {source["name"]: (source.get("reason", ""), source.get("message", "")) for source in status["sources"]}
    assert told["zip"][0] == "DigestMismatch"
    assert depot.sha256 in told["zip"][1]
    assert told["app"] == ("", "")
    assert status["files"]["accepted"] == 2


def test_a_wrong_digest_of_the_only_source_fails_the_project_until_it_is_mended(team: "Team", depot: Depot) -> None:
    team.apply(make_project(depot.source(sha256="0" * 64)))
    failed = team.wait_for_phase("cproj", "shop", "Failed")["status"]
    assert failed["failure"]["reason"] == "DigestMismatch"
    assert "archive.sha256" in failed["failure"]["hint"]
    assert depot.sha256 in failed["sources"][0]["message"]

    team.apply(make_project(depot.source(sha256=depot.sha256)))

    healed = team.wait_for_phase("cproj", "shop", "Ready")["status"]
    assert healed["sources"][0].get("message", "") == ""


def test_a_secret_opens_an_archive(team: "Team", depot: Depot) -> None:
    literals = (f"--from-literal=username={USER}", f"--from-literal=password={PASSWORD}")
    team.kubectl("create", "secret", "generic", "depot", "--type=kubernetes.io/basic-auth", *literals)
    team.apply(make_project({**depot.source("closed"), "credentialsSecretRef": {"name": "depot"}}))

    project = team.wait_for_phase("cproj", "shop", "Ready")

    assert project["status"]["files"]["accepted"] == 2
    assert depot.answers == [200]
    assert PASSWORD not in str(project) + team.installation.log


def test_an_archive_that_is_none_is_told(team: "Team", depot: Depot) -> None:
    depot.content = b"<!doctype html><title>Sign in</title>"
    team.apply(make_project(depot.source()))

    failure = team.wait_for_phase("cproj", "shop", "Failed")["status"]["failure"]

    assert failure["reason"] == "InvalidArchive"
    assert "web page" in failure["message"]
