"""zips that mean harm: each is refused, or its entry is, with a clear reason; nothing outside the store is touched."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from codetune_trainer.errors import InvalidArchive, SourceError, UnsupportedSource

CODE = b"def f(a, b):\n    return a + b\n"
GOOD = {"app/a.py"}


def zipped(name: str, content: bytes = CODE, **fields: Any) -> bytes:
    """A zip with one entry beside a good one."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.py"), CODE)
        info = zipfile.ZipInfo(name)
        for key, value in fields.items():
            setattr(info, key, value)
        archive.writestr(info, content, fields.get("compress_type", zipfile.ZIP_DEFLATED))
    return made.getvalue()


def patch(data: bytes, magic: bytes, offset: int, value: bytes, which: int = -1) -> bytes:
    """A zip with some bytes of one record changed: of the last one, or of that with this number."""
    at = -1
    for _ in range(data.count(magic) if which < 0 else which + 1):
        at = data.index(magic, at + 1)
    return data[: at + offset] + value + data[at + offset + len(value) :]


def renamed(raw: bytes) -> bytes:
    """A zip whose entry has this name in both places, whatever a library thinks of it."""
    return zipped("N" * len(raw)).replace(b"N" * len(raw), raw)


UNREADABLE: list[Any] = [
    pytest.param("../evil.py", "`..`", zipped("../evil.py"), id="zip-climbs-out"),
    pytest.param("..\\..\\evil.py", "`..`", renamed(b"..\\..\\evil.py"), id="zip-climbs-out-by-backslash"),
    pytest.param("/etc/evil.py", "absolute", zipped("/etc/evil.py"), id="zip-absolute"),
    pytest.param("C:\\evil.py", "drive", renamed(b"C:\\evil.py"), id="zip-drive"),
    pytest.param("c:evil.py", "drive", zipped("c:evil.py"), id="zip-drive-relative"),
    pytest.param("a\\x00.py", "NUL", renamed(b"a\0.py"), id="zip-nul"),
    pytest.param(
        "evil.py", "symbolic link", zipped("evil.py", b"/etc/passwd", external_attr=0o120777 << 16), id="zip-link"
    ),
    pytest.param("pipe.py", "no plain file", zipped("pipe.py", external_attr=0o010644 << 16), id="zip-pipe"),
    pytest.param("sda", "no plain file", zipped("sda", external_attr=0o060644 << 16), id="zip-device"),
    pytest.param("evil.py", "encrypted", patch(zipped("evil.py"), b"PK\1\2", 8, b"\1\0"), id="zip-encrypted"),
    pytest.param("evil.py", "Deflate64", patch(zipped("evil.py"), b"PK\1\2", 10, b"\x09\0"), id="zip-deflate64"),
    pytest.param("evil.py", "method 77", patch(zipped("evil.py"), b"PK\1\2", 10, b"\x4d\0"), id="zip-unknown-method"),
    pytest.param(
        "evil.py", "calls it 'good.py'", patch(zipped("evil.py"), b"PK\3\4", 30, b"good.py"), id="zip-two-names"
    ),
    pytest.param("evil.py", "another part", patch(zipped("evil.py"), b"PK\1\2", 34, b"\5\0"), id="zip-other-disk"),
]


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def overlapping() -> bytes:
    """A zip whose directory names one entry three times."""
    data = zipped("bomb.py", bytes(100_000))
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    last = data[data.rindex(b"PK\1\2") : end]
    directory = data[start:end] + last + last
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, len(directory), start, 0)
    return data[:start] + directory + tail


def swallowing() -> bytes:
    """A zip whose first entry takes the second one, header and all, for a part of its own content."""
    data = bytearray(zipped("b.py", CODE, compress_type=zipfile.ZIP_STORED))
    directory = data.index(b"PK\1\2")
    struct.pack_into("<2L", data, directory + 20, *[data.index(b"PK\3\4", 1) + 20] * 2)
    return bytes(data)


REFUSED: list[Any] = [
    pytest.param(InvalidArchive, "no directory at its end", cut(zipped("b.py")), id="cut-zip"),
    pytest.param(
        InvalidArchive, "does not fit its checksum", patch(zipped("b.py"), b"PK\1\2", 16, b"abcd"), id="zip-checksum"
    ),
    pytest.param(
        InvalidArchive, "more than the 1 bytes", patch(zipped("b.py"), b"PK\1\2", 24, b"\1\0\0\0"), id="zip-small-size"
    ),
    pytest.param(
        InvalidArchive,
        "checksum",
        patch(zipped("b.py"), b"PK\1\2", 24, b"\0\1\0\0"),
        id="zip-large-size",
    ),
    pytest.param(
        InvalidArchive, "can't be unpacked", patch(zipped("b.py"), b"PK\3\4", 34, b"\xff\xff\xff"), id="zip-stream"
    ),
    pytest.param(InvalidArchive, "shares bytes", overlapping(), id="zip-overlapping-entries"),
    pytest.param(InvalidArchive, "shares bytes", swallowing(), id="zip-swallowed-entry"),
    pytest.param(
        InvalidArchive, "behind the directory", patch(zipped("b.py"), b"PK\1\2", 42, b"\xff\xff\0\0"), id="zip-offset"
    ),
    pytest.param(
        InvalidArchive, "not where the directory says", patch(zipped("b.py"), b"PK\3\4", 0, b"PK\3\5"), id="zip-no-head"
    ),
    pytest.param(
        InvalidArchive, "directory", patch(zipped("b.py"), b"PK\5\6", 12, b"\xff\xff\xff\x7f"), id="zip-huge-directory"
    ),
    pytest.param(
        InvalidArchive, "directory can't be read", patch(zipped("b.py"), b"PK\1\2", 28, b"\xff\xff"), id="zip-long-name"
    ),
    pytest.param(UnsupportedSource, "part of several", patch(zipped("b.py"), b"PK\5\6", 4, b"\1\0"), id="zip-split"),
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


@pytest.mark.parametrize(
    ("shown", "raw", "flags", "extra"),
    [
        pytest.param("é.py", "é.py".encode(), 0x800, b"", id="said-to-be-utf-8"),
        pytest.param("é.py", "é.py".encode(), 0, b"", id="utf-8-that-is-not-said"),
        pytest.param("é.py", b"\x82.py", 0, b"", id="dos-code-page"),
        pytest.param("\\x82.py", b"\x82.py", 0x800, b"", id="said-to-be-utf-8-and-is-not"),
        pytest.param(
            "ж.py",
            b"?.py",
            0,
            struct.pack("<2HBL", 0x7075, 10, 1, zlib.crc32(b"?.py")) + "ж.py".encode(),
            id="in-the-extra-field",
        ),
        pytest.param(
            "?.py",
            b"?.py",
            0,
            struct.pack("<2HBL", 0x7075, 10, 1, 7) + "ж.py".encode(),
            id="in-the-extra-field-of-another-name",
        ),
    ],
)
def test_names_of_a_zip_are_read_in_the_encoding_that_they_have(
    shown: str, raw: bytes, flags: int, extra: bytes, scan_archive: Callable[[bytes], Any]
) -> None:
    data = renamed(raw) if not extra else zipped("N" * len(raw), extra=extra).replace(b"N" * len(raw), raw)
    scanned = scan_archive(patch(data, b"PK\1\2", 8, struct.pack("<H", flags)))
    assert f"app/{shown}" in scanned.report


def test_backslashes_of_a_zip_made_on_windows_part_folders(scan_archive: Callable[[bytes], Any]) -> None:
    made_on_dos = patch(renamed(b"src\\x.py"), b"PK\1\2", 5, b"\0")
    scanned = scan_archive(made_on_dos)
    assert "app/src/x.py" in scanned.report


def wide(*, locator: bytes = b"PK\6\7", end: bytes = b"PK\6\6") -> bytes:
    """A zip that says every size and place in 64 bits."""
    name = b"wide.py"
    sizes = struct.pack("<3L2H", zlib.crc32(CODE), len(CODE), len(CODE), len(name), 0)
    local = b"PK\3\4" + struct.pack("<5H", 45, 0x800, 0, 0, 0x21) + sizes + name + CODE
    extra = struct.pack("<2H3Q", 1, 24, len(CODE), len(CODE), 0)
    full = 0xFFFFFFFF
    record = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0x800, 0, 0, 0x21, zlib.crc32(CODE), full, full, 7, 28, 0, 0, 0, 0, full
    )
    directory = record + name + extra
    ends = struct.pack("<4sQ2H2L4Q", end, 44, 45, 45, 0, 0, 1, 1, len(directory), len(local))
    ends += struct.pack("<4sLQL", locator, 0, len(local) + len(directory), 1)
    return local + directory + ends + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, full, full, 0)


def test_the_64_bit_form_is_read(scan_archive: Callable[[bytes], Any]) -> None:
    assert scan_archive(wide()).files["app/wide.py"]["text"] == CODE.decode()


@pytest.mark.parametrize("change", [{"locator": b"PK\6\0"}, {"end": b"PK\6\0"}], ids=["no-locator", "no-end"])
def test_a_broken_64_bit_form_is_refused(change: dict[str, bytes], scan_archive: Callable[[bytes], Any]) -> None:
    with pytest.raises(InvalidArchive, match="its"):
        scan_archive(wide(**change))
