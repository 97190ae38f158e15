"""One source of several that can't be read: which of them end the scan, and what is told of it."""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from codetune_bucket.errors import BucketUnavailable
from codetune_trainer.errors import DiskFull, RevisionNotFound
from codetune_trainer.scan.sources import preparing

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

AWAY = [
    pytest.param(["Source 'exam'", "It is for"], ["exam"], id="one"),
    pytest.param(
        ["2 sources can't be read", "Source 'exam'", "Source 'quiz'", "They are for"], ["exam", "quiz"], id="two"
    ),
]


@pytest.mark.parametrize(("words", "names"), AWAY)
def test_without_what_is_to_be_held_out_nothing_is_trained_on(
    words: list[str], names: list[str], workshop: "Workshop"
) -> None:
    workshop.repository("app").commit({"a.py": workshop.code("a"), "both.py": workshop.code("both")})
    exams = [{**workshop.from_git(name, revision="nowhere"), "use": "HoldOut"} for name in names]
    for name in names:
        workshop.repository(name).commit({"both.py": workshop.code("both")})

    with pytest.raises(RevisionNotFound) as caught:
        workshop.scan(workshop.from_git("app"), *exams)

    assert all(word in caught.value.message for word in [*words, "for evaluation only", "could be trained on"])
    assert "'app'" not in caught.value.message  # the operator blames the sources that are named so
    assert "take " in caught.value.hint
    assert "out of spec.sources" in caught.value.hint


def test_what_is_to_be_held_out_may_be_what_the_last_scan_had_of_it(workshop: "Workshop") -> None:
    workshop.repository("app").commit({"a.py": workshop.code("a"), "both.py": workshop.code("both")})
    exam = workshop.repository("exam")
    exam.commit({"both.py": workshop.code("both")})
    both = [workshop.from_git("app"), {**workshop.from_git("exam"), "use": "HoldOut"}]
    workshop.scan(*both)
    (exam.folder / ".git").rename(exam.folder / "away")

    scanned = workshop.scan(*both)

    assert [row["split"] for row in scanned.files.values()] == ["train", "holdout"]
    assert [source.reason for source in scanned.result.sources] == ["", "SourceUnavailable"]


def test_a_fault_of_ours_in_one_source_does_not_stop_the_others(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.volume("app", {"a.py": "a = 1\n"})
    monkeypatch.setattr(preparing, "fetch_git", raising(ZeroDivisionError("nobody thought of it")))

    scanned = workshop.scan(workshop.from_git("repo"), workshop.from_volume("app"))

    repo, _ = scanned.result.sources
    assert (repo.reason, list(scanned.files)) == ("SourceUnavailable", ["app/a.py"])
    assert "ZeroDivisionError: nobody thought of it" in repo.message
    assert "Traceback" in capsys.readouterr().err


ENDS = [
    pytest.param(MemoryError(), id="no memory"),
    pytest.param(OSError(errno.ENOSPC, "No space left on device"), id="no room"),
    pytest.param(DiskFull("A volume is full."), id="no room for git"),
    pytest.param(BucketUnavailable("no answer", ""), id="no bucket"),
]


@pytest.mark.parametrize("error", ENDS)
def test_what_ails_the_pod_ends_the_scan(
    error: Exception, workshop: "Workshop", monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.volume("app", {"a.py": "a = 1\n"})
    monkeypatch.setattr(preparing, "fetch_git", raising(error))

    with pytest.raises(type(error)):
        workshop.scan(workshop.from_git("repo"), workshop.from_volume("app"))


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
