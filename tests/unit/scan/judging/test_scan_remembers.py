"""A scan judges anew only what changed since the one before it, and finds what a scan from nothing finds."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned, Workshop

LONG_AGO = time.time() - 1000


def code(name: str) -> str:
    """A text that is like no other's."""
    return "\n".join(f"def {name}_{number}(a, b):\n    return a * {number} + b\n" for number in range(20))


FILES = {
    **{f"pkg{number % 3}/m{number}.py": code(f"m{number}") for number in range(12)},
    "copy.py": code("m3"),
    "near.py": code("m4").replace("m4_7", "other"),
    "data.json": "{}\n",
    "secret.py": "key = 'AKIAQWERTYUIOPASDFGH'\n",
}


def settle(folder: Path) -> None:
    """Let the files be old enough for their time stamps to be trusted."""
    for path in folder.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


def wait_until_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """ctime can't be set: let all that is there count as old."""
    monkeypatch.setattr("codetune_trainer.scan.sources.volumes._RACY_NANOSECONDS", -(10**12))


Change = Callable[[Path], None]


def write(name: str, text: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return change


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        pytest.param(set(), lambda folder: None, id="nothing"),
        pytest.param({"pkg0/m3.py"}, write("pkg0/m3.py", code("changed")), id="the-original-of-a-copy"),
        pytest.param({"pkg1/m4.py"}, write("pkg1/m4.py", code("changed")), id="the-original-of-a-near-copy"),
        pytest.param({"aaa.py"}, write("aaa.py", code("m3")), id="a-copy-that-sorts-first"),
        pytest.param({"zzz/new.py"}, write("zzz/new.py", code("new")), id="one-more"),
        pytest.param(set(), lambda folder: (folder / "pkg0/m3.py").unlink(), id="the-original-goes"),
        pytest.param(set(), lambda folder: shutil.rmtree(folder / "pkg1"), id="a-folder-goes"),
        pytest.param({"data.json"}, write("data.json", "[1]\n"), id="one-that-is-rejected"),
        pytest.param({"moved.py"}, lambda folder: (folder / "pkg0/m3.py").rename(folder / "moved.py"), id="a-new-name"),
    ],
)
@pytest.mark.parametrize(
    ("rules", "held_out"),
    [
        pytest.param({}, [], id="rejecting"),
        pytest.param({"duplicates": "Allow", "nearDuplicates": "Allow"}, [], id="allowing"),
        pytest.param({"duplicates": "Allow", "nearDuplicates": "Allow"}, ["copy.py", "near.py"], id="holding-out"),
        pytest.param({"include": ["*.py"], "secrets": "Redact"}, ["copy.py", "near.py"], id="including"),
    ],
)
def test_only_what_changed_is_judged_and_the_dataset_is_that_of_a_scan_from_nothing(
    expected: set[str],
    change: Change,
    rules: dict[str, Any],
    held_out: list[str],
    workshop: "Workshop",
    judged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_until_trusted(monkeypatch)
    folder = workshop.volume("disk", FILES)
    options: dict[str, Any] = {"files": rules, "holdout": {"fraction": 0.3, "paths": held_out}}
    workshop.scan(workshop.from_volume("disk"), **options)
    change(folder)
    judged.clear()

    again = workshop.scan(workshop.from_volume("disk"), **options)

    assert set(judged) == expected
    assert describe(again) == from_nothing(workshop, options)


def describe(scanned: "Scanned") -> dict[str, Any]:
    return {
        "revision": scanned.result.revision,
        "report": (scanned.folder / "report.jsonl").read_bytes(),
        "files": (scanned.folder / "files.jsonl").read_bytes(),
        "types": scanned.result.file_types,
        "rejections": scanned.result.rejections,
        "counts": scanned.result.files,
    }


def from_nothing(workshop: "Workshop", options: Mapping[str, Any]) -> dict[str, Any]:
    shutil.rmtree(workshop.root / "store")
    return describe(workshop.scan(workshop.from_volume("disk"), **options))


def test_several_processes_find_what_changed(workshop: "Workshop") -> None:
    folder = workshop.volume("disk", FILES)
    time.sleep(2.1)  # the processes trust no younger time stamp
    workshop.scan(workshop.from_volume("disk"), workers=2)
    write("pkg0/m3.py", code("changed"))(folder)
    (folder / "pkg1/m4.py").unlink()
    assert describe(workshop.scan(workshop.from_volume("disk"), workers=2)) == from_nothing(workshop, {})


def test_many_changes_one_after_the_other_lead_to_what_a_scan_from_nothing_finds(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until_trusted(monkeypatch)
    folder = workshop.volume("disk", FILES)
    options: dict[str, Any] = {"holdout": {"fraction": 0.3}}
    scanned = workshop.scan(workshop.from_volume("disk"), **options)
    for number in range(12):
        write(f"pkg{number % 3}/m{number}.py", code(f"m{(number * 5) % 12}_{number % 2}"))(folder)
        if number % 4 == 3:
            (folder / f"pkg{(number - 1) % 3}/m{number - 1}.py").unlink()
        scanned = workshop.scan(workshop.from_volume("disk"), **options)
    assert describe(scanned) == from_nothing(workshop, options)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param({"files": {"types": ["Go", "Python"]}}, id="types"),
        pytest.param({"files": {"maxBytes": 4000}}, id="limits"),
        pytest.param({"holdout": {"paths": ["pkg1/"]}}, id="held-out-paths"),
    ],
)
def test_other_rules_judge_everything_anew(rules: dict[str, Any], workshop: "Workshop", judged: list[str]) -> None:
    workshop.volume("disk", FILES)
    workshop.scan(workshop.from_volume("disk"))
    judged.clear()
    workshop.scan(workshop.from_volume("disk"), **rules)
    assert set(judged) == set(FILES)


def test_a_file_that_changed_a_moment_ago_is_read_again(workshop: "Workshop", judged: list[str]) -> None:
    folder = workshop.volume("disk", {"a.py": "a = 1\n", "b.py": "b = 1\n"})
    settle(folder)
    workshop.scan(workshop.from_volume("disk"))
    judged.clear()
    workshop.scan(workshop.from_volume("disk"))
    # Its content could be another one by now without another time stamp: its ctime is of this moment.
    assert set(judged) == {"a.py", "b.py"}


def test_the_same_size_and_time_with_other_content_is_seen(
    workshop: "Workshop", judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until_trusted(monkeypatch)
    folder = workshop.volume("disk", {"a.py": "a = 1\n", "b.py": "b = 1\n"})
    settle(folder)
    workshop.scan(workshop.from_volume("disk"))
    (folder / "a.py").write_text("a = 2\n")
    os.utime(folder / "a.py", (LONG_AGO, LONG_AGO))
    judged.clear()
    assert workshop.scan(workshop.from_volume("disk")).files["disk/a.py"]["text"] == "a = 2\n"
    assert set(judged) == {"a.py"}


def test_git_files_are_known_by_their_content(workshop: "Workshop", judged: list[str]) -> None:
    repository = workshop.repository()
    repository.commit({"a.py": workshop.code("a"), "b.py": workshop.code("b")})
    workshop.scan()
    repository.commit({"b.py": workshop.code("c")})
    judged.clear()
    assert set(workshop.scan().files) == {"repo/a.py", "repo/b.py"}
    assert judged == ["b.py"]


def break_dataset(workshop: "Workshop", scanned: "Scanned") -> None:
    lines = (scanned.folder / "files.jsonl").read_bytes()
    (scanned.folder / "files.jsonl").write_bytes(lines.replace(b"return", b"RETURN", 1))


def remove_dataset(workshop: "Workshop", scanned: "Scanned") -> None:
    shutil.rmtree(scanned.folder)


def change_memory(name: str) -> Callable[["Workshop", "Scanned"], None]:
    def change(workshop: "Workshop", scanned: "Scanned") -> None:
        path = workshop.places.store / "team/projects/code/verdicts" / name
        data = bytearray(path.read_bytes() or b"x")
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(break_dataset, id="dataset-changed"),
        pytest.param(remove_dataset, id="dataset-gone"),
        *(
            pytest.param(change_memory(name), id=name)
            for name in ("meta.json", "records", "rows", "lines", "signatures")
        ),
    ],
)
def test_a_memory_that_is_damaged_is_not_believed(
    damage: Callable[["Workshop", "Scanned"], None],
    workshop: "Workshop",
    judged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_until_trusted(monkeypatch)
    workshop.volume("disk", FILES)
    first = workshop.scan(workshop.from_volume("disk"))
    told = describe(first)
    damage(workshop, first)
    judged.clear()
    assert describe(workshop.scan(workshop.from_volume("disk"))) == told
    assert set(judged) == set(FILES)


def test_a_commit_that_is_to_be_scanned_again_is_not_fetched(workshop: "Workshop") -> None:
    repository = workshop.repository()
    first = repository.commit({"a.py": workshop.code("a"), "b.js": "let b = 1\n"})
    workshop.scan()
    repository.commit({"c.py": workshop.code("c")})
    (workshop.root / "files/repo").rename(workshop.root / "files/away")
    (workshop.root / "files/repo").mkdir()

    again = workshop.scan(files={"types": ["Python"]}, fetched={"repo": first})

    assert set(again.files) == {"repo/a.py"}
    source = again.result.sources[0]
    assert (source.commit, source.reason, source.message) == (first, "", "")


@pytest.mark.parametrize(
    "known",
    [
        pytest.param("0" * 40, id="never-there"),
        pytest.param("--upload-pack=x", id="no-commit"),
        pytest.param("", id="none"),
    ],
)
def test_a_commit_that_is_not_in_the_cache_is_fetched_all_the_same(known: str, workshop: "Workshop") -> None:
    repository = workshop.repository()
    repository.commit({"a.py": workshop.code("a")})
    workshop.scan()
    newest = repository.commit({"c.py": workshop.code("c")})
    assert workshop.scan(fetched={"repo": known}).result.sources[0].commit == newest


def test_a_dataset_that_is_damaged_spoils_nothing_of_the_scan_that_finds_out(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until_trusted(monkeypatch)
    folder = workshop.volume("disk", FILES)
    break_dataset(workshop, workshop.scan(workshop.from_volume("disk")))
    write("aaa.py", code("first"))(folder)  # all that is known of the others moves by one place
    again = workshop.scan(workshop.from_volume("disk"))
    assert describe(again) == from_nothing(workshop, {})


def test_a_file_system_that_keeps_open_files_until_they_are_closed_stops_no_scan(
    workshop: "Workshop", judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until_trusted(monkeypatch)
    workshop.volume("disk", FILES)
    first = workshop.scan(workshop.from_volume("disk"))
    monkeypatch.setattr("os.unlink", rename_as_nfs_does)
    second = workshop.scan(workshop.from_volume("disk"))
    monkeypatch.undo()
    wait_until_trusted(monkeypatch)
    assert describe(second) == describe(first)
    workshop.scan(workshop.from_volume("disk"))
    assert [path.name for path in (workshop.places.store / "team/projects/code").glob("verdicts*")] == ["verdicts"]


def rename_as_nfs_does(name: Any, *, dir_fd: int | None = None) -> None:
    """What unlinking an open file does there."""
    if os.fspath(name).startswith(".nfs"):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    os.rename(name, f".nfs-{name}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def test_a_volume_that_has_no_room_for_the_memory_costs_the_memory_alone(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.volume("disk", FILES)

    def be_full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr("codetune_trainer.scan.judging.remembering.describe_file", be_full)
        first = workshop.scan(workshop.from_volume("disk"))
    assert "can't be kept for the next scan: [Errno 28] No space left on device" in capsys.readouterr().err
    assert not list((workshop.places.store / "team/projects/code").glob("verdicts*"))
    assert describe(workshop.scan(workshop.from_volume("disk"))) == describe(first)
