"""Scans that end in the middle: killed at every single step, or with no room left. No half dataset is ever seen.

Each runs in a process of its own that shares nothing with the test but the folders.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import DatasetManifest, Terminated
from codetune_trainer.errors import run_to_exit_code
from codetune_trainer.manifests import is_intact

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

STEPS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"})
OUTPUT = "store/team/projects/code"
OLD = {"a.py": "a = 1\n", "b.py": "b = 1\n", "notes.txt": "hello\n"}


def run_apart(work: Callable[[], object]) -> int:
    """Run something in a copy of this process; returns how it ended, as os.waitstatus_to_exitcode has it."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            with open(os.devnull, "w") as nowhere:
                sys.stdout = sys.stderr = nowhere
                status = int(bool(work()))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(step: int, root: Path) -> None:
    """From now on, end this process by SIGKILL before the n-th change or look at anything in a folder."""
    left = step

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in STEPS and str(root) in str(arguments[0]):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)


def read_datasets(root: Path) -> dict[str, dict[str, bytes]]:
    """Every dataset that somebody could see, by its name; all of them whole."""
    found = {}
    for folder in (root / OUTPUT).glob("?" * 64):
        if folder.name == "sources":
            continue
        manifest = DatasetManifest.model_validate_json((folder / "manifest.json").read_bytes())
        assert manifest.revision == f"sha256:{folder.name}"
        assert is_intact(folder, {"files.jsonl": manifest.artifacts["files.jsonl"]})
        found[folder.name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return found


def scan_killed(workshop: "Workshop", step: int, **rules: Any) -> bool:
    """A scan that is killed at a step; whether it was, and did not come to its end before."""

    def work() -> None:
        die_at(step, workshop.root / OUTPUT)
        workshop.scan(workshop.from_volume("disk"), workers=1, **rules)

    status = run_apart(work)
    assert status in {0, -signal.SIGKILL}
    return status != 0


@pytest.mark.timeout(90)
def test_a_scan_killed_at_any_step_leaves_the_old_dataset_and_none_or_all_of_the_new_one(workshop: "Workshop") -> None:
    workshop.volume("disk", OLD)
    workshop.scan(workshop.from_volume("disk"), workers=1)
    old = read_datasets(workshop.root)
    workshop.volume("disk", {"c.py": "c = 1\n"})
    step = 1
    while scan_killed(workshop, step):
        seen = read_datasets(workshop.root)
        assert {name: seen[name] for name in old} == old
        assert len(seen) <= 2
        assert all(set(parts) == {"files.jsonl", "report.jsonl", "manifest.json"} for parts in seen.values())
        step += 1
    assert step > 10
    assert len(read_datasets(workshop.root)) == 2
    assert not list((workshop.root / OUTPUT).glob(".scan-*"))


@pytest.mark.timeout(90)
def test_a_rescan_of_the_same_files_killed_at_any_step_never_harms_the_dataset(workshop: "Workshop") -> None:
    workshop.volume("disk", OLD)
    workshop.scan(workshop.from_volume("disk"), workers=1)
    (files,) = [parts["files.jsonl"] for parts in read_datasets(workshop.root).values()]
    step = 1
    while scan_killed(workshop, step, files={"exclude": ["*.txt"]}):
        (parts,) = read_datasets(workshop.root).values()
        assert parts["files.jsonl"] == files
        step += 1
    assert step > 10
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1, files={"exclude": ["*.txt"]})
    assert scanned.verdicts()["notes.txt"] == "Excluded"


def test_the_next_scan_removes_what_a_killed_one_left(workshop: "Workshop") -> None:
    workshop.volume("disk", OLD)
    output = workshop.root / OUTPUT
    step = 1
    while scan_killed(workshop, step) and not list(output.glob(".scan-*/*")):
        step += 1
    assert list(output.glob(".scan-*/*"))
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1)
    assert {path.name for path in output.iterdir()} == {"verdicts", scanned.folder.name}


LARGE = {f"f{number}.py": f'"""{number}"""\n' + '"\t"\n' * 500 for number in range(20)}


def scan_to_its_end(workshop: "Workshop", limit: Callable[[], object] = lambda: None) -> Terminated | None:
    """The last words of a scan in a process that a limit was put on; None when it ended well."""
    words = workshop.root / "words"
    words.unlink(missing_ok=True)

    def work() -> int:
        limit()
        return run_to_exit_code(lambda: bool(workshop.scan(workshop.from_volume("disk"), workers=1)) - 1, words)

    status = run_apart(work)
    assert status == int(words.exists())
    return Terminated.model_validate_json(words.read_bytes()) if words.exists() else None


@pytest.mark.parametrize(
    "limit", [pytest.param(2 * 10**4, id="while-reading"), pytest.param(6 * 10**4, id="while-writing-the-dataset")]
)
def test_a_disk_that_takes_no_more_leaves_the_old_dataset_and_nothing_half(workshop: "Workshop", limit: int) -> None:
    workshop.volume("disk", OLD)
    workshop.scan(workshop.from_volume("disk"), workers=1)
    old = read_datasets(workshop.root)
    workshop.volume("disk", LARGE)
    failure = scan_to_its_end(workshop, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert failure is not None
    assert (failure.reason, bool(failure.hint)) == ("DiskFull", True)
    assert read_datasets(workshop.root) == old
    assert not list((workshop.root / OUTPUT).glob(".scan-*"))
    assert scan_to_its_end(workshop) is None
    assert len(read_datasets(workshop.root)) == 2


@pytest.fixture
def small_disk(workshop: "Workshop") -> Iterator[Callable[[int], None]]:
    """Makes the store a volume of so many bytes; only who may mount can have one."""
    store = str(workshop.root / "store")

    def make(size: int) -> None:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", store]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only who may mount can have a disk of a few bytes")

    yield make
    with suppress(OSError):
        subprocess.run(["umount", store], capture_output=True, check=False)


@pytest.mark.parametrize("pages", [pytest.param(8, id="while-reading"), pytest.param(20, id="while-writing")])
def test_a_full_volume_leaves_the_old_dataset_and_nothing_half(
    workshop: "Workshop", small_disk: Callable[[int], None], pages: int
) -> None:
    small_disk(pages * 4096)
    workshop.volume("disk", OLD)
    workshop.scan(workshop.from_volume("disk"), workers=1)
    old = read_datasets(workshop.root)
    workshop.volume("disk", LARGE)
    failure = scan_to_its_end(workshop)
    assert failure is not None
    assert failure.reason == "DiskFull"
    assert "full" in failure.message
    assert read_datasets(workshop.root) == old
    assert not list((workshop.root / OUTPUT).glob(".scan-*"))
