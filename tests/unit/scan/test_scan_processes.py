"""What a scan says when one of its processes fails: the reason that the process had, not that it is gone."""

import errno
import io
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from codetune_api.contracts import ScanConfig
from codetune_trainer.config import Places
from codetune_trainer.errors import DiskFull, OutOfMemory, SourceUnavailable, TrainerError, translate
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


def scan_with(place: str, fail: Callable[..., None], config: ScanConfig, places: Places) -> None:
    """Scan by two processes that are forked off this one, and so have what is broken here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("codetune_trainer.scan.reading._START_METHOD", "fork")
        patched.setattr(f"codetune_trainer.scan.judging.{place}", fail)
        scan(config, places, Reporter(config.nonce, io.StringIO()), workers=2)


@pytest.mark.parametrize(
    ("expected", "hint", "place", "fail"),
    [
        pytest.param(OutOfMemory, "scanResources", "Judge.judge", be_killed, id="killed"),
        pytest.param(OutOfMemory, "scanResources", "_Spill.__init__", be_killed, id="killed-at-its-start"),
        pytest.param(DiskFull, "more space", "_Spill.__init__", be_full, id="disk-full-at-its-start"),
        pytest.param(SourceUnavailable, "fetched anew", "VolumeReader.read", lose_an_object, id="source"),
    ],
)
def test_a_process_that_fails_ends_the_scan_with_its_own_reason(
    expected: type[TrainerError],
    hint: str,
    place: str,
    fail: Callable[..., None],
    workshop: "Workshop",
) -> None:
    workshop.volume("disk", {f"f{number}.py": workshop.code(f"f{number}") for number in range(600)})
    config = workshop.config(workshop.from_volume("disk"))
    # In a fresh process: one that has run other tests has threads, and is no place to fork from.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        error = fresh.submit(scan_with, place, fail, config, workshop.places).exception()
    assert isinstance(error, Exception)
    said = translate(error)
    assert type(said) is expected
    assert hint in said.hint
    assert left_in_store(workshop.places.store) == []


def left_in_store(store: Path) -> list[str]:
    return [path.name for path in (store / "team/projects/code").iterdir() if path.name.startswith(".scan-")]
