"""Options and words of the command line that people misplace or misspell."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from codetune_cli.main import main

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Capture = pytest.CaptureFixture[str]
REVISION = "sha256:" + "a" * 64
STATUS: dict[str, Any] = {
    "phase": "Ready",
    "revision": REVISION,
    "rejections": [{"reason": "Binary", "files": 1}],
    "fileTypes": [{"type": "Python", "files": 1, "accepted": 1, "rejected": 0, "bytes": 10, "selected": True}],
}
ROW = {"path": "app/a.py", "source": "app", "type": "Python", "bytes": 10, "lines": 2, "decision": "train"}


@pytest.fixture
def where(desk: "Desk") -> list[str]:
    """A Project with one file. Returns: the options that lead to it."""
    desk.define()
    folder = desk.root / "team/projects/shop" / REVISION[7:]
    folder.mkdir(parents=True)
    (folder / "report.jsonl").write_text(json.dumps({**ROW, "reason": "", "detail": ""}) + "\n")
    source = {"name": "app", "git": {"url": "https://git.example.com/app.git"}}
    desk.make("Project", "projects", "shop", {"sources": [source]}, STATUS)
    return ["--kubeconfig", str(desk.kubeconfig), "-n", "team", "--timeout", "0"]


def test_common_options_may_stand_before_the_command(where: list[str], capsys: Capture) -> None:
    assert main([*where, "files", "shop"]) == 0
    assert "app/a.py" in capsys.readouterr().out


def test_the_namespace_behind_the_command_counts(where: list[str], capsys: Capture) -> None:
    assert main([*where, "files", "shop", "-n", "elsewhere"]) == 1
    assert "in namespace 'elsewhere'" in capsys.readouterr().err


UNKNOWN = {
    "a reason": ("--reason can be: Binary, HeldOut, Included.", ["--reason", "Binry"]),
    "a type": ("--type can be: Python.", ["--type", "Pyton"]),
}


@pytest.mark.parametrize("row", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_filter_that_no_file_can_match_tells_those_that_can(
    row: tuple[str, list[str]], where: list[str], capsys: Capture
) -> None:
    expected, words = row
    assert main(["files", "shop", *where, *words]) == 0
    assert expected in " ".join(capsys.readouterr().err.split())


def test_a_filter_that_this_time_matches_nothing_tells_no_more(where: list[str], capsys: Capture) -> None:
    assert main(["files", "shop", *where, "--reason", "heldout"]) == 0
    assert capsys.readouterr().err == "No file matches.\n"


@pytest.mark.parametrize("text", ["-1", "nan", "soon"])
def test_a_timeout_is_a_number_of_seconds(text: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["files", "shop", f"--timeout={text}"])
    assert f"{text!r} is no number of seconds" in capsys.readouterr().err
