"""The store service where the store is a bucket: reports and files of runs come out of it as out of a folder."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from codetune_bucket.bucket import Bucket
from codetune_bucket.errors import BucketUnavailable
from codetune_bucket.mirroring import Mirror
from codetune_store.app import build_app
from codetune_store.settings import StoreSettings

if TYPE_CHECKING:
    from unit.store.conftest import Service

REVISION = "sha256:" + "b" * 64
REPORT = f"team/projects/shop/{'b' * 64}/report.jsonl"
RUN = "team/finetunes/mine/0c1f8f0e-9d0b-4a63-8f3e-2f3f1f1f1f1f"
FILES = RUN.replace("team/finetunes", "/v1/finetunes") + "/files"
LARGE = bytes(range(256)) * 10_000


@pytest.fixture
async def remote(service: "Service", bucket: Bucket, tmp_path: Path) -> AsyncIterator["Service"]:
    """A service whose store is a bucket."""
    root = tmp_path / "pod"
    root.mkdir()
    settings = StoreSettings(
        root=root, namespace="team", token_file=tmp_path / "token", mirrored=Mirror(root, bucket, "team")
    )
    runner = web.AppRunner(build_app(settings), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as requests:
        yield replace(service, root=root, url=f"http://127.0.0.1:{runner.addresses[0][1]}", requests=requests)
    await runner.cleanup()


def put(bucket: Bucket, folder: Path, path: str, content: bytes) -> None:
    (folder / "file").write_bytes(content)
    bucket.put(folder / "file", path)


async def test_rows_of_a_report_are_filtered(remote: "Service", bucket: Bucket, tmp_path: Path) -> None:
    rows = [
        {"path": f"app/{number}.py", "decision": "rejected" if number % 2 else "train", "reason": "", "type": "Python"}
        for number in range(9000)
    ]
    put(bucket, tmp_path, REPORT, "".join(json.dumps(row) + "\n" for row in rows).encode())
    reply = await remote.call("GET", f"/v1/projects/shop/report?revision={REVISION}&decision=rejected")
    assert [row["path"] for row in reply.rows] == [f"app/{number}.py" for number in range(1, 9000, 2)]


async def test_files_of_a_run_are_listed_without_those_in_the_making(
    remote: "Service", bucket: Bucket, tmp_path: Path
) -> None:
    for name in ("train.log", "checkpoints/step-000002/MANIFEST.json", ".part", ".x/y"):
        put(bucket, tmp_path, f"{RUN}/{name}", b"12345")
    put(bucket, tmp_path, f"{RUN}0/train.log", b"of another run")
    listed = (await remote.call("GET", FILES)).json
    assert listed["files"] == [
        {"path": "checkpoints/step-000002/MANIFEST.json", "bytes": 5},
        {"path": "train.log", "bytes": 5},
    ]


@pytest.mark.parametrize(
    ("status", "begin", "end", "asked"),
    [
        pytest.param(200, 0, len(LARGE), "", id="all of it"),
        pytest.param(206, 1_500_000, len(LARGE), "bytes=1500000-", id="the rest"),
        pytest.param(206, 10, 20, "bytes=10-19", id="a range"),
        pytest.param(206, len(LARGE) - 5, len(LARGE), "bytes=-5", id="the end"),
    ],
)
async def test_a_file_is_downloaded_whole_or_in_part(
    status: int, begin: int, end: int, asked: str, remote: "Service", bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, tmp_path, f"{RUN}/weights", LARGE)
    reply = await remote.call("GET", f"{FILES}/weights", **({"Range": asked} if asked else {}))
    assert (reply.status, reply.body) == (status, LARGE[begin:end])


@pytest.mark.parametrize(
    "path",
    [FILES, f"{FILES}/nothing", f"/v1/projects/shop/report?revision={REVISION}"],
    ids=["run", "file", "report"],
)
async def test_what_is_not_there_is_not_found(path: str, remote: "Service") -> None:
    reply = await remote.call("GET", path)
    assert (reply.status, reply.json["reason"]) == (404, "NotFound")


async def test_uploads_are_refused(remote: "Service") -> None:
    reply = await remote.call("GET", "/v1/projects/shop/uploads/code")
    assert (reply.status, reply.json["reason"]) == (400, "InvalidRequest")
    assert "bucket" in reply.json["message"]


async def test_a_bucket_that_does_not_let_it_in_is_said(remote: "Service", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    reply = await remote.call("GET", FILES)
    assert (reply.status, reply.json["reason"]) == (503, "StoreUnavailable")
    assert "secret key" in reply.json["message"]
    assert not list(remote.root.iterdir()), "nothing of the bucket is kept in the pod"


async def test_an_answer_that_breaks_off_is_cut_and_says_nothing_of_its_own(
    remote: "Service", bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, tmp_path, f"{RUN}/weights", LARGE)
    read, asked = Bucket.read, list[int]()

    def fail(self: Bucket, path: str, begin: int, end: int, etag: str = "") -> bytes:
        asked.append(begin)
        if len(asked) > 1:
            raise BucketUnavailable("The endpoint went away.", "Bring it back.")
        return read(self, path, begin, end, etag)

    monkeypatch.setattr(Bucket, "read", fail)
    body = b""
    async with remote.requests.get(f"{remote.url}{FILES}/weights", headers=remote.headers) as answer:
        with contextlib.suppress(aiohttp.ClientPayloadError):
            async for piece in answer.content.iter_any():
                body += piece
    assert len(body) < len(LARGE)
    assert len(asked) == 2
    assert LARGE.startswith(body)
