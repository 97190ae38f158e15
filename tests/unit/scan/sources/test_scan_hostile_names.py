"""Names of files that mean harm, on a volume: each is data, shown once and unlike any other, and breaks no line.

Names that no file system takes (NUL, `/`, `..`) come in archives and git trees: test_scan_archive_hostile_*.py and
test_scan_hostile.py. Names of a single file there go through the same code as here (scan/paths.py).
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.protocol import ResultEvent, parse, render
from codetune_trainer.scan.paths import PATH_BYTES, spell_path
from codetune_trainer.scan.sources.volumes import MOST_FOLDERS
from hypothesis import example, given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned, Workshop

    ScanDisk = Callable[..., Scanned]

NONCE = "nonce-of-this-test-0001"
NAMES = [
    pytest.param("new\nline.py", b"new\nline.py", id="line-break"),
    pytest.param("carriage\rreturn.py", b"carriage\rreturn.py", id="carriage-return"),
    pytest.param("tab\t.py", b"tab\t.py", id="tab"),
    pytest.param("".join(map(chr, range(1, 32))) + "\x7f.py", bytes(range(1, 32)) + b"\x7f.py", id="all-controls"),
    pytest.param("\x1b[31mred\x1b]0;title\x07.py", b"\x1b[31mred\x1b]0;title\x07.py", id="terminal-codes"),
    pytest.param("\x85\u2028\u2029.py", "\x85\u2028\u2029.py".encode(), id="line-breaks-of-unicode"),
    pytest.param("\u202egnp.\u202dpy.py", "\u202egnp.\u202dpy.py".encode(), id="right-to-left-override"),
    pytest.param("\u2066a\u2069.py", "\u2066a\u2069.py".encode(), id="isolates"),
    pytest.param("a\u200b\u200d\ufeff.py", "a\u200b\u200d\ufeff.py".encode(), id="zero-width"),
    pytest.param("e\u0301.py", "e\u0301.py".encode(), id="not-composed"),
    pytest.param("\U0001f469\u200d\U0001f4bb.py", "\U0001f469\u200d\U0001f4bb.py".encode(), id="emoji-of-three"),
    pytest.param("\ufdd0\U0010ffff.py", "\ufdd0\U0010ffff.py".encode(), id="no-characters"),
    pytest.param("bad\\xff.py", b"bad\xff.py", id="invalid-utf-8"),
    pytest.param("\\xc0\\xaf.py", b"\xc0\xaf.py", id="overlong-slash"),
    pytest.param("\\xed\\xa0\\x80.py", b"\xed\xa0\x80.py", id="lone-surrogate"),
    pytest.param("\\xf5\\x80\\x80\\x80.py", b"\xf5\x80\x80\x80.py", id="beyond-unicode"),
    pytest.param("\\x5cxff.py", b"\\xff.py", id="spelled-like-a-byte"),
    pytest.param("a\\b.py", b"a\\b.py", id="backslash"),
    pytest.param("C:\\a.py", b"C:\\a.py", id="drive-letter"),
    pytest.param("n" * 252 + ".py", b"n" * 252 + b".py", id="255-bytes"),
    pytest.param("\u6f22" * 84 + ".py", "\u6f22".encode() * 84 + b".py", id="255-bytes-of-85-letters"),
    pytest.param("aux.py", b"aux.py", id="windows-device"),
    pytest.param("com1.tar.py", b"com1.tar.py", id="windows-device-with-endings"),
    pytest.param(" .py", b" .py", id="a-space"),
    pytest.param("-rf.py", b"-rf.py", id="short-option"),
    pytest.param("--help.py", b"--help.py", id="long-option"),
    pytest.param("@file.py", b"@file.py", id="argument-file"),
    pytest.param("event=result nonce=x.py", b"event=result nonce=x.py", id="protocol-line"),
    pytest.param('"},{"path":"x.py', b'"},{"path":"x.py', id="json"),
    pytest.param("$(touch ran);`id`.py", b"$(touch ran);`id`.py", id="shell"),
    pytest.param("%s{0}{path}%n.py", b"%s{0}{path}%n.py", id="format-string"),
    pytest.param("[!a]*?.py", b"[!a]*?.py", id="glob"),
    pytest.param("!a.py", b"!a.py", id="negated-pattern"),
    pytest.param("#a.py", b"#a.py", id="comment-pattern"),
    pytest.param("...py", b"...py", id="three-dots"),
    pytest.param("~root.py", b"~root.py", id="home"),
    pytest.param("<script>alert(1)<!--.py", b"<script>alert(1)<!--.py", id="html"),
    pytest.param("__proto__.py", b"__proto__.py", id="javascript-prototype"),
]


def put(folder: Path, name: bytes, content: bytes) -> None:
    """Write a file whose name may be no text."""
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write(content)


@pytest.mark.parametrize(("shown", "name"), NAMES)
def test_a_name_is_data(workshop: "Workshop", scan_disk: "ScanDisk", shown: str, name: bytes) -> None:
    put(workshop.volume("disk", {}), name, b"a = 1\n")
    scanned = scan_disk()
    assert list(scanned.files) == list(scanned.report) == [f"disk/{shown}"]
    assert scanned.report[f"disk/{shown}"]["decision"] == "train"
    for part in ("files.jsonl", "report.jsonl"):
        assert (scanned.folder / part).read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(("shown", "name"), NAMES)
def test_a_rejected_name_breaks_no_line_of_the_protocol(
    workshop: "Workshop", scan_disk: "ScanDisk", shown: str, name: bytes
) -> None:
    put(workshop.volume("disk", {"keep.py": "a = 1\n"}), name, b"\0")
    event = ResultEvent(scan=scan_disk().result)
    line = render(event, NONCE)
    assert line.isascii()
    assert line.isprintable()
    assert parse(line, NONCE) == event
    assert event.scan is not None
    assert event.scan.rejections[0].examples == [f"disk/{shown}"]


def test_names_that_differ_only_in_case_or_in_their_bytes_are_different_files(
    workshop: "Workshop", scan_disk: "ScanDisk"
) -> None:
    folder = workshop.volume("disk", {})
    names = [
        b"a.py",
        b"A.py",
        b"a.PY",
        "\u00e9.py".encode(),
        "e\u0301.py".encode(),
        b"\xe9.py",
        b"\\xe9.py",
        b"\\x5cxe9.py",
    ]
    for number, name in enumerate(names):
        put(folder, name, b"x = %d\n" % number)
    scanned = scan_disk()
    texts = [row["text"] for row in scanned.files.values()]
    assert len(scanned.files) == len(names)
    assert sorted(texts) == [f"x = {number}\n" for number in range(len(names))]
    for number, name in enumerate(names):
        assert scanned.files[f"disk/{spell_path(name)}"]["text"] == f"x = {number}\n"


@given(first=st.binary(max_size=12), second=st.binary(max_size=12))
@example(first=b"\\xff", second=b"\xff")
@example(first=b"\\x5cxff", second=b"\\xff")
@example(first=b"\\\\xff", second=b"\\\xff")
def test_no_two_paths_are_spelled_alike(first: bytes, second: bytes) -> None:
    assert (spell_path(first) == spell_path(second)) is (first == second)
    assert json.loads(json.dumps(spell_path(first))) == spell_path(first)


def make_deep(root: Path, depth: int, name: bytes = b"d") -> None:
    """A chain of folders, deeper than any path that a system call takes; a file in each hundredth."""
    folder = os.open(root, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=folder)
        below = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
        if level % 100 == 0:
            file = os.open(b"f.py", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
            os.write(file, b"x = %d\n" % level)
            os.close(file)
    os.close(folder)


@pytest.mark.parametrize(
    ("read", "depth", "name"),
    [
        pytest.param(3, 2100, b"d", id="of-short-names"),
        pytest.param(1, 30, b"d" * 200, id="of-long-names"),
    ],
)
def test_a_tree_deeper_than_any_path_is_read_to_a_depth(
    workshop: "Workshop", read: int, depth: int, name: bytes
) -> None:
    folder = workshop.volume("disk", {})
    try:
        make_deep(folder, depth, name)
        scanned = workshop.scan(workshop.from_volume("disk"), workers=1)
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)  # Python's own way to remove a tree is not deep enough
    assert len(scanned.files) == read
    (refused,) = [row for row in scanned.report.values() if row["reason"]]
    assert refused["reason"] == "Unreadable"
    assert f"below {MOST_FOLDERS} others or with a path of more than {PATH_BYTES} bytes" in refused["detail"]
