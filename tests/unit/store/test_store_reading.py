"""What the store service shows: rows of a dataset's report, files of a run and ranges of them."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from codetune_store.matching import PathPattern

if TYPE_CHECKING:
    from unit.store.conftest import Service

REVISION = "sha256:" + "b" * 64


def row(path: str, decision: str, reason: str = "", kind: str = "Python") -> dict[str, Any]:
    source = path.partition("/")[0]
    return {"path": path, "source": source, "type": kind, "bytes": 1, "lines": 1, "decision": decision,
            "reason": reason, "detail": ""}  # fmt: skip


REPORT = [
    row("app/src/a.py", "train"),
    row("app/src/b.py", "holdout", "HeldOut"),
    row("app/src/deep/c.py", "rejected", "Duplicate"),
    row("app/logo.png", "rejected", "Binary", "Unknown"),
    row("lib/a.py", "train", "Included"),
]
FILTERS: dict[str, tuple[list[str], str]] = {
    "none": (["app/src/a.py", "app/src/b.py", "app/src/deep/c.py", "app/logo.png", "lib/a.py"], ""),
    "what was rejected": (["app/src/deep/c.py", "app/logo.png"], "decision=rejected"),
    "what was accepted": (["app/src/a.py", "app/src/b.py", "lib/a.py"], "decision=accepted"),
    "what is held out": (["app/src/b.py"], "decision=holdout"),
    "what is held out, by its reason": (["app/src/b.py"], "reason=HeldOut"),
    "by reason": (["app/logo.png"], "reason=Binary"),
    "by reason, in whatever case": (["app/logo.png"], "reason=binary"),
    "by type, whatever its case": (["app/logo.png"], "type=unknown"),
    "by name": (["app/src/a.py", "lib/a.py"], "path=a.py"),
    "by folder": (["app/src/deep/c.py"], "path=src/deep/"),
    "by path in the source": (["app/src/a.py", "app/src/b.py"], "path=src/*.py"),
    "by full path": (["lib/a.py"], "path=lib/**"),
    "by all at once": (["app/src/deep/c.py"], "path=src/**&type=Python&decision=rejected&reason=Duplicate"),
    "by what nothing is": ([], "reason=Secrets"),
}


@pytest.mark.parametrize("case", FILTERS.values(), ids=FILTERS.keys())
async def test_rows_of_a_report_are_filtered(case: tuple[list[str], str], service: "Service") -> None:
    expected, query = case
    folder = service.root / "team/projects/shop" / REVISION.removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / "report.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in REPORT))
    reply = await service.call("GET", f"/v1/projects/shop/report?revision={REVISION}&{query}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert [found["path"] for found in reply.rows] == expected


async def test_a_long_report_comes_whole(service: "Service") -> None:
    folder = service.root / "team/projects/shop" / REVISION.removeprefix("sha256:")
    folder.mkdir(parents=True)
    entries = [row(f"app/{index}.py", "rejected" if index % 2 else "train") for index in range(9000)]
    (folder / "report.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    reply = await service.call("GET", f"/v1/projects/shop/report?revision={REVISION}&decision=rejected")
    assert len(reply.rows) == 4500


PATTERNS: dict[str, tuple[bool, str, str]] = {
    "a name anywhere": (True, "*.py", "a/b/c.py"),
    "a folder's name anywhere": (True, "b", "a/b/c.py"),
    "a star stays in its part": (False, "a/*.py", "a/b/c.py"),
    "two stars for none": (True, "a/**/c.py", "a/c.py"),
    "two stars for many": (True, "a/**/c.py", "a/b/b/c.py"),
    "two stars at the beginning": (True, "**/c.py", "a/b/c.py"),
    "two stars at the end": (True, "a/**", "a/b/c.py"),
    "two stars at the end are at least one": (False, "a/b/**", "a/b"),
    "a folder from the root": (True, "a/b/", "a/b/c.py"),
    "not from the middle": (False, "b/c.py", "a/b/c.py"),
    "a leading slash is the root": (False, "/c.py", "a/c.py"),
    "a question mark": (True, "?.py", "a.py"),
    "a set": (True, "[a-c].py", "b.py"),
    "the case counts": (False, "*.PY", "a.py"),
    "a pattern longer than the path": (False, "a/b/c/d", "a/b"),
    "stars that blow up a regular expression": (False, "*a" * 100 + "b", "a" * 250),
    "parts that blow up a recursion": (False, "**/a/" * 20 + "b", "a/" * 60 + "c"),
}


@pytest.mark.parametrize("case", PATTERNS.values(), ids=PATTERNS.keys())
def test_patterns_mean_what_people_know_from_gitignore(case: tuple[bool, str, str]) -> None:
    expected, pattern, path = case
    assert PathPattern(pattern).matches(path) is expected


@pytest.fixture
def run(service: "Service") -> str:
    """A run with a few files. Returns: its route."""
    folder = service.root / "team/finetunes/coder/uid-1"
    checkpoint = folder / "checkpoints/step-000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 4)
    (checkpoint / "MANIFEST.json").write_text("{}")
    (folder / "train.log").write_text("step 1\n")
    (folder / ".half").write_text("not yet")
    return "/v1/finetunes/coder/uid-1/files"


async def test_the_files_of_a_run_are_listed(service: "Service", run: str) -> None:
    listed = (await service.call("GET", run)).json
    assert {entry["path"]: entry["bytes"] for entry in listed["files"]} == {
        "checkpoints/step-000010/MANIFEST.json": 2,
        "checkpoints/step-000010/adapter_model.safetensors": 1024,
        "train.log": 7,
    }
    assert listed["truncated"] is False


RANGES: dict[str, tuple[int, slice, str]] = {
    "the beginning": (206, slice(0, 10), "bytes=0-9"),
    "from the middle on": (206, slice(1000, 1024), "bytes=1000-"),
    "the end": (206, slice(1014, 1024), "bytes=-10"),
    "beyond the end is cut": (206, slice(1000, 1024), "bytes=1000-5000"),
    "after the end": (416, slice(0, 0), "bytes=1024-"),
    "no range": (416, slice(0, 0), "lines=1-2"),
}


@pytest.mark.parametrize("case", RANGES.values(), ids=RANGES.keys())
async def test_a_range_of_a_file_can_be_read(case: tuple[int, slice, str], service: "Service", run: str) -> None:
    status, part, header = case
    path = f"{run}/checkpoints/step-000010/adapter_model.safetensors"
    reply = await service.call("GET", path, Range=header)
    assert reply.status == status
    if status == 206:
        assert reply.body == (bytes(range(256)) * 4)[part]
        assert reply.headers["Content-Range"] == f"bytes {part.start}-{part.stop - 1}/1024"


async def test_a_file_can_be_read_whole_and_its_size_asked_for(service: "Service", run: str) -> None:
    whole = await service.call("GET", f"{run}/train.log")
    head = await service.call("HEAD", f"{run}/train.log")
    assert (whole.status, whole.body, whole.headers["Content-Length"]) == (200, b"step 1\n", "7")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "7")


async def test_the_service_tells_what_it_is(service: "Service") -> None:
    told = (await service.call("GET", "/v1")).json
    assert told["namespace"] == "team"
    assert told["freeBytes"] > 0
