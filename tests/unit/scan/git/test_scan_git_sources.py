"""Git repositories as sources: revisions, incremental syncs, and each way in which one can be unusable."""

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.errors import (
    AuthenticationFailed,
    EmptyRepository,
    PathNotFound,
    RevisionNotFound,
    SourceError,
    SourceUnavailable,
    UnsupportedSource,
)
from codetune_trainer.scan.git.mirror import Mirror
from codetune_trainer.scan.git.running import GitError

if TYPE_CHECKING:
    from unit.scan.conftest import Repository, Workshop


@pytest.fixture
def history(workshop: "Workshop") -> "Repository":
    """A repository with a branch, a tag, and a commit that only its name finds."""
    repository = workshop.repository()
    repository.commit({"one.py": workshop.code("one")})
    repository.git("tag", "-a", "v1", "-m", "first")
    repository.git("checkout", "--quiet", "-b", "feature/x")
    repository.commit({"two.py": workshop.code("two")})
    repository.git("checkout", "--quiet", "main")
    repository.commit({"three.py": workshop.code("three")})
    return repository


@pytest.mark.parametrize(
    ("files", "revision"),
    [
        pytest.param({"one.py", "three.py"}, None, id="default-branch"),
        pytest.param({"one.py", "three.py"}, "main", id="branch"),
        pytest.param({"one.py", "two.py"}, "feature/x", id="branch-with-a-slash"),
        pytest.param({"one.py"}, "v1", id="annotated-tag"),
        pytest.param({"one.py", "three.py"}, "HEAD", id="default-branch-by-its-ref"),
        pytest.param({"one.py", "two.py"}, "refs/heads/feature/x", id="branch-by-its-ref"),
        pytest.param({"one.py"}, "refs/tags/v1", id="tag-by-its-ref"),
        pytest.param({"one.py", "two.py"}, "UPPER feature/x", id="commit-in-capitals"),
        pytest.param({"one.py", "two.py"}, "COMMIT feature/x", id="commit-of-a-branch"),
        pytest.param({"one.py"}, "COMMIT main~1", id="commit-inside-history"),
        pytest.param({"one.py"}, "SHORT main~1", id="short-commit"),
    ],
)
def test_a_revision_is_a_branch_a_tag_or_a_commit(
    workshop: "Workshop", history: "Repository", files: set[str], revision: str | None
) -> None:
    if revision and " " in revision:
        form, name = revision.split(" ")
        digits = history.git("rev-parse", name)
        revision = {"COMMIT": digits, "UPPER": digits.upper(), "SHORT": digits[:10]}[form]
    scanned = workshop.scan(workshop.from_git("repo", revision=revision))
    assert {path.removeprefix("repo/") for path in scanned.files} == files
    assert len(scanned.result.sources[0].commit) == 40


@pytest.mark.parametrize(
    "revision",
    [
        pytest.param("no-such-branch", id="branch"),
        pytest.param("deadbeef" * 5, id="commit"),
        pytest.param("deadbeef", id="short-commit"),
        pytest.param("refs/heads/no-such", id="ref"),
    ],
)
def test_a_revision_that_does_not_exist_is_named(workshop: "Workshop", history: "Repository", revision: str) -> None:
    with pytest.raises(RevisionNotFound) as failure:
        workshop.scan(workshop.from_git("repo", revision=revision))
    assert repr(revision) in failure.value.message
    assert "git.revision" in failure.value.hint


def test_too_few_digits_of_a_commit_are_told_as_what_they_are(workshop: "Workshop", history: "Repository") -> None:
    revision = history.git("rev-parse", "main")[:6].upper()
    with pytest.raises(RevisionNotFound, match=revision) as failure:
        workshop.scan(workshop.from_git("repo", revision=revision))
    assert "from 7 on" in failure.value.hint


def test_a_tag_of_something_else_than_a_commit_is_no_revision(workshop: "Workshop", history: "Repository") -> None:
    history.git("tag", "blob", history.blob(b"only a blob"))
    with pytest.raises(SourceError) as failure:
        workshop.scan(workshop.from_git("repo", revision="blob"))
    assert "blob" in failure.value.message


def test_a_repository_without_a_commit_is_empty(workshop: "Workshop") -> None:
    workshop.repository()
    with pytest.raises(EmptyRepository) as failure:
        workshop.scan()
    assert "file:///repo has no commit" in failure.value.message


@pytest.mark.parametrize("make", [False, True], ids=["missing", "no-repository"])
def test_a_repository_that_does_not_exist_is_unavailable(workshop: "Workshop", make: bool) -> None:
    if make:
        (workshop.root / "files" / "repo").mkdir()
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan()
    assert "file:///repo" in failure.value.message
    assert failure.value.exit_code == 1


def test_a_source_that_fails_is_named_and_does_not_stop_the_others(workshop: "Workshop") -> None:
    workshop.repository("good").commit({"a.py": workshop.code("a")})
    workshop.repository("empty")
    archive = {"name": "zip", "archive": {"url": "https://ann:secret@example.com/a.zip"}}
    scanned = workshop.scan(
        workshop.from_git("gone"),
        workshop.from_git("empty"),
        archive,
        {"name": "sent", "upload": {}},
        workshop.from_git("good"),
    )
    said = {source.name: source.message.partition(":")[0] for source in scanned.result.sources}
    assert said == {
        "gone": "SourceUnavailable",
        "empty": "EmptyRepository",
        "zip": "UnsupportedSource",
        "sent": "UploadMissing",
        "good": "",
    }
    assert list(scanned.files) == ["good/a.py"]


def test_when_no_source_can_be_used_the_first_ones_trouble_is_told(workshop: "Workshop") -> None:
    workshop.repository("empty")
    with pytest.raises(EmptyRepository):
        workshop.scan(workshop.from_git("empty"), workshop.from_git("gone"))


def test_the_next_sync_fetches_only_what_changed(workshop: "Workshop") -> None:
    repository = workshop.repository()
    repository.commit({f"f{number}.py": workshop.code(f"f{number}") for number in range(50)})
    workshop.scan()
    repository.commit({"new.py": workshop.code("new")})
    scanned = workshop.scan()
    assert len(scanned.files) == 51
    (mirror,) = (workshop.places.store / "team/projects/code/sources").glob("git-*.git")
    counted = repository.git(f"--git-dir={mirror}", "count-objects", "-v")
    # 50 blobs, a tree and a commit at first; a blob, a tree and a commit later; perhaps one again as a delta's base.
    assert "packs: 2\n" in counted
    assert "in-pack: 55\n" in counted or "in-pack: 56\n" in counted


def test_a_history_that_was_rewritten_is_followed(workshop: "Workshop") -> None:
    repository = workshop.repository()
    repository.commit({"old.py": workshop.code("old")})
    workshop.scan()
    repository.git("checkout", "--quiet", "--orphan", "fresh")
    repository.git("rm", "-rfq", ".")
    repository.commit({"new.py": workshop.code("new")})
    repository.git("branch", "-M", "main")
    assert list(workshop.scan().files) == ["repo/new.py"]


def test_a_server_that_is_away_does_not_take_away_what_is_here(workshop: "Workshop") -> None:
    repository = workshop.repository()
    commit = repository.commit({"a.py": workshop.code("a")})
    before = workshop.scan()
    (repository.folder / ".git").rename(repository.folder / "elsewhere")
    after = workshop.scan()
    assert after.result.revision == before.result.revision
    assert after.result.sources[0].commit == commit
    assert "could not be fetched" in after.result.sources[0].message


def change_branch(repository: "Repository") -> None:
    repository.git("branch", "-m", "main", "trunk")


def change_tree(repository: "Repository") -> None:
    repository.git("mv", "src", "lib")
    repository.git("commit", "--quiet", "--message", "moved")


def empty(repository: "Repository") -> None:
    repository.git("update-ref", "-d", "refs/heads/main")


TROUBLES = [
    pytest.param("RevisionNotFound", change_branch, id="the branch is renamed"),
    pytest.param("PathNotFound", change_tree, id="the folder is moved"),
    pytest.param("EmptyRepository", empty, id="every branch is gone"),
]


@pytest.mark.parametrize(("reason", "happen"), TROUBLES)
def test_what_becomes_of_a_repository_does_not_take_away_what_is_here(
    reason: str, happen: Callable[["Repository"], None], workshop: "Workshop"
) -> None:
    repository = workshop.repository()
    commit = repository.commit({"src/a.py": workshop.code("a")})
    source = workshop.from_git("repo", revision="main", path="src")
    before = workshop.scan(source)
    happen(repository)
    after = workshop.scan(source)
    assert after.result.revision == before.result.revision
    (status,) = after.result.sources
    assert (status.commit, status.reason) == (commit, reason)
    assert "of the last scan is used" in status.message


EDITS = [
    pytest.param(RevisionNotFound, {"revision": "none"}, id="revision"),
    pytest.param(RevisionNotFound, {"revision": "f" * 40}, id="commit"),
    pytest.param(PathNotFound, {"revision": "main", "path": "none"}, id="path"),
    pytest.param(EmptyRepository, {"revision": "main", "url": "file:///other"}, id="url"),
]


@pytest.mark.parametrize(("kind", "edit"), EDITS)
def test_what_another_spec_of_a_source_brought_stands_in_for_nothing(
    kind: type[SourceError], edit: dict[str, str], workshop: "Workshop"
) -> None:
    workshop.repository().commit({"a.py": workshop.code("a")})
    workshop.repository("other")
    before = workshop.scan(workshop.from_git("repo", revision="main"))
    with pytest.raises(kind):
        workshop.scan(workshop.from_git("repo", **edit))
    after = workshop.scan(workshop.from_git("repo", revision="main"))
    assert after.result.revision == before.result.revision


def test_a_revision_that_is_no_longer_asked_for_is_forgotten(workshop: "Workshop") -> None:
    repository = workshop.repository()
    repository.commit({"a.py": workshop.code("a")})
    repository.git("tag", "v1")
    workshop.scan(workshop.from_git("repo", revision="v1"))
    commit = repository.commit({"b.py": workshop.code("b")})
    workshop.scan(workshop.from_git("repo", revision="main"))
    (mirror,) = (workshop.places.store / "team/projects/code/sources").glob("git-*.git")
    held = repository.git(f"--git-dir={mirror}", "for-each-ref", "--format=%(objectname)", "refs/codetune/held")
    assert held == commit
    repository.git("tag", "-d", "v1")
    with pytest.raises(RevisionNotFound):
        workshop.scan(workshop.from_git("repo", revision="v1"))


def test_a_disk_that_is_full_does_not_take_away_what_is_here(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = workshop.repository()
    repository.commit({"a.py": workshop.code("a")})
    before = workshop.scan()
    repository.commit({"b.py": workshop.code("b")})
    full = GitError("fatal: write error: No space left on device")
    monkeypatch.setattr(Mirror, "_ask", lambda *_, **__: (_ for _ in ()).throw(full))
    after = workshop.scan()
    assert after.result.revision == before.result.revision
    assert after.result.sources[0].reason == "DiskFull"


def test_a_mirror_that_a_kill_left_locked_or_broken_is_mended(workshop: "Workshop") -> None:
    repository = workshop.repository()
    repository.commit({"a.py": workshop.code("a")})
    workshop.scan()
    (mirror,) = (workshop.places.store / "team/projects/code/sources").glob("git-*.git")
    (mirror / "shallow.lock").touch()
    (mirror / "refs" / "codetune" / "next.lock").touch()
    repository.commit({"b.py": workshop.code("b")})
    assert len(workshop.scan().files) == 2
    shutil.rmtree(mirror / "objects")
    (mirror / "HEAD").unlink()
    assert len(workshop.scan().files) == 2


def test_two_repositories_with_one_base_name_do_not_clash(workshop: "Workshop") -> None:
    for team in ("a", "b"):
        workshop.repository(f"{team}/app").commit({f"{team}.py": workshop.code(team)})
    sources = [{"name": team, "git": {"url": f"file:///{team}/app"}} for team in ("a", "b")]
    assert list(workshop.scan(*sources).files) == ["a/a.py", "b/b.py"]


def test_what_a_removed_source_left_in_the_cache_goes(workshop: "Workshop") -> None:
    for name in ("a", "b"):
        workshop.repository(name).commit({f"{name}.py": workshop.code(name)})
    workshop.scan(workshop.from_git("a"), workshop.from_git("b"))
    workshop.scan(workshop.from_git("b"))
    cache = workshop.places.store / "team/projects/code/sources"
    assert sorted(path.suffix for path in cache.iterdir()) == [".git", ".lock"]


@pytest.mark.parametrize(
    ("message", "keys", "url"),
    [
        pytest.param("no `password` and no `token`", {"username": "u"}, "https://example.com/a/b", id="no-password"),
        pytest.param("has no `ssh-privatekey`", {"known_hosts": "h"}, "git@git.example.com:a/b", id="no-key"),
    ],
)
def test_a_secret_that_can_not_be_used_is_told_before_anything_is_asked(
    workshop: "Workshop", message: str, keys: dict[str, str], url: str
) -> None:
    (workshop.root / "credentials" / "repo").mkdir()
    for key, value in keys.items():
        (workshop.root / "credentials" / "repo" / key).write_text(value)
    source = {"name": "repo", "git": {"url": url}, "credentialsSecretRef": {"name": "secret"}}
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(source)
    assert message in failure.value.message
    assert "Secret" in failure.value.hint


@pytest.mark.parametrize("mounted", [True, False])
def test_a_secret_that_does_not_exist_is_told_and_waited_for(workshop: "Workshop", mounted: bool) -> None:
    if mounted:  # as a kubelet mounts an optional Secret that is not there
        (workshop.root / "credentials" / "repo" / "..2026_01_01").mkdir(parents=True)
        (workshop.root / "credentials" / "repo" / "..data").symlink_to("..2026_01_01")
    source = {"name": "repo", "git": {"url": "https://example.com/a/b"}, "credentialsSecretRef": {"name": "key"}}
    with pytest.raises(SourceUnavailable, match="The Secret `key` of source 'repo' does not exist"):
        workshop.scan(source)


def test_an_ssh_url_without_a_secret_says_what_it_needs(workshop: "Workshop") -> None:
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan({"name": "repo", "git": {"url": "git@git.example.com:a/b"}})
    assert "known_hosts" in failure.value.hint


def test_without_a_file_root_file_urls_are_refused(workshop: "Workshop") -> None:
    from dataclasses import replace

    from codetune_trainer.reporting import Reporter
    from codetune_trainer.scan.recipe import scan

    workshop.repository().commit({"a.py": workshop.code("a")})
    with pytest.raises(UnsupportedSource) as failure:
        scan(workshop.config(), replace(workshop.places, file_root=None), Reporter("n" * 16, workshop.events))
    assert "fileRoot" in failure.value.message
