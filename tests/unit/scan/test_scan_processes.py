"""What a scan says when one of its processes fails: the reason that the process had, not that it is gone."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from codetune_trainer.errors import DiskFull, OutOfMemory, SourceUnavailable, TrainerError, translate

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop


def be_killed(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_full(*_: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/store/rows")


def lose_an_object(*_: Any) -> NoReturn:
    raise SourceUnavailable("An object is gone.", "It is fetched anew.")


@pytest.mark.parametrize(
    ("expected", "hint", "place", "fail"),
    [
        pytest.param(OutOfMemory, "scanResources", "Judge.judge", be_killed, id="killed"),
        pytest.param(OutOfMemory, "scanResources", "_Spill.__init__", be_killed, id="killed-at-its-start"),
        pytest.param(DiskFull, "more space", "_append", be_full, id="disk-full"),
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workshop.volume("disk", {f"f{number}.py": workshop.code(f"f{number}") for number in range(600)})
    fork = multiprocessing.get_context("fork")  # takes what is patched here along
    monkeypatch.setattr("codetune_trainer.scan.reading._choose_context", lambda: fork)
    monkeypatch.setattr(f"codetune_trainer.scan.judging.{place}", fail)
    with pytest.raises((TrainerError, OSError)) as caught:
        workshop.scan(workshop.from_volume("disk"), workers=2)
    said = translate(caught.value)
    assert type(said) is expected
    assert hint in said.hint
    assert left_in_store(workshop.places.store) == []


def left_in_store(store: Path) -> list[str]:
    return [path.name for path in (store / "team/projects/code").iterdir() if path.name.startswith(".scan-")]
