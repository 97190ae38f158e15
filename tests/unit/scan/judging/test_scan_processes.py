"""What a scan says when one of its processes fails: the reason that the process had, not that it is gone."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from codetune_api.contracts import ScanConfig
from codetune_trainer.config import Places
from codetune_trainer.errors import SourceUnavailable, translate
from codetune_trainer.reporting import Reporter
from codetune_trainer.scan.recipe import scan

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop


def be_killed(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_full(*_: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/store/rows")


def lose_an_object(*_: Any) -> NoReturn:
    raise SourceUnavailable("An object is gone.", "It is fetched anew.")


FAILURES: Mapping[str, Callable[..., None]] = {
    "be_killed": be_killed,
    "be_full": be_full,
    "lose_an_object": lose_an_object,
}


def main(place: str, fail: str, config: str, root: str) -> None:
    """Scan by two processes that are forked off this one, and so have what is broken here; print what is said of it."""
    folder = Path(root)
    places = Places(store=folder / "store", scratch=folder / "scratch", volumes=folder / "volumes")
    given = ScanConfig.model_validate_json(config)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("codetune_trainer.scan.judging.reading._start_method", lambda: "fork")
        patched.setattr(f"codetune_trainer.scan.judging.worker.{place}", FAILURES[fail])
        try:
            scan(given, places, Reporter(given.nonce, io.StringIO()), workers=2)
        except Exception as error:
            said = translate(error)
            print(json.dumps([type(said).__name__, said.hint]))


@pytest.mark.parametrize(
    ("expected", "hint", "place", "fail"),
    [
        pytest.param("OutOfMemory", "scanResources", "Judge.judge", "be_killed", id="killed"),
        pytest.param("OutOfMemory", "scanResources", "_Spill.__init__", "be_killed", id="killed-at-its-start"),
        pytest.param("DiskFull", "more space", "_Spill.__init__", "be_full", id="disk-full-at-its-start"),
        pytest.param("SourceUnavailable", "fetched anew", "VolumeReader.read", "lose_an_object", id="source"),
    ],
)
def test_a_process_that_fails_ends_the_scan_with_its_own_reason(
    expected: str, hint: str, place: str, fail: str, workshop: "Workshop"
) -> None:
    workshop.volume("disk", {f"f{number}.py": workshop.code(f"f{number}") for number in range(600)})
    config = workshop.config(workshop.from_volume("disk")).model_dump_json(by_alias=True)
    # In a fresh process: one that has run other tests has threads, and is no place to fork from.
    command = [sys.executable, __file__, place, fail, config, str(workshop.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    said, cure = json.loads(done.stdout)
    assert (said, hint in cure) == (expected, True)
    assert left_in_store(workshop.places.store) == []


@pytest.mark.parametrize(
    ("expected", "before"),
    [
        pytest.param("fork", "", id="alone"),
        pytest.param(
            "spawn", "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", id="with-a-thread"
        ),
    ],
)
def test_processes_are_forked_off_a_scan_that_has_no_other_thread(expected: str, before: str) -> None:
    lines = ["import threading, time", "from codetune_trainer.__main__ import _load", "_load('scan')"]
    lines += [before, "from codetune_trainer.scan.judging import reading", "print(reading._start_method())"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


def left_in_store(store: Path) -> list[str]:
    return [path.name for path in (store / "team/projects/code").iterdir() if path.name.startswith(".scan-")]


if __name__ == "__main__":
    main(*sys.argv[1:])
