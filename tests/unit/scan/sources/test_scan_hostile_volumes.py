"""Volumes that change or mean harm while they are scanned: no link is followed, nothing waits, each file has a reason.

What changes does so at a known moment: when the scan opens a file of the name `a-first.py`, which sorts before the
others. They were listed by then and are read afterwards.
"""

import os
import socket
import stat
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.scan.sources.volumes import list_folder

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned, Workshop

    ScanDisk = Callable[..., Scanned]

pytestmark = pytest.mark.timeout(30)
FIRST = "a-first.py"
_on_open: dict[bytes, Callable[[], object]] = {}


def _see(event: str, arguments: tuple[Any, ...]) -> None:
    """Runs what waits for a file to be opened, once."""
    if event == "open" and _on_open and isinstance(arguments[0], bytes | str):
        action = _on_open.pop(os.path.basename(os.fsencode(arguments[0])), None)
        if action is not None:
            action()


@pytest.fixture(scope="module", autouse=True)
def _watch_opening() -> None:
    sys.addaudithook(_see)  # stays as long as the process; does nothing while nobody waits


@pytest.fixture
def meanwhile(workshop: "Workshop") -> Iterator[Callable[..., "Scanned"]]:
    """Scan the volume `disk` while something happens to it."""

    def run(action: Callable[[Path], object], **rules: Any) -> "Scanned":
        folder = workshop.volume("disk", {FIRST: "first = 1\n"})
        _on_open[FIRST.encode()] = lambda: action(folder)
        scanned = workshop.scan(workshop.from_volume("disk"), workers=1, **rules)
        assert not _on_open
        return scanned

    yield run
    _on_open.clear()


LOST = [
    pytest.param("leads in a circle", "circle", id="a link in a circle"),
    pytest.param("File name too long", "a" * 300, id="a name that no file system takes"),
    pytest.param("null", "a\0b", id="a NUL"),
]


@pytest.mark.parametrize(("why", "path"), LOST)
def test_a_path_that_leads_nowhere_is_a_failure_of_its_source_only(why: str, path: str, workshop: "Workshop") -> None:
    (workshop.volume("disk", {}) / "circle").symlink_to("circle")
    workshop.volume("good", {"a.py": "a = 1\n"})
    scanned = workshop.scan(workshop.from_volume("disk", path), workshop.from_volume("good"), workers=1)
    assert list(scanned.files) == ["good/a.py"]
    disk, _ = scanned.result.sources
    assert disk.reason == "SourceUnavailable"
    assert why in disk.message
    assert "Codetune" not in disk.message


def replace(path: Path, make: Callable[[Path], object]) -> None:
    """Something else in a file's place."""
    path.unlink()
    make(path)


def listen(path: Path) -> None:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as listening, inside(path.parent):
        listening.bind(path.name)  # a whole path may be too long for a socket


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make_device(path: Path) -> None:
    """The device that gives zeros without end."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
SWAPS = [
    pytest.param("can't be opened", lambda path: path.symlink_to("../../outside/deep/secret.py"), id="link-outside"),
    pytest.param("can't be opened", lambda path: path.symlink_to(FIRST), id="link-inside"),
    pytest.param("can't be opened", lambda path: path.symlink_to(path.name), id="link-to-itself"),
    pytest.param("can't be opened", lambda path: path.symlink_to("/proc/self/environ"), id="link-to-the-environment"),
    pytest.param("no plain file any more", os.mkfifo, id="pipe"),
    pytest.param("can't be opened", listen, id="socket"),
    pytest.param("no plain file any more", make_device, id="device", marks=ROOT),
    pytest.param("no plain file any more", Path.mkdir, id="folder"),
    pytest.param("can't be opened: No such file", lambda path: None, id="nothing"),
]


@pytest.mark.parametrize(("words", "make"), SWAPS)
def test_a_file_that_became_something_else_is_not_read(
    workshop: "Workshop",
    outside: Path,
    meanwhile: Callable[..., "Scanned"],
    words: str,
    make: Callable[[Path], object],
) -> None:
    workshop.volume("disk", {"b.py": "b = 1\n", "c.py": "c = 1\n"})
    scanned = meanwhile(lambda folder: replace(folder / "b.py", make))
    assert scanned.verdicts() == {FIRST: "train", "b.py": "Unreadable", "c.py": "train"}
    assert words in scanned.report["disk/b.py"]["detail"]


FOLDERS = [
    pytest.param("became a link", lambda path: path.symlink_to("../../outside/deep"), id="link-outside"),
    pytest.param("became a link", lambda path: path.symlink_to("."), id="link-to-the-folder-above"),
    pytest.param("became a link or a file", lambda path: path.write_text("x"), id="file"),
    pytest.param("can't be opened: No such file", Path.mkdir, id="another-folder"),
    pytest.param("can't be opened: No such file", lambda path: None, id="nothing"),
]


@pytest.mark.parametrize(("words", "make"), FOLDERS)
def test_files_of_a_folder_that_became_something_else_are_not_read(
    workshop: "Workshop",
    outside: Path,
    meanwhile: Callable[..., "Scanned"],
    words: str,
    make: Callable[[Path], object],
) -> None:
    workshop.volume("disk", {"deep/er/secret.py": "b = 1\n", "z.py": "z = 1\n"})

    def swap(folder: Path) -> None:
        (folder / "deep").rename(folder.parent / "moved")
        make(folder / "deep")

    scanned = meanwhile(swap)
    assert scanned.verdicts() == {FIRST: "train", "deep/er/secret.py": "Unreadable", "z.py": "train"}
    assert words in scanned.report["disk/deep/er/secret.py"]["detail"]


CHANGES = [
    pytest.param("train", "b = 1\nmore = 2\n", {}, id="longer"),
    pytest.param("train", "b", {}, id="shorter"),
    pytest.param("Empty", "", {}, id="empty"),
    pytest.param("Binary", "b = 1\0", {}, id="binary"),
    pytest.param("TooLarge", "b = 1\n" * 40, {"maxBytes": 100}, id="too-large"),
    pytest.param("Secrets", "TOKEN = 'ghp_" + "aB3" * 12 + "'\n", {}, id="secret"),
]


@pytest.mark.parametrize(("expected", "text", "rules"), CHANGES)
def test_a_file_that_is_written_meanwhile_is_judged_by_what_was_read(
    workshop: "Workshop", meanwhile: Callable[..., "Scanned"], expected: str, text: str, rules: dict[str, object]
) -> None:
    workshop.volume("disk", {"b.py": "b = 1\n"})
    scanned = meanwhile(lambda folder: (folder / "b.py").write_text(text), files=rules)
    assert scanned.verdicts()["b.py"] == expected
    if expected == "train":
        assert scanned.files["disk/b.py"]["text"] == text


def test_a_file_that_grows_beyond_what_is_ever_read_is_not_read(
    workshop: "Workshop", meanwhile: Callable[..., "Scanned"]
) -> None:
    workshop.volume("disk", {"b.py": "b = 1\n"})
    scanned = meanwhile(lambda folder: os.truncate(folder / "b.py", 2**30), files={"include": ["b.py"]})
    assert scanned.verdicts()["b.py"] == "Unreadable"
    assert "grew beyond 67108864 bytes" in scanned.report["disk/b.py"]["detail"]


def test_a_volume_that_goes_away_in_the_middle_leaves_what_was_read(
    workshop: "Workshop", meanwhile: Callable[..., "Scanned"]
) -> None:
    workshop.volume("disk", {"b.py": "b = 1\n", "deep/c.py": "c = 1\n"})
    scanned = meanwhile(lambda folder: folder.rename(folder.parent / "gone"))
    # The folder itself is open by then, wherever it is; what lies below it is reached by its path.
    assert scanned.verdicts() == {FIRST: "train", "b.py": "train", "deep/c.py": "Unreadable"}


LINKS = [
    pytest.param("..", id="the-folder-above"),
    pytest.param(".", id="its-own-folder"),
    pytest.param("loop", id="itself"),
    pytest.param("/", id="the-whole-machine"),
    pytest.param("../../outside", id="a-folder-outside"),
    pytest.param("/proc/self/root", id="a-link-of-the-kernel"),
    pytest.param("deep/../loop", id="itself-the-long-way"),
    pytest.param("x" * 4000, id="a-long-way-to-nowhere"),
]


@pytest.mark.parametrize("target", LINKS)
def test_links_are_listed_once_and_lead_nowhere(workshop: "Workshop", scan_disk: "ScanDisk", target: str) -> None:
    folder = workshop.volume("disk", {"a.py": "a = 1\n", "deep/b.py": "b = 1\n"})
    (folder / "loop").symlink_to(target)
    (folder / "deep" / "loop.py").symlink_to(target)
    assert scan_disk().verdicts() == {
        "a.py": "train",
        "deep/b.py": "train",
        "deep/loop.py": "Unreadable",
        "loop": "Unreadable",
    }


def test_a_hundred_links_that_lead_to_each_other_are_a_hundred_rows(
    workshop: "Workshop", scan_disk: "ScanDisk"
) -> None:
    folder = workshop.volume("disk", {"a.py": "a = 1\n"})
    for number in range(100):
        (folder / f"l{number}").symlink_to(f"l{(number + 1) % 100}")
    assert scan_disk().result.files.rejected == 100


@ROOT
def test_devices_are_never_opened(workshop: "Workshop", scan_disk: "ScanDisk") -> None:
    folder = workshop.volume("disk", {"a.py": "a = 1\n"})
    make_device(folder / "zero.py")
    os.mknod(folder / "disk.py", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    assert scan_disk().verdicts() == {"a.py": "train", "disk.py": "Unreadable", "zero.py": "Unreadable"}


@contextmanager
def without_rights(root: Path) -> Iterator[None]:
    """Be somebody who owns all of this and may nothing else; root would read everything."""
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    for path in (root, *root.parents[:1], *root.rglob("*")):
        os.chown(path, nobody, nobody, follow_symlinks=False)
    above = [path for path in root.parents if path.stat().st_uid == 0 and path.stat().st_mode & 0o777 == 0o700]
    for path in above:
        path.chmod(0o711)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)
        for path in above:
            path.chmod(0o700)


def test_what_may_not_be_read_is_listed_with_the_systems_own_words(workshop: "Workshop") -> None:
    folder = workshop.volume(
        "disk", {"a.py": "a = 1\n", "closed.py": "b = 1\n", "hidden/c.py": "c = 1\n", "listed/d.py": "d = 1\n"}
    )
    (folder / "closed.py").chmod(0)
    (folder / "hidden").chmod(0)
    (folder / "listed").chmod(0o400)
    with without_rights(workshop.root):
        scanned = workshop.scan(workshop.from_volume("disk"), workers=1)
    for name in ("hidden", "listed"):
        (folder / name).chmod(0o700)
    rows = {path: row["detail"] for path, row in scanned.report.items() if row["reason"] == "Unreadable"}
    assert list(scanned.files) == ["disk/a.py"]
    assert rows == {
        "disk/closed.py": "it can't be opened: Permission denied",
        "disk/hidden/": "a folder that can't be listed: Permission denied",
        "disk/listed/d.py": "it can't be looked at: Permission denied",
    }


def test_of_a_folder_with_many_files_no_more_than_the_names_is_held(tmp_path: Path) -> None:
    count = 4000
    for number in range(count):
        (tmp_path / f"file{number:06}.py").touch()
    tracemalloc.start()
    try:
        listed = sum(1 for _ in list_folder(tmp_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert listed == count
    assert peak / count < 200
