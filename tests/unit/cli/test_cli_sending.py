"""Sending over lines that break: what has arrived stays, and what was cut goes on, through the real service proxy."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.uploads import UploadHead, blob_path
from codetune_cli import sending
from codetune_cli.choosing import choose_files
from codetune_cli.errors import CliError
from codetune_cli.listing import build_listing
from codetune_cli.sending import Sender

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

FILES = {"a.py": b"a = 1\n", "b/c.py": b"c = 1\n", "empty.py": b"", "large.bin": os.urandom(30_000)}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small files take several requests."""
    monkeypatch.setattr(sending, "PIECE_BYTES", 8000)
    monkeypatch.setattr(sending, "SMALL_BYTES", 2000)


class Try:
    """One attempt to send a folder, with what was said and counted."""

    def __init__(self, desk: "Desk", folder: Path) -> None:
        self.said: list[str] = []
        self.pauses: list[float] = []
        self.begun: tuple[int, int] | None = None
        self.sent: list[int] = []
        listing = build_listing(choose_files([folder]), lambda _: None)
        self.sender = Sender(desk.store, "shop", "code", listing, self.said.append, self.pauses.append)

    def go(self) -> UploadHead:
        return self.sender.send(self._begin, self.sent.append).head

    def _begin(self, lacking: int, there: int) -> None:
        self.begun = (lacking, there)


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def committed(desk: "Desk") -> dict[str, bytes]:
    """Path → content of the version that counts."""
    head = UploadHead.model_validate_json((desk.upload / "CURRENT.json").read_bytes())
    tree = desk.upload / "trees" / f"{head.revision.removeprefix('sha256:')}.jsonl"
    rows = [json.loads(line) for line in tree.read_bytes().splitlines()]
    return {row["path"]: (desk.upload / blob_path(row["sha256"])).read_bytes() for row in rows}


def test_a_folder_arrives_as_it_is(desk: "Desk", tmp_path: Path) -> None:
    attempt = Try(desk, write(tmp_path / "work", FILES))
    head = attempt.go()
    assert committed(desk) == FILES
    assert (head.files, head.bytes) == (4, 30_012)
    assert attempt.begun == (30_012, 0)
    assert sum(attempt.sent) == 30_012
    assert (attempt.said, attempt.pauses) == ([], [])


def test_a_second_upload_sends_only_what_is_new(desk: "Desk", tmp_path: Path) -> None:
    folder = write(tmp_path / "work", FILES)
    Try(desk, folder).go()
    (folder / "a.py").unlink()
    second = Try(desk, write(folder, {"new.py": b"new = 1\n"}))
    second.go()
    assert second.begun == (8, 30_006)
    assert set(committed(desk)) == {"b/c.py", "empty.py", "large.bin", "new.py"}


CUTS: dict[str, list[tuple[str, int]]] = {
    "in the first request": [("to", 100)],
    "before any answer": [("back", 0)] * 3,
    "in the middle of a body": [("", 0)] * 4 + [("to", 5000)],
    "in every second request": [("", 0), ("to", 700)] * 8,
    "in an answer": [("", 0), ("", 0), ("back", 250), ("back", 100), ("back", 100)],
    "in every answer once": [("back", 0), ("", 0)] * 8,
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())
def test_a_line_that_breaks_is_taken_up_again(cuts: list[tuple[str, int]], desk: "Desk", tmp_path: Path) -> None:
    desk.line.cuts = list(cuts)
    attempt = Try(desk, write(tmp_path / "work", FILES))
    attempt.go()
    assert committed(desk) == FILES
    assert attempt.pauses
    assert {"Going on in" in text for text in attempt.said} == {True}


class Killed(Exception):
    """Ends a command in the middle, as a signal would."""


def test_a_command_that_was_killed_goes_on_where_it_was(desk: "Desk", tmp_path: Path) -> None:
    folder = write(tmp_path / "work", FILES)
    first = Try(desk, folder)

    def die(size: int) -> None:
        first.sent.append(size)
        if sum(first.sent) > 16_000:
            raise Killed

    with pytest.raises(Killed):
        first.sender.send(lambda *_: None, die)
    assert not (desk.upload / "CURRENT.json").exists()

    second = Try(desk, folder)
    second.go()

    assert committed(desk) == FILES
    assert second.begun == (30_012 - sum(first.sent), sum(first.sent))


def test_a_line_that_stays_broken_ends_with_what_to_do(desk: "Desk", tmp_path: Path) -> None:
    desk.line.cuts = [("to", 0)] * 20
    attempt = Try(desk, write(tmp_path / "work", FILES))
    with pytest.raises(CliError, match="Run the same command again later: it goes on where it stopped"):
        attempt.go()
    assert attempt.pauses == [1, 2, 4, 8, 16, 30, 30]


CHANGES: dict[str, tuple[str, bytes | None]] = {
    "a small one": ("a.py", b"a = 2\n"),
    "a large one": ("large.bin", os.urandom(30_000)),
    "a large one that shrank": ("large.bin", b"short"),
    "a small one that went": ("a.py", None),
    "a large one that went": ("large.bin", None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_file_that_changes_while_it_is_sent_is_named(
    change: tuple[str, bytes | None], desk: "Desk", tmp_path: Path
) -> None:
    name, content = change
    attempt = Try(desk, write(tmp_path / "work", FILES))
    file = tmp_path / "work" / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(CliError, match=rf"{name} was changed or removed while it was sent"):
        attempt.go()
    assert not (desk.upload / "CURRENT.json").exists()
    Try(desk, write(tmp_path / "work", FILES)).go()
    assert committed(desk) == FILES


def test_a_token_that_was_made_anew_is_asked_for_again(desk: "Desk", tmp_path: Path) -> None:
    desk.store.info()
    (tmp_path / "token").write_text("another")
    secret = "/api/v1/namespaces/team/secrets/codetune-store-token"
    body = {"stringData": {"token": "another"}}
    desk.connection.ask("PATCH", secret, body, "application/merge-patch+json")
    assert desk.store.info().namespace == "team"


def test_a_token_that_has_not_reached_the_pod_yet_is_waited_for(desk: "Desk", tmp_path: Path) -> None:
    secret = "/api/v1/namespaces/team/secrets/codetune-store-token"
    desk.connection.ask("PATCH", secret, {"stringData": {"token": "another"}}, "application/merge-patch+json")
    attempt = Try(desk, write(tmp_path / "work", FILES))

    def sync(seconds: float) -> None:
        if seconds > 1:
            (tmp_path / "token").write_text("another")

    attempt.sender = replace(attempt.sender, pause=sync)
    attempt.go()
    assert committed(desk) == FILES
    assert ["does not know the token of the Secret codetune-store-token yet" in text for text in attempt.said] == [
        True,
        True,
    ]


def test_files_that_are_the_same_travel_once(desk: "Desk", tmp_path: Path) -> None:
    attempt = Try(desk, write(tmp_path / "work", {"a": b"same", "b": b"same"}))
    attempt.go()
    assert sum(attempt.sent) == 4
    assert hashlib.sha256(b"same").hexdigest() in {path.name for path in desk.upload.glob("blobs/*/*")}
