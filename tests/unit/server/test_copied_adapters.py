"""What vLLM loads lies in the pod: whatever becomes of the store, and nothing stays that nobody needs."""

import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.contracts import DesiredAdapter, DesiredAdapters
from codetune_server.copying import AdapterCopies
from codetune_server.refusing import Refused

if TYPE_CHECKING:
    from unit.server.conftest import FakeVllm, Pod

    Make = Callable[..., DesiredAdapter]

CONFIG, WEIGHTS = ADAPTER_FILES


def files(folder: Path, **contents: bytes) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    found = {CONFIG: contents.get("config", b"{}"), WEIGHTS: contents.get("weights", b"weights")}
    for name, content in found.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in found}


async def test_a_version_goes_on_and_comes_back_though_the_store_was_pruned(pod: "Pod", make_adapter: "Make") -> None:
    old, new = make_adapter("tuned", "one", content=1), make_adapter("tuned", "two", content=2)
    await pod.put(old)
    shutil.rmtree(pod.store / "one")
    assert (await pod.put(old)).adapters[0].phase == "Ready"
    pod.vllm.may_stream.clear()
    stream = pod.start_stream("tuned")
    await pod.until(lambda: bool(pod.vllm.active.total()))
    await pod.put(new)
    assert pod.copies() == {old.digest, new.digest}  # the old one still answers, and vLLM may read it again
    assert (await pod.put(old)).adapters[0].digest == old.digest
    pod.vllm.may_stream.set()
    await stream


async def test_copies_go_with_their_versions(pod: "Pod", make_adapter: "Make") -> None:
    first, second, other = (make_adapter(name, f"f{i}", content=i) for i, name in enumerate(["a", "a", "b"]))
    await pod.put(first, other)
    assert pod.copies() == {first.digest, other.digest}
    await pod.put(second, other)
    await pod.until(lambda: pod.copies() == {second.digest, other.digest})
    await pod.put(other)
    await pod.until(lambda: pod.copies() == {other.digest})
    await pod.put()
    await pod.until(lambda: pod.copies() == set())


async def test_two_names_share_a_copy_and_it_stays_for_the_second(pod: "Pod", make_adapter: "Make") -> None:
    one = make_adapter("one", "same")
    two = DesiredAdapter(name="two", path="same", digest=one.digest)
    await pod.put(one, two)
    await pod.put(two)
    await pod.until(lambda: len(pod.vllm.loaded) == 1)
    assert pod.copies() == {one.digest}


async def test_a_restarted_container_needs_no_store_and_trusts_no_copy(
    vllm: "FakeVllm", make_adapter: "Make", start_pod: "Callable[..., Awaitable[Pod]]"
) -> None:
    whole, damaged = make_adapter("whole", content=1), make_adapter("damaged", content=2)
    pod = await start_pod(DesiredAdapters(adapters=[whole, damaged]))
    await pod.until(lambda: len(vllm.loaded) == 2)
    copy = pod.settings.cache / str(damaged.digest)[7:] / WEIGHTS
    copy.write_bytes(copy.read_bytes()[:-1])
    shutil.rmtree(pod.store / "whole")
    vllm.loaded.clear()

    again = await start_pod(DesiredAdapters(adapters=[whole, damaged]))  # the same scratch space, a new process
    await again.until(lambda: len(vllm.loaded) == 2)
    assert copy.read_bytes() == (pod.store / "damaged" / WEIGHTS).read_bytes()


async def test_an_adapter_for_which_there_is_no_room_is_refused_by_name(
    vllm: "FakeVllm", make_adapter: "Make", start_pod: "Callable[..., Awaitable[Pod]]"
) -> None:
    small, large = make_adapter("small"), make_adapter("large", rank=16, content=1)
    pod = await start_pod(DesiredAdapters())
    limit = sum((pod.store / "small" / file).stat().st_size for file in ADAPTER_FILES) + 10
    verifier = pod.app._keeper._verifier  # type: ignore[union-attr]
    verifier._copies = AdapterCopies(pod.settings.cache, limit)
    report = await pod.put(small, large)
    assert [(state.phase, state.reason) for state in report.adapters] == [("Ready", ""), ("Failed", "CacheFull")]
    assert f"of the {limit} bytes" in report.adapters[1].message
    assert "adapterCacheSize" in report.adapters[1].message


def test_what_a_killed_container_had_begun_to_copy_takes_no_room(tmp_path: Path) -> None:
    found = files(tmp_path / "a")
    size = sum(path.stat().st_size for path in found.values())
    (tmp_path / "scratch" / "incoming").mkdir(parents=True)
    (tmp_path / "scratch" / "incoming" / WEIGHTS).write_bytes(b"x" * size)
    assert AdapterCopies(tmp_path / "scratch", size).take(found).folder.is_dir()


def test_a_file_that_changes_while_it_is_copied_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = files(tmp_path / "a")
    copies = AdapterCopies(tmp_path / "scratch")
    write = os.write

    def write_and_change(descriptor: int, piece: bytes) -> int:
        found[CONFIG].write_bytes(b'{"r": 1}')
        return write(descriptor, piece)

    monkeypatch.setattr(os, "write", write_and_change)
    with pytest.raises(Refused, match="was changed while it was copied"):
        copies.take(found)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_full_disk_is_about_the_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, piece: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(Refused, match="No space left on device") as caught:
        AdapterCopies(tmp_path / "scratch").take(files(tmp_path / "a"))
    assert caught.value.reason == "CacheFull"


def test_a_link_that_takes_a_files_place_is_not_followed(tmp_path: Path) -> None:
    found = files(tmp_path / "a")
    found[WEIGHTS].unlink()
    found[WEIGHTS].symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic link"):
        AdapterCopies(tmp_path / "scratch").take(found)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    found = files(tmp_path / "a")
    found[WEIGHTS].unlink()
    os.mkfifo(found[WEIGHTS])
    with pytest.raises(Refused, match="is not a file"):
        AdapterCopies(tmp_path / "scratch").take(found)


def test_the_same_files_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies, found = AdapterCopies(tmp_path / "scratch"), files(tmp_path / "a")
    first = copies.take(found)
    monkeypatch.setattr(shutil, "rmtree", None)  # nothing may be begun
    assert copies.take(found) is first


def test_what_a_killed_container_left_half_copied_goes(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    files(scratch / "incoming")
    copies = AdapterCopies(scratch)
    kept = copies.take(files(tmp_path / "a"))
    copies.keep_only({kept.digest})
    assert [path.name for path in scratch.iterdir()] == [kept.folder.name]
    assert replace(kept) == copies.find(kept.digest)
