"""What the store service refuses: names and paths that lead elsewhere, manifests that lie, bodies without an end.

Each case says what is sent and what comes back; at the end of each, nothing outside the service's folder was touched.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api import uploads
from codetune_api.uploads import MAX_BODY_BYTES, MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from unit.store.conftest import Service

HEX = "a" * 64
RUN = "/v1/finetunes/run/uid-1/files"

PATHS: dict[str, tuple[str, str, int]] = {
    "a project above": ("GET", "/v1/projects/../uploads/code", 400),
    "a project above, escaped": ("GET", "/v1/projects/%2e%2e/uploads/code", 400),
    "a project with an escaped slash": ("GET", "/v1/projects/a%2f..%2f..%2fother/uploads/code", 400),
    "a project with a backslash": ("GET", "/v1/projects/a%5c..%5cb/uploads/code", 400),
    "a project with a zero byte": ("GET", "/v1/projects/a%00b/uploads/code", 400),
    "a project with a line break": ("GET", "/v1/projects/shop%0a/uploads/code", 400),
    "a project in capitals": ("GET", "/v1/projects/SHOP/uploads/code", 400),
    "a project of 64 characters": ("GET", f"/v1/projects/{'a' * 64}/uploads/code", 400),
    "a source above": ("POST", "/v1/projects/shop/uploads/%2e%2e", 400),
    "a source that is a dot": ("POST", "/v1/projects/shop/uploads/.", 400),
    "a source with an escaped slash": ("POST", "/v1/projects/shop/uploads/code%2f..%2f..", 400),
    "a session that is no digest": ("GET", "/v1/projects/shop/uploads/code/zz/missing", 400),
    "a session above": ("GET", "/v1/projects/shop/uploads/code/%2e%2e%2f%2e%2e/missing", 400),
    "a session in capitals": ("GET", f"/v1/projects/shop/uploads/code/{HEX.upper()}/missing", 400),
    "a session that nobody opened": ("GET", f"/v1/projects/shop/uploads/code/{HEX}/missing", 404),
    "a content that is no digest": ("PUT", f"/v1/projects/shop/uploads/code/{HEX}/blobs/..%2f..%2fx", 400),
    "an offset below zero": ("PUT", f"/v1/projects/shop/uploads/code/{HEX}/blobs/{HEX}?offset=-1", 400),
    "an offset that is a word": ("PUT", f"/v1/projects/shop/uploads/code/{HEX}/manifest?offset=end", 400),
    "an offset of a hundred digits": ("PUT", f"/v1/projects/shop/uploads/code/{HEX}/manifest?offset={'9' * 100}", 400),
    "a file above the run": ("GET", f"{RUN}/..%2f..%2f..%2fsecret", 400),
    "a file above the run, twice escaped": ("GET", f"{RUN}/%252e%252e/secret", 400),
    "a file above the run in the middle": ("GET", f"{RUN}/checkpoints/%2e%2e/%2e%2e/secret", 400),
    "an absolute file": ("GET", f"{RUN}//etc/passwd", 400),
    "a hidden file": ("GET", f"{RUN}/.hidden", 400),
    "a file behind a link": ("GET", f"{RUN}/link", 404),
    "a file in a folder behind a link": ("GET", f"{RUN}/away/secret", 404),
    "a pipe": ("GET", f"{RUN}/pipe", 404),
    "a folder": ("GET", f"{RUN}/checkpoints", 404),
    "a uid above": ("GET", "/v1/finetunes/run/%2e%2e/files", 400),
    "a uid with a slash": ("GET", "/v1/finetunes/run/uid-1%2f..%2fuid-2/files", 400),
    "a run that is a link": ("GET", "/v1/finetunes/run/linked/files", 404),
    "a run that is not there": ("GET", "/v1/finetunes/run/none/files", 404),
    "a revision above": ("GET", "/v1/projects/shop/report?revision=../../other", 400),
    "a revision that is not there": ("GET", f"/v1/projects/shop/report?revision=sha256:{HEX}", 404),
    "no revision": ("GET", "/v1/projects/shop/report", 400),
    "an unknown filter": ("GET", f"/v1/projects/shop/report?revision=sha256:{HEX}&colour=red", 400),
    "a decision that is none": ("GET", f"/v1/projects/shop/report?revision=sha256:{HEX}&decision=maybe", 400),
    "a pattern of 2000 characters": ("GET", f"/v1/projects/shop/report?revision=sha256:{HEX}&path={'*a' * 1000}", 400),
    "a route that is none": ("GET", "/v2", 404),
    "a method that is none": ("DELETE", "/v1/projects/shop/uploads/code", 405),
}


@pytest.fixture
def secret(service: "Service", tmp_path: Path) -> Path:
    """Something outside the store, with links to it in the store."""
    away = tmp_path / "away"
    away.mkdir()
    (away / "secret").write_text("do not show")
    run = service.root / "team/finetunes/run/uid-1"
    (run / "checkpoints").mkdir(parents=True)
    (run / "link").symlink_to(away / "secret")
    (run / "away").symlink_to(away)
    (run.parent / "linked").symlink_to(away)
    os.mkfifo(run / "pipe")
    return away


@pytest.mark.parametrize("row", PATHS.values(), ids=PATHS.keys())
async def test_a_path_that_leads_elsewhere_is_refused(
    row: tuple[str, str, int], service: "Service", secret: Path
) -> None:
    method, path, status = row
    before = sorted(service.root.rglob("*"))
    reply = await service.call(method, path, b"{}" if method == "POST" else None)
    assert reply.status == status, reply.body
    assert reply.json["message"]
    assert b"do not show" not in reply.body
    assert sorted(service.root.rglob("*")) == before
    assert [path.name for path in secret.iterdir()] == ["secret"]


async def test_links_and_pipes_of_a_run_are_not_listed(service: "Service", secret: Path) -> None:
    (service.root / "team/finetunes/run/uid-1/train.log").write_text("step 1\n")
    reply = await service.call("GET", RUN)
    assert [entry["path"] for entry in reply.json["files"]] == ["train.log"]


async def test_an_upload_source_that_is_a_link_takes_nothing(service: "Service", secret: Path) -> None:
    (service.root / "team/projects/shop/uploads").mkdir(parents=True)
    service.upload.symlink_to(secret)
    reply = await service.call("POST", "/v1/projects/shop/uploads/code", b'{"sha256": "%s", "bytes": 3}' % HEX.encode())
    assert reply.status == 404
    assert [path.name for path in secret.iterdir()] == ["secret"]


ROW = {"path": "a.py", "bytes": 1, "sha256": HEX}
MANIFESTS: dict[str, tuple[str, list[object]]] = {
    "a path that begins with a slash": ("/etc/passwd", [{**ROW, "path": "/etc/passwd"}]),
    "a path that goes up": ("no ..", [{**ROW, "path": "a/../../b"}]),
    "a path with a dot": ("no .", [{**ROW, "path": "./a"}]),
    "a path with an empty part": ("double /", [{**ROW, "path": "a//b"}]),
    "a path that ends in a slash": ("double /", [{**ROW, "path": "a/"}]),
    "an empty path": ("plain path", [{**ROW, "path": ""}]),
    "a path with a zero byte": ("zero byte", [{**ROW, "path": "a\0b"}]),
    "a path that is no Unicode": ("line 1", [{**ROW, "path": "a\ud800"}]),
    "a path in git's folder": ("git's own folder", [{**ROW, "path": "a/.GIT/config"}]),
    "a path of 5000 bytes": ("4096 bytes", [{**ROW, "path": "/".join(["ab"] * 1700)}]),
    "a name of 300 bytes": ("255 bytes", [{**ROW, "path": "ä" * 150}]),
    "a path twice": ("twice", [ROW, ROW]),
    "paths out of order": ("order", [{**ROW, "path": "b"}, {**ROW, "path": "a"}]),
    "a size below zero": ("bytes", [{**ROW, "bytes": -1}]),
    "a size without a digest": ("digest", [{**ROW, "sha256": ""}]),
    "a digest for what is too large": ("digest", [{**ROW, "bytes": 2**40}]),
    "a digest that is a path": ("sha256", [{**ROW, "sha256": "../../etc"}]),
    "one digest of two sizes": ("another size", [ROW, {**ROW, "path": "b", "bytes": 2}]),
    "an unknown field": ("mode", [{**ROW, "mode": "777"}]),
    "a row that is no object": ("line 1", [[1, 2]]),
    "a line of 20000 bytes": ("16384 bytes", [{**ROW, "x": "y" * 20_000}]),
    "more bytes than a source may have": (
        "split them",
        [{**ROW, "path": f"{index:04}", "bytes": 64 * 2**20, "sha256": f"{index:064x}"} for index in range(513)],
    ),
}


@pytest.mark.parametrize("row", MANIFESTS.values(), ids=MANIFESTS.keys())
async def test_a_manifest_that_breaks_a_rule_is_refused_and_forgotten(
    row: tuple[str, list[object]], service: "Service"
) -> None:
    expected, rows = row
    manifest = b"".join(json.dumps(entry).encode() + b"\n" for entry in rows)
    session, root = service.digest(manifest), "/v1/projects/shop/uploads/code"
    await service.call("POST", root, json.dumps({"sha256": session, "bytes": len(manifest)}).encode())
    reply = await service.call("PUT", f"{root}/{session}/manifest?offset=0", manifest)
    assert (reply.status, reply.json["reason"]) == (422, "InvalidManifest")
    assert expected in reply.json["message"]
    assert (await service.call("GET", f"{root}/{session}/missing")).status == 404
    assert not list((service.upload / "sessions").iterdir())


async def test_a_manifest_of_too_many_files_is_refused(service: "Service", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOAD_FILES", 2)
    manifest = service.manifest({"a": b"", "b": b"", "c": b""})
    root = "/v1/projects/shop/uploads/code"
    await service.call("POST", root, json.dumps({"sha256": service.digest(manifest), "bytes": len(manifest)}).encode())
    reply = await service.call("PUT", f"{root}/{service.digest(manifest)}/manifest?offset=0", manifest)
    assert "more than 2 files" in reply.json["message"]


BODIES: dict[str, tuple[int, str, str, bytes]] = {
    "a beginning that is no JSON": (400, "POST", "", b"{"),
    "a beginning without a size": (400, "POST", "", b'{"sha256": "%s"}' % HEX.encode()),
    "a beginning with a digest that is a path": (400, "POST", "", b'{"sha256": "../..", "bytes": 1}'),
    "a beginning with no bytes": (400, "POST", "", b'{"sha256": "%s", "bytes": 0}' % HEX.encode()),
    "a manifest that is too large": (
        413,
        "POST",
        "",
        b'{"sha256": "%s", "bytes": %d}' % (HEX.encode(), MAX_MANIFEST_BYTES + 1),
    ),
    "a body that is too large": (413, "POST", f"/{HEX}/packs", b"x" * (MAX_BODY_BYTES + 1)),
}


@pytest.mark.parametrize("row", BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_breaks_a_rule_is_refused(row: tuple[int, str, str, bytes], service: "Service") -> None:
    status, method, rest, body = row
    reply = await service.call(method, f"/v1/projects/shop/uploads/code{rest}", body)
    assert (reply.status, bool(reply.json["message"])) == (status, True)
    assert not service.upload.exists()


PIECES: dict[str, tuple[int, str, str, bytes]] = {
    "more bytes than the content has": (413, "PUT", "blobs/{one}?offset=0", b"one and more"),
    "a content that is not of this version": (404, "PUT", "blobs/{two}?offset=0", b"two"),
    "a piece from the middle": (409, "PUT", "blobs/{one}?offset=1", b"ne"),
    "a pack that ends in a header": (400, "POST", "packs", b"\0" * 30),
    "a pack that ends in a content": (400, "POST", "packs", b"\0" * 32 + b"\xff\xff\xff\xff" + b"x"),
    "a pack with a content of another version": (404, "POST", "packs", b"\0" * 36),
}


@pytest.mark.parametrize("row", PIECES.values(), ids=PIECES.keys())
async def test_a_piece_that_does_not_fit_is_refused(row: tuple[int, str, str, bytes], service: "Service") -> None:
    status, method, path, body = row
    sending = await service.begin(service.manifest({"a": b"one"}))
    digests = {"one": service.digest(b"one"), "two": service.digest(b"two")}
    reply = await sending.call(method, path.format(**digests), body)
    assert reply.status == status, reply.body
    assert not service.blobs()


TOKENS: dict[str, dict[str, str]] = {
    "none": {},
    "an empty one": {"X-Codetune-Token": ""},
    "a wrong one": {"X-Codetune-Token": "the-token-of-another-namespace"},
    "one that is no ASCII": {"X-Codetune-Token": "tökén"},
    "the right one in another header": {"Authorization": "Bearer the-token-of-this-namespace"},
}


@pytest.mark.parametrize("headers", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("path", ["/v1", "/v1/projects/shop/uploads/code", RUN, "/v1/projects/shop/report", "/nothing"])
async def test_without_the_token_nothing_is_told(headers: dict[str, str], path: str, service: "Service") -> None:
    service.headers = headers
    reply = await service.call("GET", path)
    assert (reply.status, reply.json["reason"]) == (401, "Unauthorized")


async def test_a_service_whose_token_is_not_there_yet_lets_nobody_in(service: "Service") -> None:
    (service.root.parent / "token").write_text("")
    assert (await service.call("GET", "/v1", **{"X-Codetune-Token": ""})).status == 401
    (service.root.parent / "token").unlink()
    assert (await service.call("GET", "/v1")).status == 401
    assert (await service.call("GET", "/healthz")).status == 200
