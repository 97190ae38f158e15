"""A bare mirror of one repository in the store: fetched shallow and in part, kept for the next sync, never checked out.

What the scan will not read does not come: blobs above `READ_LIMIT_BYTES`, and those outside of `git.path`. A blob that
is not here is not asked for later either: git is told only while it fetches that the repository is a part of another
one, so reading can't start a fetch.
"""

import fcntl
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from codetune_trainer.errors import EmptyRepository, RevisionNotFound, UnsupportedSource
from codetune_trainer.scan.git.objects import list_entries
from codetune_trainer.scan.git.parts import find_absent, find_absent_modules, find_folder, find_lacking, find_moved
from codetune_trainer.scan.git.reading import Repository, close_off
from codetune_trainer.scan.git.repacking import clean
from codetune_trainer.scan.git.running import (
    ASK_SECONDS,
    FETCH_SECONDS,
    Damaged,
    GitError,
    OtherObjectFormat,
    run_git,
)
from codetune_trainer.scan.git.urls import Remote
from codetune_trainer.scan.git.words import explain, lacks_feature
from codetune_trainer.scan.rules.judge import READ_LIMIT_BYTES

_SHA1, _SHA256 = "sha1", "sha256"
"""How objects may be named; a mirror is of the first kind until its repository says that it is of the other."""
_NEXT = "refs/codetune/next"
_HELD = "refs/codetune/held/"
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DIGITS = re.compile(r"[0-9A-Fa-f]{4,64}")
_FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force")
_HISTORY = ("+refs/heads/*:refs/codetune/heads/*", "+refs/tags/*:refs/codetune/tags/*")
_SMALL_BLOBS = f"blob:limit={READ_LIMIT_BYTES + 1}"
"""git leaves out what has this many bytes or more."""
_NO_BLOBS = "blob:none"
_COMMITS = "tree:0"
_REFUSED = "single-objects-refused"
"""A file that marks a mirror that has the blobs outside of its path too, because the server gave no others."""


@dataclass(frozen=True)
class Mirror:
    """A bare repository of ours, and the environment in which git works on it."""

    folder: Path
    remote: Remote
    environment: Mapping[str, str]
    holder: str
    """Who needs a commit of it; each keeps the last one that it asked for, and what none keeps goes in time."""
    path: str = ""
    """The folder whose blobs are needed; empty: all of them."""
    revision: str | None = None
    """Branch, tag or commit that `sync` brings; None: the repository's default branch."""

    @property
    def of_whole(self) -> "Mirror":
        """The same for a holder of its own, which keeps the last commit that came with all of its submodules."""
        return replace(self, holder=f"{self.holder}\0whole")

    @cached_property
    def here(self) -> Repository:
        """What was fetched."""
        return Repository(self.folder, close_off(self.environment))

    def sync(self) -> str:
        """Bring the revision here and return its commit.

        Raises:
            SourceError: By what is wrong with the repository, its revision, its path or its credentials.
        """
        return self._work(lambda: self._sync(self.revision))

    def sync_commit(self, commit: str) -> str:
        """Have a commit here; one that is here already is not asked for. Raises: SourceError."""
        return self._work(lambda: self._sync_commit(commit))

    def holds(self, commit: str) -> bool:
        """Whether a commit is here, so that nothing is asked for when it is synced."""
        return (self.folder / "HEAD").is_file() and commit in self._list_held()

    def last_commit(self) -> str | None:
        """The commit that this holder's last sync brought; None when there was none, or when it was of another
        revision.
        """
        return self.here.resolve(self._held) if self.folder.is_dir() else None

    @property
    def _held_by_holder(self) -> str:
        return f"{_HELD}{_digest(self.holder)}"

    @property
    def _held(self) -> str:
        return f"{self._held_by_holder}-{_digest(self.revision or '')}"

    def _sync(self, revision: str | None) -> str:
        names = self._ask_refs(revision)
        if names:
            return self._settle(self._bring(names[0], revision))
        digits = (revision or "").lower()
        if not _COMMIT.fullmatch(digits):
            raise self._no_revision(revision)
        commit = self._bring_commit(digits if _FULL_COMMIT.fullmatch(digits) else self._complete(digits))
        if not commit.startswith(digits):
            raise self._no_revision(revision)
        return self._settle(commit)

    def _sync_commit(self, commit: str) -> str:
        if commit not in self._list_held() and self._bring_commit(commit) != commit:
            raise self._no_revision(commit)
        return self._settle(commit)

    def _settle(self, commit: str) -> str:
        """Keep a commit that is here, after a look at all of its tree. Raises: Damaged, SourceError."""
        for _ in list_entries(self.folder, f"{commit}:{self.path}", self.here.reading):
            pass
        others = self.here.run("for-each-ref", "--format=%(refname)", f"{self._held_by_holder}*").split()
        forgotten = "".join(f"delete {name}\n" for name in others if name != self._held)
        self.here.run("update-ref", "--stdin", data=f"{forgotten}update {self._held} {commit}\n".encode())
        clean(self.here)
        return commit

    def _list_held(self) -> list[str]:
        return self.here.run("for-each-ref", "--format=%(objectname)", _HELD).split()

    def _ask_refs(self, revision: str | None) -> list[str]:
        """Full names of the refs that a revision means, the branch first. Raises: SourceError."""
        wanted = ["HEAD"] if revision is None else [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        if revision is not None and (revision == "HEAD" or revision.startswith(("refs/heads/", "refs/tags/"))):
            wanted.append(revision)
        there = self._list_refs(*wanted) or self._list_refs()
        if not there:
            hint = "Push a commit to it, or take the source out."
            raise EmptyRepository(f"{self.remote.shown} has no commit.", hint)
        if revision in {None, "HEAD"} and not set(wanted) & set(there):
            raise RevisionNotFound(
                f"The default branch of {self.remote.shown} does not exist.", "Set git.revision to a branch or tag."
            )
        return [name for name in wanted if name in there]

    def _list_refs(self, *names: str) -> list[str]:
        try:
            listed = self._ask("ls-remote", "--", self.remote.url, *names, seconds=ASK_SECONDS)
        except GitError as error:
            raise explain(str(error), self.remote) from error
        return [line.partition("\t")[2] for line in listed.splitlines()]

    def _bring(self, what: str, revision: str | None) -> str:
        """Fetch a ref or commit with the blobs that are needed, and return the commit. Raises: SourceError."""
        if not self.path or (self.folder / _REFUSED).exists():
            self._fetch(_SMALL_BLOBS, f"+{what}:{_NEXT}")
            return self._read_next(revision)
        try:
            return self._bring_folder(what, revision)
        except GitError:
            # Not every server gives single objects, or says so in known words: then everything comes, as of now.
            self._fetch(_SMALL_BLOBS, f"+{what}:{_NEXT}", options=("--depth=1", "--refetch"))
            (self.folder / _REFUSED).touch()
        return self._read_next(revision)

    def _bring_folder(self, what: str, revision: str | None) -> str:
        """Fetch a ref or commit with the blobs below the path that are not here. Raises: GitError, SourceError."""
        held = self._list_held()
        changed = self._bring_changes(what, held) if held else None
        self._fetch(_NO_BLOBS, f"+{what}:{_NEXT}")
        commit = self._read_next(revision)
        tree = find_folder(self.here, commit, self.path, self.remote.shown)
        lacking = find_lacking(self.here, commit, tree, [f"{other}:{self.path}" for other in held])
        if lacking and not held:
            self._ask(*_FETCH, "--refetch", f"--filter={_SMALL_BLOBS}", "origin", tree)
            lacking = find_absent_modules(self.here, commit)
        elif lacking and changed == tree:
            # All came but what is too large, and what lay elsewhere in a commit of which the server takes all as here.
            lacking = find_moved(self.here, lacking, held) | find_absent_modules(self.here, commit)
        if lacking:
            # Without haves, for the same reason.
            alone = ("-c", "fetch.negotiationAlgorithm=noop")
            asked = b"".join(blob + b"\n" for blob in sorted(lacking))
            self._ask(*alone, *_FETCH, f"--filter={_NO_BLOBS}", "--stdin", "origin", data=asked)
        return commit

    def _bring_changes(self, what: str, held: Sequence[str]) -> str:
        """Fetch what the folder has of a ref or commit and the held commits have not, but what is too large.

        It is asked for by its tree, and git does not ask for a tree that is here. So its name is found out aside.

        Returns:
            The tree; empty when it was here already.

        Raises:
            GitError: The server does not give it.
            SourceError: By what is wrong with the repository, its revision or its path.
        """
        aside = Mirror(Path(self.environment["HOME"]) / "aside.git", self.remote, self.environment, self.holder)
        try:
            aside._prepare(self._read_format())
            (aside.folder / "objects" / "info" / "alternates").write_text(f"{self.folder.resolve() / 'objects'}\n")
            if (self.folder / "shallow").exists():
                shutil.copy(self.folder / "shallow", aside.folder)
            for number, commit in enumerate(held):
                aside.here.run("update-ref", f"{_HELD}{number}", commit)
            aside._fetch(_NO_BLOBS, f"+{what}:{_NEXT}")
            tree = find_folder(aside.here, aside._read_next(what), self.path, self.remote.shown)
        finally:
            shutil.rmtree(aside.folder, ignore_errors=True)
        if not find_absent(self.here, {tree.encode()}):
            return ""
        tips = [f"--negotiation-tip={commit}" for commit in held]
        self._ask(*_FETCH, *tips, f"--filter={_SMALL_BLOBS}", "origin", tree)
        return tree

    def _bring_commit(self, commit: str) -> str:
        """A commit by its name; where the server gives no single commits, everything that leads to it."""
        try:
            return self._bring(commit, commit)
        except RevisionNotFound:
            pass  # not every server gives commits that no branch points to
        shallow = (self.folder / "shallow").exists()
        self._fetch(_SMALL_BLOBS, *_HISTORY, options=("--unshallow",) if shallow else ())
        if (found := self.here.resolve(commit)) is None:
            raise self._no_revision(commit)
        return found

    def _complete(self, digits: str) -> str:
        """The commit whose name begins so, among those that lead to a branch or tag. Raises: SourceError."""
        folder = Path(self.environment["HOME"]) / "history.git"
        history = Mirror(folder, self.remote, self.environment, self.holder)
        try:
            history._prepare(self._read_format())
            history._fetch(_COMMITS, *_HISTORY, options=())
            if (found := history.here.resolve(digits)) is None:
                raise self._no_revision(digits)
            return found
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fetch(self, filtered: str, *refspecs: str, options: tuple[str, ...] = ("--depth=1",)) -> None:
        """Fetch by as little as the server can. Raises: SourceError."""
        whole = [option for option in options if option != "--depth=1"]
        for chosen in ([f"--filter={filtered}", *options], ["--no-filter", *options], ["--no-filter", *whole]):
            try:
                self._ask(*_FETCH, *chosen, "origin", *refspecs)
                return
            except GitError as error:
                failure = error
                if not lacks_feature(str(error)):
                    break
        raise explain(str(failure), self.remote) from failure

    def _ask(self, *arguments: str, data: bytes = b"", seconds: float = FETCH_SECONDS) -> str:
        """git's output, with the network. Raises: GitError, SourceUnavailable when it takes too long."""
        settings = {
            "remote.origin.url": self.remote.url,
            "remote.origin.promisor": "true",
            "remote.origin.partialclonefilter": _SMALL_BLOBS,
        }
        environment = {**self.environment, "GIT_CONFIG_COUNT": str(len(settings))}
        for number, (name, value) in enumerate(settings.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return run_git([f"--git-dir={self.folder}", *arguments], environment, seconds, data)

    def _read_next(self, revision: str | None) -> str:
        commit = self.here.resolve(_NEXT)
        if commit is None:
            message = f"{revision or 'HEAD'!r} of {self.remote.shown} is no commit."
            raise RevisionNotFound(message, "Name a branch, tag or commit.")
        return commit

    def _no_revision(self, revision: str | None) -> RevisionNotFound:
        message = f"{self.remote.shown} has no branch, tag or commit {revision!r}."
        hint = "Set git.revision to one that exists, or leave it out for the default branch."
        if revision and _DIGITS.fullmatch(revision) and not _FULL_COMMIT.fullmatch(revision.lower()):
            hint += (
                " The first digits of a commit are taken from 7 on; one that no branch or tag leads to needs all of "
                "its digits."
            )
        return RevisionNotFound(message, hint)

    def _work(self, task: Callable[[], str]) -> str:
        with self._locked():
            object_format = _SHA1
            try:
                return task()
            except Damaged:
                pass
            except OtherObjectFormat:
                object_format = _SHA256 if self._read_format() == _SHA1 else _SHA1
            # Most likely what we hold is damaged, or it fits the repository no longer: it is made anew from it, once.
            shutil.rmtree(self.folder)
            self._prepare(object_format)
            try:
                return task()
            except (Damaged, OtherObjectFormat) as error:
                hint = "Check it with `git fsck`; a tree of thousands of nested folders can't be read either."
                raise UnsupportedSource(f"What {self.remote.shown} gives can't be read: {error}", hint) from error

    def _read_format(self) -> str:
        return self.here.run("rev-parse", "--show-object-format").strip()

    def _prepare(self, object_format: str = _SHA1) -> None:
        if (self.folder / "HEAD").is_file():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        kind = ["--bare", "--template=", f"--object-format={object_format}"]
        run_git(["init", "--quiet", *kind, "--", str(self.folder)], self.environment, ASK_SECONDS)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One sync at a time; the lock goes with its process, and what a killed git left locked is freed."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._prepare()
            for stale in [*self.folder.glob("*.lock"), *(self.folder / "refs").rglob("*.lock")]:
                stale.unlink()
            yield


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
