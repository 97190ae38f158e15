"""Whatever an archive's bytes are: no path leads outside, and what is wrong with it is an error of the source."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from backports import zstd
from codetune_trainer.errors import SourceError
from codetune_trainer.scan.archive.formats import read_entries
from codetune_trainer.scan.archive.limits import Limits
from codetune_trainer.scan.archive.names import read_name
from codetune_trainer.scan.archive.pack import list_pack, read_packed, write_pack
from codetune_trainer.scan.records import Found
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

LIMITS = Limits(unpacked_bytes=10**6, entries=100)
PIECES = st.sampled_from(
    [b"..", b".", b"/", b"\\", b"a", b"C:", b"c:", b"\0", b".git", b".GIT", b"\xff", b" ", b"\n", b"~", b"__MACOSX"]
)
NAMES = st.one_of(st.lists(PIECES, max_size=9).map(b"".join), st.binary(max_size=40))
RELAXED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_inside(found: Found) -> None:
    path = found.path.rstrip("/")
    escaped = re.search(r"\\x[0-9a-f]{2}", path)  # a byte that is no UTF-8: the backslash is ours
    for parts in (PurePosixPath(path), *([] if escaped else [PureWindowsPath(path)])):
        assert not parts.is_absolute()
        assert not parts.anchor
        assert ".." not in parts.parts
    root = "/srv/root"
    assert os.path.normpath(os.path.join(root, path)).startswith(f"{root}/")
    assert "\0" not in path
    assert ".git" not in path.lower().split("/")[:-1]


@given(raw=NAMES)
@settings(max_examples=500, deadline=None)
def test_a_name_leads_nowhere_outside_or_is_refused(raw: bytes) -> None:
    name = read_name(raw, 4096)
    assert "\0" not in name.path
    if name.obstacle or not name.path:
        return
    assert_inside(Found(name.path, b"", 0))
    if "\\x" not in name.path:
        assert read_name(name.path.encode(), 4096).path == name.path


def tar_of(names: list[bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for index, name in enumerate(names):
            info = tarfile.TarInfo(os.fsdecode(name) or "x")
            info.size = len(b"%d\n" % index)
            archive.addfile(info, io.BytesIO(b"%d\n" % index))
    return made.getvalue()


@pytest.mark.parametrize("raw", [b"./\\x.py", b"top/\\x.py", b"./C:/x.py", b"top/C:/x.py", b".//C:x", b"top/./../x"])
def test_what_leads_outside_is_seen_behind_what_is_left_out(raw: bytes) -> None:
    assert "leads outside" in read_name(raw, 4096).obstacle


def zip_of(names: list[bytes]) -> bytes:
    """By hand: libraries change names."""
    local, directory = b"", b""
    for index, name in enumerate(names):
        data = b"%d\n" % index
        sizes = struct.pack("<3L2H", zlib.crc32(data), len(data), len(data), len(name), 0)
        record = struct.pack("<5H", 20, 0x800, 0, 0, 0x21) + sizes
        directory += b"PK\1\2" + struct.pack("<H", 20) + record + struct.pack("<3H2L", 0, 0, 0, 0, len(local)) + name
        local += b"PK\3\4" + record + name + data
    count = len(names)
    return local + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(local), 0)


@given(names=st.lists(NAMES, max_size=6), form=st.sampled_from([tar_of, zip_of]))
@example(names=[b"(\xb5/\xfd"], form=tar_of)  # the mark of zstd
@example(names=[b"PK\3\4", b"BZh9"], form=tar_of)
@RELAXED
def test_no_entry_of_an_archive_leads_outside(
    names: list[bytes], form: Callable[[list[bytes]], bytes], tmp_path: Path
) -> None:
    pack = tmp_path / "pack"
    write_pack(pack, read_entries(io.BytesIO(form(names)), LIMITS), LIMITS)
    found = list(list_pack(pack))
    assert os.listdir(tmp_path) == ["pack"]
    for entry in found:
        if not entry.obstacle:
            assert_inside(entry)
    paths = [entry.path for entry in found if entry.key]
    assert len(set(paths)) == len(paths)
    contents = list(read_packed(pack, [entry.key for entry in found if entry.key]))
    assert [content.strip().isdigit() for content in contents] == [True] * len(paths)


PLAIN = tar_of([b"repo/a.py", b"repo/b/c.py", b"repo/" + b"n" * 150])
ARCHIVES: list[Any] = [
    PLAIN,
    gzip.compress(PLAIN),
    bz2.compress(PLAIN),
    lzma.compress(PLAIN),
    zstd.compress(PLAIN),
    zip_of([b"repo/a.py", b"repo/b.py"]),
]
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=4)


@pytest.mark.parametrize("archive", ARCHIVES, ids=["tar", "tar-gz", "tar-bz2", "tar-xz", "tar-zst", "zip"])
@given(edits=EDITS, keep=st.floats(0, 1))
@RELAXED
def test_damage_is_an_error_of_the_source_or_does_no_harm(
    archive: bytes, edits: list[tuple[float, bytes]], keep: float, tmp_path: Path
) -> None:
    data = bytearray(archive)
    for place, value in edits:
        start = int(place * len(data))
        data[start : start + len(value)] = value
    pack = tmp_path / "pack"
    pack.unlink(missing_ok=True)
    with contextlib.suppress(SourceError):
        write_pack(pack, read_entries(io.BytesIO(bytes(data[: int(keep * len(data))])), LIMITS), LIMITS)
    assert os.listdir(tmp_path) == (["pack"] if pack.exists() else [])
    for entry in list_pack(pack) if pack.exists() else ():
        if not entry.obstacle:
            assert_inside(entry)
