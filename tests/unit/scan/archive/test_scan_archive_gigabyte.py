"""A real gigabyte of zeros in each form, with the limits that hold for every Project: refused, and nothing kept of it.

It is packed once, in blocks that can be repeated, so that making it takes no longer than reading it.
"""

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from backports import zstd
from codetune_trainer.errors import EmptyDataset, InvalidArchive

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

pytestmark = pytest.mark.timeout(60)
BLOCK = 2**24
BLOCKS = 64
CODE = b"def f(a, b):\n    return a + b\n"


def tar_head(name: str, size: int) -> bytes:
    """A tar's small file, and the header of one whose data is to follow."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo("a.py")
        info.size = len(CODE)
        archive.addfile(info, io.BytesIO(CODE))
        large = tarfile.TarInfo(name)
        large.size = size
        return made.getvalue() + large.tobuf()


def deflate_zeros(blocks: int) -> bytes:
    """Raw deflate of so many blocks of zeros, out of one that stands for itself."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * blocks + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def in_gzip() -> bytes:
    """tar.gz of several members, which gzip takes as one; the large one's checksum is wrong, but nobody gets there."""
    head = gzip.compress(tar_head("zeros.py", BLOCK * BLOCKS), mtime=0)
    return head + b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflate_zeros(BLOCKS) + bytes(8)


def in_zstd() -> bytes:
    """tar.zst of several frames."""
    return zstd.compress(tar_head("zeros.py", BLOCK * BLOCKS)) + zstd.compress(bytes(BLOCK)) * BLOCKS


def in_zip(entries: int = 22, blocks: int = 3) -> bytes:
    """A zip by hand; its entries are small enough to be unpacked, and more than a gigabyte together."""
    data, checksum = deflate_zeros(blocks), zlib.crc32(bytes(BLOCK * blocks))
    local, directory = b"", b""
    for number in range(entries):
        name = b"%d.py" % number
        about = struct.pack("<5H3L2H", 20, 0, 8, 0, 0x21, checksum, len(data), BLOCK * blocks, len(name), 0)
        directory += b"PK\1\2" + struct.pack("<H", 20) + about + struct.pack("<3H2L", 0, 0, 0, 0, len(local)) + name
        local += b"PK\3\4" + about + name + data
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, entries, entries, len(directory), len(local), 0)
    return local + directory + end


@pytest.mark.parametrize(
    "build", [pytest.param(in_gzip, id="tar-gz"), pytest.param(in_zstd, id="tar-zst"), pytest.param(in_zip, id="zip")]
)
def test_a_gigabyte_of_zeros_is_refused(
    build: Callable[[], bytes], scan_archive: Callable[[bytes], Any], workshop: "Workshop"
) -> None:
    content = build()
    assert len(content) < 2 * 2**20
    with pytest.raises(InvalidArchive, match="200 times its size") as failure:
        scan_archive(content)
    assert failure.value.hint
    left = [path for path in workshop.places.store.rglob("*") if path.is_file() and path.stat().st_size > len(content)]
    assert left == []


def test_a_gigabyte_in_one_entry_of_a_zip_is_listed_and_not_unpacked(scan_archive: Callable[[bytes], Any]) -> None:
    with pytest.raises(EmptyDataset, match=r"None of the 1 files was accepted: TooLarge 1 \(such as app/0.py\)"):
        scan_archive(in_zip(1, BLOCKS))


NAMES = [
    pytest.param(["A.py", "a.PY", "a.py"], id="differ-in-case"),
    pytest.param(["e\u0301.py", "\u00e9.py"], id="differ-in-composition"),
    pytest.param(["aux.py", "com1.py", "nul.py"], id="windows-devices"),
    pytest.param([" .py", "a .py", "a.py."], id="spaces-and-dots"),
    pytest.param(["--help.py", "@x.py", "[!a]*.py"], id="options-and-globs"),
    pytest.param(["\u202egnp.py", "a\u200b.py"], id="marks-that-nobody-sees"),
]


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize("names", NAMES)
def test_names_that_some_system_takes_as_one_stay_apart(
    names: list[str], form: str, scan_archive: Callable[[bytes], Any], site_class: Any
) -> None:
    files = {name: f"x = {number}\n" for number, name in enumerate(names)}
    scanned = scan_archive(getattr(site_class, form)({**files, "keep.py": CODE}))
    assert {path.partition("/")[2] for path in scanned.report} == {*names, "keep.py"}
    read = {path.partition("/")[2]: row["text"] for path, row in scanned.files.items()}
    assert read == {**{name: text for name, text in files.items() if name != "a.py."}, "keep.py": CODE.decode()}
