"""A download that broke off goes on with what is there; one that is damaged never counts; two at once make one."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.config import Places
from codetune_trainer.errors import DiskFull, ModelUnavailable, translate
from standin_hub import COMMIT, Hub

if TYPE_CHECKING:
    from unit.fetch.conftest import Fetcher

PIECE = 10 * 2**20
"""What the library writes at a time: less than that is lost with a connection."""


@pytest.fixture(autouse=True)
def _large_weights(hub: Hub) -> None:
    """More than one piece."""
    hub.files["model.safetensors"] = b"0123456789ab" * 2**20


def test_a_connection_that_breaks_is_taken_up_where_it_was(hub: Hub, run: "Fetcher") -> None:
    hub.cuts = [PIECE + 4000]
    assert (run() / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert hub.ranges == ["", f"bytes={PIECE}-"]


def test_another_attempt_goes_on_with_what_the_first_one_got(hub: Hub, run: "Fetcher", places: Places) -> None:
    downloads = _break_storage_after_the_cut(hub, run)
    assert not (places.store / "models" / "acme" / "coder" / COMMIT).exists()
    hub.ranges.clear()
    assert (run() / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert hub.ranges == [f"bytes={PIECE}-"]
    assert hub.downloads[len(downloads) :] == ["model.safetensors", "tokenizer.json"]


def _break_storage_after_the_cut(hub: Hub, run: "Fetcher") -> list[str]:
    class Once(list[int]):
        def pop(self, *_: object) -> int:
            hub.storage_fault = 500
            return super().pop()

    hub.cuts = Once([PIECE + 4000])
    with pytest.raises(ModelUnavailable):
        run()
    hub.storage_fault = 0
    return list(hub.downloads)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_comes_damaged_is_refused_and_fetched_anew_next_time(
    hub: Hub, run: "Fetcher", places: Places, name: str
) -> None:
    hub.damaged = {name}
    with pytest.raises(ModelUnavailable, match="digest"):
        run()
    assert not (places.store / "models" / "acme" / "coder" / COMMIT).exists()
    hub.damaged = set()
    assert (run() / name).read_bytes() == hub.files[name]


def test_files_that_are_proven_are_not_fetched_twice(hub: Hub, run: "Fetcher") -> None:
    hub.damaged = {"tokenizer.json"}
    hub.files = {name: hub.files[name] for name in ("config.json", "model.safetensors")} | {
        "tokenizer.json": b'{"a": 1}'
    }
    with pytest.raises(ModelUnavailable):
        run()
    hub.damaged = set()
    run()
    assert hub.downloads == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer.json"]


def test_pods_that_fetch_the_same_model_download_it_once(hub: Hub, run: "Fetcher", places: Places) -> None:
    found: list[Path] = []

    def start(number: int) -> None:
        scratch = places.scratch / str(number)
        found.append(replace(run, places=Places(store=places.store, scratch=scratch))())

    threads = [threading.Thread(target=start, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [places.store / "models" / "acme" / "coder" / COMMIT] * 3
    assert sorted(hub.downloads) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_volume_that_fills_up_meanwhile_is_said_to_be_full(hub: Hub, run: "Fetcher", places: Places) -> None:
    partial = places.store / "models" / "acme" / "coder" / f".{COMMIT}.partial"
    _break_storage_after_the_cut(hub, run)
    half = partial / ".model.safetensors.part"
    half.unlink()
    half.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as failure:
        run()
    assert isinstance(translate(failure.value), DiskFull)
