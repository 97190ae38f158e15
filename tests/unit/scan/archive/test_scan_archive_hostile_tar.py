"""tars that mean harm: each is refused, or its entry is, with a clear reason; nothing outside the store is touched."""

import bz2
import gzip
import lzma
import random
import tarfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from backports import zstd
from codetune_trainer.errors import InvalidArchive, SourceError, UnsupportedSource

if TYPE_CHECKING:
    from unit.scan.archive.conftest import Site
    from unit.scan.conftest import Workshop

CODE = b"def f(a, b):\n    return a + b\n"
ZEROS = bytes(1024)
GOOD = {"app/a.py", "app/z.py"}
NOISE = random.Random(7).randbytes(4096)


def member(name: bytes, data: bytes = b"", kind: bytes = b"0", **fields: Any) -> bytes:
    """An entry of a tar, made by hand."""
    size = fields.get("size", len(data))
    number = b"\x80" + size.to_bytes(11) if size >= 8**11 else b"%011o\0" % size
    block = bytearray(512)
    block[:100] = name[:100].ljust(100, b"\0")
    block[100:108] = b"%07o\0" % fields.get("mode", 0o644)
    block[108:124] = b"0000000\0" * 2
    block[124:136] = fields.get("number", number)
    block[136:148] = b"%011o\0" % 0
    block[156:157] = kind
    block[157:257] = fields.get("link", b"")[:100].ljust(100, b"\0")
    block[257:265] = fields.get("magic", b"ustar\x0000")
    block[345:500] = fields.get("prefix", b"").ljust(155, b"\0")
    for position, value in fields.get("bytes", {}).items():
        block[position : position + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) + fields.get("wrong", 0))
    return bytes(block) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def tar(*members: bytes) -> bytes:
    """A tar of entries, with a good one before and behind them."""
    return member(b"a.py", CODE) + b"".join(members) + member(b"z.py", CODE + b"z = 1\n") + ZEROS


def pax(**records: bytes) -> bytes:
    """A pax header for the next entry."""
    return member(b"pax", b"".join(record(key.encode(), value) for key, value in records.items()), b"x")


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(b"%d" % length) + len(rest):
        length += 1
    return b"%d" % length + rest


UNREADABLE: list[Any] = [
    pytest.param("../evil.py", "`..`", tar(member(b"../evil.py", CODE)), id="tar-climbs-out"),
    pytest.param("a/../../evil.py", "`..`", tar(member(b"a/../../evil.py", CODE)), id="tar-climbs-out-from-inside"),
    pytest.param("/etc/evil.py", "absolute", tar(member(b"/etc/evil.py", CODE)), id="tar-absolute"),
    pytest.param("C:/evil.py", "drive", tar(member(b"C:/evil.py", CODE)), id="tar-drive"),
    pytest.param("\\\\host\\evil.py", "absolute", tar(member(b"\\\\host\\evil.py", CODE)), id="tar-network-share"),
    pytest.param("..\\evil.py", "`..`", tar(member(b"..\\evil.py", CODE)), id="tar-climbs-out-by-backslash"),
    pytest.param("../d/", "`..`", tar(member(b"../d/", kind=b"5")), id="tar-folder-outside"),
    pytest.param("/etc/e.py", "absolute", tar(pax(path=b"/etc/e.py"), member(b"e.py", CODE)), id="tar-pax-absolute"),
    pytest.param(
        "../e.py", "`..`", tar(member(b"L", b"../e.py\0", b"L"), member(b"e.py", CODE)), id="tar-gnu-long-name"
    ),
    pytest.param("../e.py", "`..`", tar(member(b"e.py", CODE, prefix=b"..")), id="tar-prefix"),
    pytest.param("a\\x00b.py", "NUL", tar(pax(path=b"a\0b.py"), member(b"e.py", CODE)), id="tar-pax-nul"),
    pytest.param("", "without a name", tar(member(b"", CODE)), id="tar-no-name"),
    pytest.param("evil.py", "symbolic link", tar(member(b"evil.py", kind=b"2", link=b"/etc/passwd")), id="tar-link"),
    pytest.param("evil.py", "hard link", tar(member(b"evil.py", kind=b"1", link=b"/etc/passwd")), id="tar-hard-link"),
    pytest.param("evil.py", "hard link", tar(member(b"evil.py", kind=b"1", link=b"a.py")), id="tar-hard-link-inside"),
    pytest.param("sda", "device", tar(member(b"sda", kind=b"4")), id="tar-block-device"),
    pytest.param("null", "device", tar(member(b"null", kind=b"3")), id="tar-character-device"),
    pytest.param("pipe.py", "pipe", tar(member(b"pipe.py", kind=b"6")), id="tar-pipe"),
    pytest.param(
        "holes.py",
        "sparse",
        tar(member(b"holes.py", CODE, b"S", magic=b"ustar  \0", bytes={483: b"77777777777\0"})),
        id="tar-sparse-bomb",
    ),
    pytest.param(
        "holes.py",
        "sparse",
        tar(
            member(b"holes.py", b"", b"S", bytes={482: b"\1", 483: b"77777777777\0"}),
            bytes(504) + b"\1" + bytes(7) + bytes(512),
        ),
        id="tar-sparse-map-that-goes-on",
    ),
    pytest.param(
        "holes.py",
        "sparse",
        tar(
            pax(**{"GNU.sparse.major": b"1", "GNU.sparse.name": b"holes.py", "GNU.sparse.realsize": b"9" * 15}),
            member(b"GNUSparseFile.0/holes.py", CODE),
        ),
        id="tar-pax-sparse-bomb",
    ),
    pytest.param("odd.py", "type 'Q'", tar(member(b"odd.py", CODE, b"Q")), id="tar-unknown-type"),
    pytest.param("part.py", "type 'M'", tar(member(b"part.py", CODE, b"M")), id="tar-continued-from-elsewhere"),
    pytest.param(".git/", "git's own", tar(member(b".git/hooks/post-checkout", CODE)), id="tar-git-folder"),
    pytest.param("sub/.GIT/", "git's own", tar(member(b"sub/.GIT/config", CODE)), id="tar-git-folder-in-capitals"),
]


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


GOOD_TAR = tar(member(b"b.py", CODE))
REFUSED: list[Any] = [
    pytest.param(InvalidArchive, "web page", b"<!DOCTYPE html><html>Sign in</html>", id="a-login-page"),
    pytest.param(InvalidArchive, "it is empty", b"", id="nothing"),
    pytest.param(InvalidArchive, "gives no archive", NOISE, id="noise"),
    pytest.param(UnsupportedSource, "7z", b"7z\xbc\xaf\x27\x1c" + bytes(100), id="7z"),
    pytest.param(UnsupportedSource, "RAR", b"Rar!\x1a\7\1\0" + bytes(100), id="rar"),
    pytest.param(InvalidArchive, "no tar archive is in it", gzip.compress(CODE * 100), id="gzip-of-one-file"),
    pytest.param(InvalidArchive, "before the mark of its end", cut(GOOD_TAR), id="cut-tar"),
    pytest.param(InvalidArchive, "before the mark of its end", GOOD_TAR[: -len(ZEROS)], id="tar-without-end"),
    pytest.param(InvalidArchive, "was cut", cut(gzip.compress(GOOD_TAR)), id="cut-gzip"),
    pytest.param(InvalidArchive, "was cut", cut(bz2.compress(GOOD_TAR)), id="cut-bzip2"),
    pytest.param(InvalidArchive, "was cut", cut(lzma.compress(GOOD_TAR)), id="cut-xz"),
    pytest.param(InvalidArchive, "was cut", cut(zstd.compress(GOOD_TAR)), id="cut-zstd"),
    pytest.param(
        InvalidArchive, "stream can't be unpacked", gzip.compress(GOOD_TAR)[:-8] + bytes(8), id="gzip-wrong-checksum"
    ),
    pytest.param(InvalidArchive, "belong to nothing", gzip.compress(GOOD_TAR) + b"more", id="gzip-with-a-tail"),
    pytest.param(InvalidArchive, "no header of an entry", tar(member(b"b.py", CODE, wrong=1)), id="tar-checksum"),
    pytest.param(InvalidArchive, "has no size", tar(member(b"b.py", CODE, number=b"-0000000001\0")), id="tar-minus"),
    pytest.param(InvalidArchive, "has no size", tar(member(b"b", CODE, number=b"\xff" * 12)), id="tar-binary-minus"),
    pytest.param(
        InvalidArchive, "before the mark of its end", tar(member(b"b.py", CODE, size=2**60)), id="tar-exabyte"
    ),
    pytest.param(
        InvalidArchive, "before the mark of its end", tar(pax(size=b"9" * 18), member(b"b.py", CODE)), id="pax-exabyte"
    ),
    pytest.param(InvalidArchive, "has no size", tar(pax(size=b"-5"), member(b"b.py", CODE)), id="pax-minus"),
    pytest.param(
        InvalidArchive, "a header of 8589934591 bytes", tar(member(b"pax", b"", b"x", size=8**11 - 1)), id="pax-8-gib"
    ),
    pytest.param(
        InvalidArchive, "a header of 8589934591 bytes", tar(member(b"L", b"", b"L", size=8**11 - 1)), id="name-of-8-gib"
    ),
    pytest.param(
        InvalidArchive, "pax header", tar(member(b"pax", b"99999 path=x\n", b"x"), member(b"b.py")), id="pax-length"
    ),
    pytest.param(
        InvalidArchive, "pax header", tar(member(b"pax", b"0 " * 400_000, b"x"), member(b"b.py")), id="pax-no-end"
    ),
    pytest.param(
        InvalidArchive,
        "before the mark of its end",
        tar(member(b"h.py", b"", b"S", bytes={482: b"\1"}))[: 1024 + 512] + (bytes(504) + b"\1" + bytes(7)) * 50,
        id="tar-endless-sparse-map",
    ),
]


@pytest.mark.parametrize(("path", "reason", "archive"), UNREADABLE)
def test_an_entry_that_means_harm_is_listed_with_its_reason(
    path: str, reason: str, archive: bytes, scan_archive: Callable[[bytes], Any]
) -> None:
    scanned = scan_archive(archive)
    row = scanned.report[f"app/{path}"]
    assert (row["decision"], row["reason"]) == ("rejected", "Unreadable")
    assert reason in row["detail"]
    assert set(scanned.files) == GOOD


@pytest.mark.parametrize(("error", "message", "archive"), REFUSED)
def test_an_archive_that_means_harm_is_refused_with_its_reason(
    error: type[SourceError], message: str, archive: bytes, scan_archive: Callable[[bytes], Any]
) -> None:
    with pytest.raises(error) as failure:
        scan_archive(archive)
    assert message in failure.value.message
    assert failure.value.hint


def test_an_archive_in_an_archive_is_a_binary_file(scan_archive: Callable[[bytes], Any]) -> None:
    inner = tar(member(b"../../evil.py", CODE))
    scanned = scan_archive(tar(member(b"inner.tar", inner), member(b"inner.tar.gz", gzip.compress(inner))))
    assert scanned.verdicts() == {"a.py": "train", "inner.tar": "Binary", "inner.tar.gz": "Binary", "z.py": "train"}


def test_a_packed_archive_that_is_packed_again_is_not_unpacked(scan_archive: Callable[[bytes], Any]) -> None:
    with pytest.raises(InvalidArchive, match="no tar archive is in it"):
        scan_archive(gzip.compress(gzip.compress(GOOD_TAR)))


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o7777])
def test_bits_of_a_mode_do_nothing(mode: int, scan_archive: Callable[[bytes], Any], workshop: "Workshop") -> None:
    scanned = scan_archive(tar(member(b"tool.py", CODE + b"# tool\n", mode=mode)))
    assert scanned.verdicts() == {"a.py": "train", "tool.py": "train", "z.py": "train"}
    assert not [path for path in workshop.places.store.rglob("*") if path.is_file() and path.stat().st_mode & 0o7111]


@pytest.mark.parametrize(
    ("shown", "raw"),
    [
        pytest.param("new\nline.py", b"new\nline.py", id="line-break"),
        pytest.param("bad\\xff.py", b"bad\xff.py", id="invalid-utf-8"),
        pytest.param("\x1b[31mred.py", b"\x1b[31mred.py", id="terminal-colours"),
        pytest.param("event=result nonce=1.py", b"event=result nonce=1.py", id="protocol"),
        pytest.param("grün.py", "grün.py".encode(), id="umlaut"),
        pytest.param("-rf.py", b"-rf.py", id="option"),
        pytest.param("x/y.py", b"./x//./y.py", id="dots-that-mean-nothing"),
        pytest.param("...py", b"...py", id="three-dots"),
    ],
)
def test_names_are_data(shown: str, raw: bytes, scan_archive: Callable[[bytes], Any]) -> None:
    scanned = scan_archive(member(b"keep/", kind=b"5") + member(raw, CODE) + member(b"z.md", b"# z\n") + ZEROS)
    assert list(scanned.files) == [f"app/{shown}"]


def test_a_name_longer_than_any_file_system_takes_is_refused(scan_archive: Callable[[bytes], Any]) -> None:
    scanned = scan_archive(tar(pax(path=b"d/" * 3000 + b"x.py"), member(b"x.py", CODE)))
    (path,) = [path for path in scanned.report if path.startswith("app/d/")]
    assert len(path) < 300
    assert "6004 bytes" in scanned.report[path]["detail"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_of_entries_with_one_name_the_last_counts(
    form: int, scan_archive: Callable[[bytes], Any], site: "Site"
) -> None:
    first, second = site.tar({"a.py": "first = 1\n"}, form=form), site.tar({"./a.py": "second = 2\n"}, form=form)
    scanned = scan_archive(first[:1024] + second)
    assert scanned.files["app/a.py"]["text"] == "second = 2\n"
    assert "1 entries have a name that comes again, such as 'a.py'" in scanned.result.sources[0].message
