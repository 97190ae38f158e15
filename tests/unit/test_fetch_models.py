"""Base models come from the hub's own HTTP interface, here spoken by a stand-in on the loopback."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from codetune_api.contracts import FetchConfig
from codetune_trainer.config import Places
from codetune_trainer.errors import (
    AuthenticationFailed,
    GatedModel,
    ModelNotFound,
    ModelUnavailable,
    RevisionNotFound,
    TrainerError,
    UnsupportedModel,
)
from codetune_trainer.fetch import HubFile, choose_files, fetch
from codetune_trainer.reporting import Reporter

COMMIT = "c0ffee" * 6 + "c0ff"
REPOSITORY = "acme/coder"
WEIGHTS = b"\x08\0\0\0\0\0\0\0{}" * 1000
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "modeling_coder.py": b"import os",
    "onnx/model.onnx": b"onnx",
    "README.md": b"# Coder",
}


@dataclass
class Hub:
    """What the stand-in answers."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(MODEL))
    token: str = ""
    """Asked for when set."""
    fault: tuple[int, str, str] | None = None
    """Status, error code and message instead of any answer."""
    damaged: set[str] = field(default_factory=set)
    """Files that come with other content than announced."""
    announced_commit: str = COMMIT
    requests: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    """Files whose content was sent."""
    url: str = ""

    def describe(self) -> dict[str, Any]:
        """The answer of `/api/models/...`."""
        siblings = []
        for name, content in self.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
            if name.endswith((".safetensors", ".bin")):
                digest = hashlib.sha256(content).hexdigest()
                entry |= {"blobId": "0" * 40, "lfs": {"sha256": digest, "size": len(content), "pointerSize": 100}}
            else:
                entry["blobId"] = git_digest(content)
            siblings.append(entry)
        return {"_id": "1", "id": REPOSITORY, "sha": self.announced_commit, "siblings": siblings, "private": False}


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    """The three routes that fetching needs."""

    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(path)
        if self.hub.fault is not None:
            status, code, message = self.hub.fault
            self.reply(status, b"", {"X-Error-Code": code, "X-Error-Message": message})
        elif self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.reply(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path == f"/api/models/{REPOSITORY}/revision/main" or path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
            self.reply(200, json.dumps(self.hub.describe()).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/models/"):
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound" if REPOSITORY in path else "RepoNotFound"})
        else:
            self.send_file(path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/"))

    def send_file(self, name: str) -> None:
        content = self.hub.files[name]
        if self.command == "GET":
            self.hub.downloads.append(name)
        tag = hashlib.sha256(content).hexdigest()
        sent = content[::-1] if name in self.hub.damaged else content
        self.reply(200, sent, {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"})

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that answers on the loopback."""
    made = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": made})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("store", "scratch"):
        (tmp_path / name).mkdir()
    return Places(store=tmp_path / "store", scratch=tmp_path / "scratch")


def run(places: Places, revision: str = "main", repository: str = REPOSITORY) -> Path:
    config = FetchConfig(nonce="n" * 16, namespace="team", name="f", repository=repository, revision=revision)
    return fetch(config, places, Reporter(config.nonce))


def test_a_model_lands_in_its_commits_folder_and_is_linked(hub: Hub, places: Places) -> None:
    folder = run(places)
    assert folder == places.store / "models" / "acme" / "coder" / COMMIT
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: MODEL[name] for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
    assert (places.scratch / "model").resolve() == folder.resolve()
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", COMMIT]


def test_a_model_that_is_here_is_not_downloaded_again(hub: Hub, places: Places) -> None:
    run(places)
    hub.requests.clear()
    run(places)
    assert hub.requests == [f"/api/models/{REPOSITORY}/revision/main"]


def test_a_pinned_commit_that_is_here_needs_no_hub(hub: Hub, places: Places) -> None:
    run(places)
    hub.requests.clear()
    hub.fault = (503, "", "down")
    assert run(places, revision=COMMIT).name == COMMIT
    assert hub.requests == []


def test_the_token_is_sent(hub: Hub, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert run(places).is_dir()


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        pytest.param(GatedModel, (403, "GatedRepo", "restricted"), id="gated"),
        pytest.param(GatedModel, (401, "GatedRepo", "restricted"), id="gated-without-token"),
        pytest.param(ModelNotFound, (404, "RepoNotFound", ""), id="missing"),
        pytest.param(ModelNotFound, (401, "RepoNotFound", ""), id="missing-or-private"),
        pytest.param(RevisionNotFound, (404, "RevisionNotFound", ""), id="revision"),
        pytest.param(AuthenticationFailed, (401, "", "Invalid credentials in Authorization header"), id="wrong-token"),
        pytest.param(ModelUnavailable, (500, "", "oops"), id="server-error"),
    ],
)
def test_what_the_hub_refuses_has_its_own_reason(
    hub: Hub, places: Places, error: type[TrainerError], fault: tuple[int, str, str]
) -> None:
    hub.fault = fault
    with pytest.raises(error) as failure:
        run(places)
    assert REPOSITORY in failure.value.message
    assert failure.value.hint
    assert not list(places.store.rglob("*.safetensors"))


def test_a_revision_that_does_not_exist_is_named(hub: Hub, places: Places) -> None:
    with pytest.raises(RevisionNotFound, match="'v9'"):
        run(places, revision="v9")


def test_a_hub_that_can_not_be_reached_is_named(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ModelUnavailable, match=r"127\.0\.0\.1:1"):
        run(places)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_comes_damaged_is_refused_and_fetched_anew_next_time(hub: Hub, places: Places, name: str) -> None:
    hub.damaged = {name}
    with pytest.raises(ModelUnavailable, match="digest"):
        run(places)
    assert not (places.store / "models" / "acme" / "coder" / COMMIT).exists()
    hub.damaged = set()
    assert (run(places) / name).read_bytes() == MODEL[name]


def test_a_download_that_was_cut_off_goes_on_with_what_is_there(hub: Hub, places: Places) -> None:
    hub.damaged = {"tokenizer.json"}
    hub.files["tokenizer.json"] = b'{"a": 1}'
    hub.files = {name: hub.files[name] for name in ("config.json", "model.safetensors", "tokenizer.json")}
    with pytest.raises(ModelUnavailable):
        run(places)
    hub.damaged = set()
    run(places)
    assert hub.downloads == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer.json"]


@pytest.mark.parametrize("commit", ["", "../../etc", "HEAD"])
def test_a_commit_that_is_none_is_refused(hub: Hub, places: Places, commit: str) -> None:
    hub.announced_commit = commit
    with pytest.raises(ModelUnavailable, match="commit"):
        run(places)


@pytest.mark.parametrize("repository", ["coder", "../../etc/x", "a/b/c", "a/..", "-a/b"])
def test_a_name_that_is_none_is_refused_before_the_hub_is_asked(hub: Hub, places: Places, repository: str) -> None:
    with pytest.raises(ModelNotFound):
        run(places, repository=repository)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        pytest.param(["config.json", "model.safetensors"], ["config.json", "model.safetensors"], id="plain"),
        pytest.param(
            ["config.json", "m-1.safetensors", "m-2.safetensors", "m.safetensors.index.json", "merges.txt"],
            ["config.json", "m-1.safetensors", "m-2.safetensors", "m.safetensors.index.json", "merges.txt", "x.bin"],
            id="shards",
        ),
        pytest.param(
            ["config.json", "model.safetensors"],
            ["config.json", "model.safetensors", "consolidated.safetensors", "original/consolidated.safetensors"],
            id="second-copies-are-left-out",
        ),
        pytest.param(
            ["config.json", "model.safetensors"],
            ["config.json", "model.safetensors", "../evil.json", "a\\b.json", ".hidden.json", "code.py", "x.gguf"],
            id="hostile-names",
        ),
        pytest.param(
            ["config.json", "consolidated.safetensors"], ["config.json", "consolidated.safetensors"], id="only-one-copy"
        ),
    ],
)
def test_the_files_of_a_model_are(chosen: list[str], names: list[str]) -> None:
    files = [HubFile(name, 1, None, None) for name in names]
    assert [file.name for file in choose_files(REPOSITORY, files)] == chosen


@pytest.mark.parametrize(
    ("word", "names"),
    [
        pytest.param("pickles", ["config.json", "pytorch_model.bin"], id="pickles-only"),
        pytest.param("no weights", ["config.json", "model.gguf"], id="another-format"),
        pytest.param("no weights", [], id="empty"),
        pytest.param("no config.json", ["adapter_model.safetensors", "adapter_config.json"], id="an-adapter"),
    ],
)
def test_a_repository_that_is_no_model_says_why(word: str, names: list[str]) -> None:
    with pytest.raises(UnsupportedModel, match=word) as failure:
        choose_files(REPOSITORY, [HubFile(name, 1, None, None) for name in names])
    assert failure.value.hint
