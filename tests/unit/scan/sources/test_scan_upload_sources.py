"""Upload sources: a scan reads the version that was committed last, and believes none of it unchecked."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.uploads import UploadEntry, UploadHead, blob_path, manifest_line
from codetune_trainer.errors import SourceUnavailable, UploadMissing
from codetune_trainer.scan.sources.upload_tree import QUIET_SECONDS, read_content

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

SOURCE = {"name": "sent", "upload": {}}


def folder_of(workshop: "Workshop", source: str = "sent") -> Path:
    return workshop.root / "store/team/projects/code/uploads" / source


def upload(workshop: "Workshop", files: Mapping[str, bytes], source: str = "sent", extra: bytes = b"") -> str:
    """What the store service leaves. Returns: the version."""
    folder, lines = folder_of(workshop, source), []
    for path, content in sorted(files.items(), key=lambda item: item[0].encode()):
        sha256 = hashlib.sha256(content).hexdigest()
        target = folder / blob_path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        lines.append(manifest_line(UploadEntry(path=path, bytes=len(content), sha256=sha256)))
    manifest = b"".join(lines) + extra
    version = hashlib.sha256(manifest).hexdigest()
    (folder / "trees").mkdir(parents=True, exist_ok=True)
    (folder / "trees" / f"{version}.jsonl").write_bytes(manifest)
    head = UploadHead(revision=f"sha256:{version}", files=len(files), bytes=0, committed_at="2026-11-23T10:00:00Z")
    (folder / "CURRENT.json").write_text(head.model_dump_json(by_alias=True))
    return version


def code(workshop: "Workshop", *names: str) -> dict[str, bytes]:
    return {f"{name}.py": workshop.code(name).encode() for name in names}


def test_an_upload_gives_the_dataset_that_a_volume_gives(workshop: "Workshop") -> None:
    files = {
        **code(workshop, "a", "b", "a-b", "a/b"),
        "größe.py": b"x = 1\n",
        "line\nbreak.py": b"y = 2\n",
        "spelled\\xff.py": b"z = 3\n",
        "z.png": b"\0",
    }
    version = upload(workshop, files)
    sent = workshop.scan(SOURCE)
    workshop.volume("sent", files)
    mounted = workshop.scan(workshop.from_volume("sent"))

    assert sent.result.revision == mounted.result.revision
    assert sent.verdicts() == mounted.verdicts()
    (status,) = sent.result.sources
    assert (status.commit, status.files) == (version, 8)


def test_a_new_version_is_a_new_dataset(workshop: "Workshop") -> None:
    upload(workshop, code(workshop, "a", "b"))
    first = workshop.scan(SOURCE).result.revision
    upload(workshop, code(workshop, "a", "c"))
    second = workshop.scan(SOURCE)
    assert second.result.revision != first
    assert set(second.files) == {"sent/a.py", "sent/c.py"}


def test_nothing_sent_yet_says_what_to_run(workshop: "Workshop") -> None:
    with pytest.raises(UploadMissing) as caught:
        workshop.scan(SOURCE)
    assert "`kubectl codetune upload code PATH --source sent -n team`" in caught.value.message
    assert caught.value.exit_code == 64


def test_nothing_sent_yet_does_not_stop_the_other_sources(workshop: "Workshop") -> None:
    workshop.volume("disk", {"a.py": workshop.code("a"), "b.py": workshop.code("b")})
    sources = workshop.scan(SOURCE, workshop.from_volume("disk")).result.sources
    assert sources[0].message.startswith("UploadMissing: ")
    assert sources[1].message == ""


def test_a_file_that_was_too_large_to_send_is_listed(workshop: "Workshop") -> None:
    line = manifest_line(UploadEntry(path="z/huge.bin", bytes=2**30, sha256=""))
    upload(workshop, code(workshop, "a", "b"), extra=line)
    row = workshop.scan(SOURCE).report["sent/z/huge.bin"]
    assert (row["reason"], row["bytes"]) == ("TooLarge", 2**30)


KINDS: dict[str, Callable[[Path], object]] = {
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
}


def damage(folder: Path, content: bytes, how: str) -> None:
    blob = folder / blob_path(hashlib.sha256(content).hexdigest())
    if how == "lost":
        blob.unlink()
    elif how == "cut":
        blob.write_bytes(content[:-1])
    elif how == "changed":
        blob.write_bytes(content[::-1])
    elif how == "a gigabyte of zeros":
        os.truncate(blob, 2**30)
    else:
        blob.unlink()
        KINDS[how](blob)


DAMAGES = ["lost", "cut", "changed", "a gigabyte of zeros", *KINDS]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("how", DAMAGES)
def test_a_content_that_is_not_what_was_sent_is_unreadable(how: str, workshop: "Workshop") -> None:
    files = code(workshop, "a", "b", "c")
    upload(workshop, files)
    damage(folder_of(workshop), files["b.py"], how)
    scanned = workshop.scan(SOURCE)
    row = scanned.report["sent/b.py"]
    assert row["reason"] == "Unreadable"
    assert "again" in row["detail"]
    assert set(scanned.files) == {"sent/a.py", "sent/c.py"}


def test_a_damaged_content_goes_so_that_it_is_sent_anew(workshop: "Workshop") -> None:
    files = code(workshop, "a", "b")
    upload(workshop, files)
    damage(folder_of(workshop), files["b.py"], "changed")
    workshop.scan(SOURCE)
    assert not (folder_of(workshop) / blob_path(hashlib.sha256(files["b.py"]).hexdigest())).exists()


def test_a_content_that_goes_away_meanwhile_ends_the_scan_for_another_attempt(workshop: "Workshop") -> None:
    upload(workshop, code(workshop, "a"))
    with pytest.raises(SourceUnavailable) as caught:
        read_content(folder_of(workshop).resolve(), b"0" * 64)
    assert caught.value.exit_code == 1


HEADS: dict[str, Any] = {
    "no JSON": b"{",
    "a revision that is a path": json.dumps({"revision": "sha256:../../x", "files": 1, "bytes": 1, "committedAt": ""}),
    "a version that is not there": json.dumps(
        {"revision": f"sha256:{'0' * 64}", "files": 1, "bytes": 1, "committedAt": "2026-11-23T10:00:00Z"}
    ),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_a_damaged_head_is_told_as_such(head: str | bytes, workshop: "Workshop") -> None:
    upload(workshop, code(workshop, "a"))
    (folder_of(workshop) / "CURRENT.json").write_bytes(head.encode() if isinstance(head, str) else head)
    with pytest.raises(SourceUnavailable, match="damaged"):
        workshop.scan(SOURCE)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("part", ["head", "list of files"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_says_which_files_there_are_must_be_a_plain_file(kind: str, part: str, workshop: "Workshop") -> None:
    version = upload(workshop, code(workshop, "a"))
    path = folder_of(workshop) / ("CURRENT.json" if part == "head" else f"trees/{version}.jsonl")
    path.unlink()
    KINDS[kind](path)
    with pytest.raises(SourceUnavailable, match="damaged"):
        workshop.scan(SOURCE)


@pytest.mark.timeout(30)
def test_a_list_of_files_of_a_hundred_gigabytes_is_not_read(workshop: "Workshop") -> None:
    version = upload(workshop, code(workshop, "a"))
    os.truncate(folder_of(workshop) / f"trees/{version}.jsonl", 10**11)
    with pytest.raises(SourceUnavailable, match="at most 67108864 bytes"):
        workshop.scan(SOURCE)


def test_a_list_of_files_with_another_digest_is_not_read(workshop: "Workshop") -> None:
    version = upload(workshop, code(workshop, "a"))
    with (folder_of(workshop) / "trees" / f"{version}.jsonl").open("ab") as tree:
        tree.write(manifest_line(UploadEntry(path="b.py", bytes=0, sha256=hashlib.sha256(b"").hexdigest())))
    with pytest.raises(SourceUnavailable, match="another digest"):
        workshop.scan(SOURCE)


PATHS = ["../../../etc/passwd", "/etc/passwd", "a/../../b.py", ".git/config", "a//b.py"]


@pytest.mark.parametrize("path", PATHS)
def test_a_list_of_files_with_a_path_that_leads_elsewhere_is_not_read(path: str, workshop: "Workshop") -> None:
    row = {"path": path, "bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    upload(workshop, {}, extra=json.dumps(row).encode() + b"\n")
    with pytest.raises(SourceUnavailable, match="not valid"):
        workshop.scan(SOURCE)


def test_uploads_of_sources_that_are_gone_are_removed_once_nobody_sends_them(workshop: "Workshop") -> None:
    for name in ("sent", "old", "coming"):
        upload(workshop, code(workshop, "a", "b"), name)
    past = time.time() - QUIET_SECONDS - 60
    for path in [*folder_of(workshop, "old").rglob("*"), folder_of(workshop, "old")]:
        os.utime(path, (past, past))
    workshop.scan(SOURCE)
    assert sorted(path.name for path in folder_of(workshop).parent.iterdir()) == ["coming", "sent"]
