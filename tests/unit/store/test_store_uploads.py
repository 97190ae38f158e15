"""Uploads at the store service: what is sent once stays, what is cut goes on, what is committed counts at once."""

import asyncio
import errno
import json
import os
import shutil
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from codetune_store import sessions
from codetune_store.sessions import MAX_SESSIONS, SESSION_SECONDS

if TYPE_CHECKING:
    from unit.store.conftest import Service

FILES = {"app/cart.py": b"TOTAL = 1\n", "app/empty.py": b"", "größe.py": b"TOTAL = 1\n", "readme\nodd": b"two\n"}


async def test_an_upload_is_there_when_it_is_committed_and_not_before(service: "Service") -> None:
    sending = await service.begin(service.manifest(FILES))
    assert (await service.call("GET", sending.root)).status == 404
    missing = (await sending.call("GET", "missing")).rows
    assert {row["sha256"] for row in missing} == {service.digest(content) for content in FILES.values()}
    early = await sending.call("POST", "commit")
    assert (early.status, early.json["reason"]) == (409, "UploadIncomplete")

    await sending.call("POST", "packs", service.pack(*FILES.values()))
    committed = await sending.call("POST", "commit")

    assert committed.json == (await service.call("GET", sending.root)).json
    assert committed.json["revision"] == f"sha256:{sending.session}"
    assert (committed.json["files"], committed.json["bytes"]) == (4, 24)
    tree = service.upload / "trees" / f"{sending.session}.jsonl"
    assert tree.read_bytes() == service.manifest(FILES)
    assert not list((service.upload / "sessions").iterdir())


async def test_what_is_there_already_is_not_asked_for_again(service: "Service") -> None:
    await service.send(FILES)
    sending = await service.begin(service.manifest({**FILES, "app/new.py": b"new\n"}))
    assert [row["sha256"] for row in (await sending.call("GET", "missing")).rows] == [service.digest(b"new\n")]


async def test_a_large_content_comes_in_pieces_and_goes_on_where_it_was_cut(service: "Service") -> None:
    content = os.urandom(3000)
    sending = await service.begin(service.manifest({"big.bin": content}))
    path = f"blobs/{service.digest(content)}"

    first = await sending.call("PUT", f"{path}?offset=0", content[:1000])
    again = await sending.call("PUT", f"{path}?offset=0", content[:1000])
    (row,) = (await sending.call("GET", "missing")).rows
    last = await sending.call("PUT", f"{path}?offset=1000", content[1000:])

    assert (first.json, row["offset"]) == ({"offset": 1000, "complete": False}, 1000)
    assert (again.status, again.json["reason"], again.json["offset"]) == (409, "OffsetMismatch", 1000)
    assert last.json == {"offset": 3000, "complete": True}
    assert (await sending.call("POST", "commit")).status == 200


async def test_a_piece_of_a_large_content_serves_the_next_version_too(service: "Service") -> None:
    content = os.urandom(3000)
    sending = await service.begin(service.manifest({"big.bin": content}))
    await sending.call("PUT", f"blobs/{service.digest(content)}?offset=0", content[:2000])
    other = await service.begin(service.manifest({"big.bin": content, "more.py": b"more\n"}))
    assert {row["offset"] for row in (await other.call("GET", "missing")).rows} == {2000, 0}


async def test_a_connection_that_is_cut_in_a_piece_leaves_the_pieces_before(service: "Service") -> None:
    content = os.urandom(3000)
    sending = await service.begin(service.manifest({"big.bin": content}))
    path = f"{sending.root}/{sending.session}/blobs/{service.digest(content)}"
    await sending.call("PUT", f"blobs/{service.digest(content)}?offset=0", content[:1000])

    host, port = service.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = "".join(f"{key}: {value}\r\n" for key, value in service.headers.items())
    writer.write(f"PUT {path}?offset=1000 HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 2000\r\n\r\n".encode())
    writer.write(content[1000:1500])
    await writer.drain()
    writer.transport.abort()

    rest = await sending.call("PUT", f"blobs/{service.digest(content)}?offset=1000", content[1000:])
    assert rest.json["complete"] is True


async def test_a_manifest_goes_on_where_it_was_cut(service: "Service") -> None:
    manifest = service.manifest(FILES)
    request = json.dumps({"sha256": service.digest(manifest), "bytes": len(manifest)}).encode()
    root = "/v1/projects/shop/uploads/code"
    await service.call("POST", root, request)
    await service.call("PUT", f"{root}/{service.digest(manifest)}/manifest?offset=0", manifest[:50])
    assert (await service.call("POST", root, request)).json == {"offset": 50, "complete": False}
    sent = await service.call("PUT", f"{root}/{service.digest(manifest)}/manifest?offset=50", manifest[50:])
    assert sent.json == {"offset": len(manifest), "complete": True}
    assert (await service.call("POST", root, request)).json["complete"] is True


async def test_bytes_that_are_not_what_they_should_be_are_refused_and_sent_anew(service: "Service") -> None:
    sending = await service.begin(service.manifest({"a.py": b"right"}))
    wrong = await sending.call("PUT", f"blobs/{service.digest(b'right')}?offset=0", b"wrong")
    assert (wrong.status, wrong.json["reason"]) == (422, "DigestMismatch")
    forged = service.pack(b"right").replace(b"right", b"wrong")
    assert (await sending.call("POST", "packs", forged)).json["reason"] == "DigestMismatch"
    assert not service.blobs()
    right = await sending.call("PUT", f"blobs/{service.digest(b'right')}?offset=0", b"right")
    assert right.json["complete"] is True


async def test_a_commit_whose_answer_was_lost_can_be_sent_again(service: "Service") -> None:
    first = await service.send(FILES)
    session = first.json["revision"].removeprefix("sha256:")
    again = await service.call("POST", f"/v1/projects/shop/uploads/code/{session}/commit")
    assert (again.status, again.json) == (200, first.json)


async def test_contents_are_kept_for_two_versions_and_for_open_sessions(service: "Service") -> None:
    one, two, three, waiting = b"one", b"two", b"three", b"waiting"
    await service.send({"a": one})
    open_session = await service.begin(service.manifest({"a": waiting, "b": b"not sent yet"}))
    await open_session.call("POST", "packs", service.pack(waiting))
    await service.send({"a": two})
    assert service.blobs() == {service.digest(one), service.digest(two), service.digest(waiting)}

    head = (await service.send({"a": three})).json

    assert service.blobs() == {service.digest(two), service.digest(three), service.digest(waiting)}
    assert head["previous"] == f"sha256:{service.digest(service.manifest({'a': two}))}"
    assert len(list((service.upload / "trees").iterdir())) == 2


async def test_sending_the_same_again_keeps_the_version_before(service: "Service") -> None:
    await service.send({"a": b"one"})
    second = (await service.send({"a": b"two"})).json
    again = (await service.send({"a": b"two"})).json
    assert again["previous"] == second["previous"] is not None


async def test_a_content_that_was_lost_is_asked_for_again(service: "Service") -> None:
    await service.send({"a": b"one", "b": b"two"})
    (service.upload / "blobs" / service.digest(b"one")[:2] / service.digest(b"one")).write_bytes(b"shorter or longer")
    sending = await service.begin(service.manifest({"a": b"one", "b": b"two"}))
    assert [row["sha256"] for row in (await sending.call("GET", "missing")).rows] == [service.digest(b"one")]


async def test_two_people_can_send_at_once(service: "Service") -> None:
    contents = [os.urandom(20_000) for _ in range(12)]
    versions = [{f"f{index}": contents[index], "same": contents[0]} for index in range(12)]
    replies = await asyncio.gather(*(service.send(files) for files in versions[:MAX_SESSIONS]))
    assert {reply.status for reply in replies} == {200}
    head = (await service.call("GET", "/v1/projects/shop/uploads/code")).json
    assert head in [reply.json for reply in replies]
    current = (service.upload / "trees" / f"{head['revision'].removeprefix('sha256:')}.jsonl").read_text()
    assert {json.loads(line)["sha256"] for line in current.splitlines()} <= service.blobs()


async def test_the_same_pieces_from_two_clients_do_not_mix(service: "Service") -> None:
    content = os.urandom(5000)
    sending = await service.begin(service.manifest({"big": content}))
    path = f"blobs/{service.digest(content)}"
    both = await asyncio.gather(*(sending.call("PUT", f"{path}?offset=0", content[:2500]) for _ in range(2)))
    assert sorted(reply.status for reply in both) == [200, 409]
    assert (await sending.call("PUT", f"{path}?offset=2500", content[2500:])).json["complete"] is True


async def test_sessions_that_nobody_goes_on_with_are_ended(service: "Service") -> None:
    sending = [await service.begin(service.manifest({"a": str(index).encode()})) for index in range(MAX_SESSIONS)]
    old = time.time() - SESSION_SECONDS - 60
    os.utime(service.upload / "sessions" / sending[3].session / "session.json", (old, old))
    last = await service.begin(service.manifest({"a": b"last"}))
    left = {path.name for path in (service.upload / "sessions").iterdir()}
    assert last.session in left
    assert sending[3].session not in left
    assert len(left) <= MAX_SESSIONS
    gone = await sending[3].call("GET", "missing")
    assert (gone.status, gone.json["reason"]) == (404, "NotFound")


async def test_a_disk_that_fills_up_says_so_and_what_was_sent_stays(
    service: "Service", monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = await service.begin(service.manifest({"a": b"right"}))
    path = f"blobs/{service.digest(b'right')}"
    await sending.call("PUT", f"{path}?offset=0", b"ri")

    def refuse(_descriptor: int, _piece: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        refused = await sending.call("PUT", f"{path}?offset=2", b"ght")

    assert (refused.status, refused.json["reason"]) == (507, "DiskFull")
    assert "codetune-artifacts" in refused.json["message"]
    assert (await sending.call("PUT", f"{path}?offset=2", b"ght")).json["complete"] is True


async def test_an_upload_that_has_no_room_is_refused_before_it_is_sent(
    service: "Service", monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = await service.begin(service.manifest({"a": b"right"}))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4))
    refused = await sending.call("GET", "missing")
    assert (refused.status, refused.json["reason"]) == (507, "DiskFull")
    assert "5 bytes are still to be sent, and the volume has 4 left" in refused.json["message"]


async def test_a_service_that_was_killed_goes_on_with_what_is_on_the_disk(service: "Service") -> None:
    sending = await service.begin(service.manifest(FILES))
    await sending.call("POST", "packs", service.pack(b"two\n"))
    sessions.read_contents.cache_clear()  # all that a process remembers
    assert len((await sending.call("GET", "missing")).rows) == 2
    await sending.call("POST", "packs", service.pack(b"", b"TOTAL = 1\n"))
    sessions.read_contents.cache_clear()
    assert (await sending.call("POST", "commit")).status == 200
