"""A source with `use: HoldOut` that lacks a submodule: copies of what that holds must not be trained on."""

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.errors import RevisionNotFound, SourceError, SourceUnavailable, UnsupportedSource

if TYPE_CHECKING:
    from unit.scan.conftest import Repository, Scanned, Workshop
    from unit.scan.git.conftest import GitSite

NOWHERE = "ab" * 20


@dataclass
class Exam:
    """A source to train on, and one to hold out whose submodules are `lib` and `more`; `app` has a copy of `lib`'s."""

    workshop: "Workshop"
    site: "GitSite"
    exam: "Repository"
    lib: "Repository"
    more: "Repository"

    def commit(self, number: int) -> str:
        """Another version of everything; returns the exam's commit."""
        files = {name: {f"{name}.py": self.workshop.code(f"{name}{number}")} for name in ("exam", "lib", "more")}
        links = {name: (self.url(name), getattr(self, name).commit(files[name])) for name in ("lib", "more")}
        return self.exam.commit_modules(links, files["exam"])

    def lose(self, url: str) -> str:
        """A version in which `lib` moved on and `more` is where it can't be had; returns the commit."""
        lib = self.lib.commit({"lib.py": self.workshop.code("moved")})
        return self.exam.commit_modules({"lib": (self.url("lib"), lib), "more": (url, NOWHERE)})

    def url(self, name: str) -> str:
        return f"{self.site.url}/{name}/.git"

    def scan(self, **git: Any) -> "Scanned":
        exam = {**self.site.source("exam/.git", name="exam", **{"submodules": True, **git}), "use": "HoldOut"}
        return self.workshop.scan(self.workshop.from_git("app"), exam)


@pytest.fixture
def exam(workshop: "Workshop", site: "GitSite") -> Exam:
    """Its first version."""
    workshop.repository("app").commit({"a.py": workshop.code("a"), "copied.py": workshop.code("lib1")})
    made = Exam(workshop, site, *(workshop.repository(name) for name in ("exam", "lib", "more")))
    made.commit(1)
    return made


LOST = [
    pytest.param(SourceUnavailable, "can't be fetched", "SITE/nowhere/.git", id="away"),
    pytest.param(RevisionNotFound, "no branch, tag or commit", "SITE/app/.git", id="without-the-commit"),
    pytest.param(UnsupportedSource, "is no URL that Codetune gives to git", "/etc", id="no-url"),
]


@pytest.mark.parametrize(("failure", "words", "url"), LOST)
def test_a_source_to_hold_out_fails_with_a_submodule_of_it(
    exam: Exam, failure: type[SourceError], words: str, url: str
) -> None:
    exam.lose(url.replace("SITE", exam.site.url))

    with pytest.raises(SourceError) as caught:
        exam.scan()

    assert type(caught.value) is failure
    said = f"Source 'exam': The submodule 'more' of {exam.url('exam')} was not fetched: "
    assert caught.value.message.startswith(said)
    assert words in caught.value.message
    assert "for evaluation only" in caught.value.message
    assert "leave git.submodules out and make its repository a source of its own" in caught.value.hint
    assert not list(exam.workshop.places.store.glob("team/projects/code/*/files.jsonl"))


def test_the_first_submodule_is_named_and_the_others_are_counted(exam: Exam) -> None:
    away = f"{exam.site.url}/nowhere/.git"
    exam.exam.commit_modules(dict.fromkeys(("lib", "more"), (away, NOWHERE)))
    with pytest.raises(SourceUnavailable, match=r"The submodule 'lib' .* One more was not either\."):
        exam.scan()


def test_one_that_may_be_had_later_is_tried_again_whatever_ails_the_others(exam: Exam) -> None:
    exam.exam.commit_modules({"lib": ("/etc", NOWHERE), "more": (f"{exam.site.url}/nowhere/.git", NOWHERE)})
    with pytest.raises(SourceUnavailable, match="The submodule 'lib'"):
        exam.scan()


@pytest.mark.parametrize(("failure", "words", "url"), LOST)
def test_the_last_commit_with_all_submodules_stands_in_until_there_is_another(
    exam: Exam, failure: type[SourceError], words: str, url: str
) -> None:
    first = exam.scan()
    good = first.result.sources[1].commit
    assert first.files["app/copied.py"]["split"] == "holdout"
    exam.lose(url.replace("SITE", exam.site.url))

    for _ in ("once", "and again"):
        scanned = exam.scan()
        assert scanned.result.revision == first.result.revision
        status = scanned.result.sources[1]
        assert (status.commit, status.reason) == (good, failure.reason)
        assert f"commit {good[:12]} of an earlier scan is used" in status.message
        assert "The submodule 'more'" in status.message
        assert words in status.message
        assert "leave git.submodules out" in status.message

    newer = exam.commit(2)
    status = exam.scan().result.sources[1]
    assert (status.commit, status.reason, status.message) == (newer, "", "")


def test_what_stands_in_is_not_fetched_again(exam: Exam) -> None:
    exam.scan()
    exam.lose(f"{exam.site.url}/nowhere/.git")
    exam.scan()
    shutil.rmtree(exam.lib.folder)
    shutil.rmtree(exam.more.folder)
    assert exam.scan().files["app/copied.py"]["split"] == "holdout"


def test_what_has_lost_a_submodule_does_not_stand_in(exam: Exam) -> None:
    exam.scan()
    exam.lose(f"{exam.site.url}/nowhere/.git")
    shutil.rmtree(exam.more.folder)
    for mirror in (exam.workshop.places.store / "team/projects/code/sources").glob("git-*.modules/exam/*.git"):
        shutil.rmtree(mirror)
    with pytest.raises(SourceUnavailable, match="The submodule 'more'"):
        exam.scan()


def test_what_another_revision_had_does_not_stand_in(exam: Exam) -> None:
    exam.exam.git("branch", "old")
    exam.scan(revision="old")
    exam.lose(f"{exam.site.url}/nowhere/.git")
    with pytest.raises(SourceUnavailable, match="The submodule 'more'"):
        exam.scan()


def test_submodules_that_nobody_asked_for_do_not_fail_it(exam: Exam) -> None:
    exam.lose(f"{exam.site.url}/nowhere/.git")
    scanned = exam.scan(submodules=False)
    assert (scanned.report["exam/more"]["reason"], scanned.result.sources[1].reason) == ("Unreadable", "")
