"""How far the fetching of a model is, as its log and the resource's status tell it."""

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.protocol import StageEvent, parse
from codetune_trainer.fetch_progress import say_part, telling
from codetune_trainer.hub import HubFile
from codetune_trainer.reporting import Reporter
from standin_hub import Hub

if TYPE_CHECKING:
    from unit.fetch.conftest import Fetcher

NONCE = "n" * 16


@pytest.mark.parametrize(
    ("here", "total", "said"),
    [
        (0, 0, "0 bytes"),
        (2_500, 0, "2.5 kB"),
        (0, 900, "0 of 900 bytes (0 %)"),
        (3_070_000_000, 14_500_000_000, "3.1 of 14.5 GB (21 %)"),
        (14_499_999_999, 14_500_000_000, "14.5 of 14.5 GB (99 %)"),
        (14_500_000_000, 14_500_000_000, "14.5 of 14.5 GB (100 %)"),
        (15_000_000_000, 14_500_000_000, "15.0 of 14.5 GB (100 %)"),
    ],
)
def test_a_part_is_told_in_the_unit_of_the_whole(here: int, total: int, said: str) -> None:
    assert say_part(here, total) == said


def test_what_comes_of_one_large_file_is_told_before_it_is_whole(tmp_path: Path) -> None:
    said = io.StringIO()
    files = [HubFile("config.json", 1000, None, None), HubFile("model.safetensors", 9000, None, None)]
    (tmp_path / "config.json").write_bytes(b"x" * 1000)
    with telling(Reporter(NONCE, said), "org/name", files, tmp_path, seconds=0.01):
        for size in (0, 4500, 9000):
            (tmp_path / ".model.safetensors.part").write_bytes(b"x" * size)
            wait_for(said, f"{1 + size / 1000} of 10.0 kB ({10 + size // 100} %), 1 of 2 files")
        (tmp_path / ".model.safetensors.part").rename(tmp_path / "model.safetensors")
        wait_for(said, "2 of 2 files")
    assert stages(said.getvalue())[-1] == "org/name: 10.0 of 10.0 kB (100 %), 2 of 2 files"


def wait_for(said: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 30
    while not (events := stages(said.getvalue())) or not events[-1].endswith(text):
        assert time.monotonic() < deadline, events
        time.sleep(0.01)


def stages(log: str) -> list[str]:
    events = (parse(line, NONCE) for line in log.splitlines(keepends=True) if line.endswith("\n"))
    return [event.message for event in events if isinstance(event, StageEvent)]


def test_nothing_new_is_not_told_again(tmp_path: Path) -> None:
    said = io.StringIO()
    with telling(
        Reporter(NONCE, said), "org/name", [HubFile("config.json", 1000, None, None)], tmp_path, seconds=0.001
    ):
        time.sleep(0.1)
    assert stages(said.getvalue()) == ["org/name: 0.0 of 1.0 kB (0 %), 0 of 1 files"]


def test_a_fetch_says_how_much_there_is_to_come(hub: Hub, run: "Fetcher") -> None:
    run()
    (told,) = [event.message for event in run.events() if isinstance(event, StageEvent) and " of " in event.message]
    assert "(0 %), 0 of " in told
