"""A bare mirror of one repository in the store: fetched shallow, kept for the next sync, never checked out."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from codetune_trainer.errors import AuthenticationFailed, EmptyRepository, RevisionNotFound, SourceUnavailable
from codetune_trainer.scan.git_environment import find_git
from codetune_trainer.scan.git_urls import Remote

ASK_SECONDS = 180
FETCH_SECONDS = 3 * 3600
_REF = "refs/codetune/current"
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PACKS_BEFORE_CLEANING = 16
_ERROR_CHARACTERS = 600
_DENIED = re.compile(
    r"Authentication failed|could not read (Username|Password)|terminal prompts disabled|Permission denied"
    r"|Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|error: 40[13]\b|Access denied|HTTP Basic"
)
_HOST_KEY = re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED")
_NO_SUCH_OBJECT = re.compile(
    r"not our ref|couldn't find remote ref|no such remote ref|unadvertised object|does not exist|not a valid object"
)
_NOT_SHALLOW = re.compile(r"does not support shallow|shallow capabilities")


class GitError(Exception):
    """git ended with an error; the text is what it said."""


@dataclass(frozen=True)
class Mirror:
    """A bare repository of ours, and the environment in which git works on it."""

    folder: Path
    remote: Remote
    environment: Mapping[str, str]

    def run(self, *arguments: str, seconds: float = ASK_SECONDS) -> str:
        """git's output. Raises: GitError, SourceUnavailable when it takes too long."""
        return run_git([f"--git-dir={self.folder}", *arguments], self.environment, seconds)

    def sync(self, revision: str | None) -> str:
        """Bring a revision here and return its commit.

        Args:
            revision: Branch, tag or commit; None: the repository's default branch.

        Raises:
            SourceError: By what is wrong with the repository, its revision or its credentials.
        """
        with self._locked():
            try:
                return self._sync(revision)
            except _Damaged:
                # Only what we hold can be damaged: it is made anew from the source, once.
                shutil.rmtree(self.folder)
                self._prepare()
                return self._sync(revision)

    def last_commit(self) -> str | None:
        """The commit that the last sync brought; None when there was none."""
        if not self.folder.is_dir():
            return None
        try:
            return self.run("rev-parse", "--verify", "--quiet", f"{_REF}^{{commit}}").strip() or None
        except GitError:
            return None

    def _sync(self, revision: str | None) -> str:
        names = self._ask_refs(revision)
        if names:
            self._fetch(names[0], shallow=True)
        elif revision and _COMMIT.fullmatch(revision):
            self._fetch_commit(revision)
        else:
            raise self._no_revision(revision)
        commit = self.last_commit()
        if commit is None:
            raise RevisionNotFound(
                f"{revision or 'HEAD'!r} of {self.remote.shown} is no commit.", "Name a branch, tag or commit."
            )
        if _FULL_COMMIT.fullmatch(revision or "") and not names and commit != revision:
            raise self._no_revision(revision)
        self._clean()
        return commit

    def _ask_refs(self, revision: str | None) -> list[str]:
        """Full names of the refs that a revision means, the branch first. Raises: SourceError."""
        wanted = ["HEAD"] if revision is None else [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        try:
            listed = self.run("ls-remote", "--", self.remote.url)
        except GitError as error:
            raise self._explain(str(error)) from error
        there = [line.partition("\t")[2] for line in listed.splitlines()]
        if not there:
            hint = "Push a commit to it, or take the source out."
            raise EmptyRepository(f"{self.remote.shown} has no commit.", hint)
        if revision is None and "HEAD" not in there:
            raise RevisionNotFound(
                f"The default branch of {self.remote.shown} does not exist.", "Set git.revision to a branch or tag."
            )
        return [name for name in wanted if name in there]

    def _fetch(self, what: str, *, shallow: bool) -> None:
        options = ["--no-tags", "--no-write-fetch-head", "--force", *(["--depth=1"] if shallow else [])]
        try:
            self.run("fetch", "--quiet", *options, "--", self.remote.url, f"+{what}:{_REF}", seconds=FETCH_SECONDS)
        except GitError as error:
            if shallow and _NOT_SHALLOW.search(str(error)):
                self._fetch(what, shallow=False)
                return
            raise self._explain(str(error)) from error

    def _fetch_commit(self, commit: str) -> None:
        """A commit by its name; where the server gives no single commits, everything that leads to it."""
        try:
            if _FULL_COMMIT.fullmatch(commit):
                self._fetch(commit, shallow=True)
                return
        except RevisionNotFound:
            pass  # not every server gives commits that no branch points to
        everything = ["+refs/heads/*:refs/codetune/heads/*", "+refs/tags/*:refs/codetune/tags/*"]
        unshallow = ["--unshallow"] if (self.folder / "shallow").exists() else []
        try:
            options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--force", *unshallow]
            self.run("fetch", *options, "--", self.remote.url, *everything, seconds=FETCH_SECONDS)
            full = self.run("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").strip()
            self.run("update-ref", _REF, full)
        except GitError as error:
            if not str(error) or _NO_SUCH_OBJECT.search(str(error)):
                raise self._no_revision(commit) from error
            raise self._explain(str(error)) from error

    def _no_revision(self, revision: str | None) -> RevisionNotFound:
        message = f"{self.remote.shown} has no branch, tag or commit {revision!r}."
        return RevisionNotFound(message, "Set git.revision to one that exists, or leave it out for the default branch.")

    def _explain(self, said: str) -> Exception:
        """What git's words mean for the source."""
        text = shorten(said)
        if _HOST_KEY.search(said):
            hint = "Put the server's current host key into `known_hosts` of the source's Secret (ssh-keyscan HOST)."
            return AuthenticationFailed(
                f"{self.remote.shown}: the server's host key is not the known one. {text}", hint
            )
        if _DENIED.search(said):
            hint = "Check that the repository exists and that the Secret in credentialsSecretRef may read it."
            return AuthenticationFailed(f"{self.remote.shown} asks for other credentials: {text}", hint)
        if _NO_SUCH_OBJECT.search(said) and "repository" not in said:
            return RevisionNotFound(f"{self.remote.shown}: {text}", "Set git.revision to one that exists.")
        if re.search(r"bad object|corrupt|invalid index-pack|loose object|packfile .* cannot|unable to read", said):
            return _Damaged(text)
        hint = "Check the URL, and that the cluster's network and proxy let the scan reach it."
        return SourceUnavailable(f"{self.remote.shown} can't be fetched: {text}", hint)

    def _prepare(self) -> None:
        if (self.folder / "HEAD").is_file():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        run_git(["init", "--quiet", "--bare", "--template=", "--", str(self.folder)], self.environment, ASK_SECONDS)

    def _clean(self) -> None:
        """Drop what earlier commits left, once it is worth the work."""
        if len(list((self.folder / "objects" / "pack").glob("*.pack"))) > _PACKS_BEFORE_CLEANING:
            self.run("gc", "--quiet", "--prune=now", seconds=FETCH_SECONDS)

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


class _Damaged(Exception):
    """What the mirror holds is broken."""


def run_git(arguments: Sequence[str], environment: Mapping[str, str], seconds: float) -> str:
    """Run git to its end and return its output. Raises: GitError, SourceUnavailable when it takes too long."""
    with subprocess.Popen(
        [find_git(), *arguments],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        start_new_session=True,  # so that its helpers (ssh, index-pack) end with it
    ) as process:
        try:
            output, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            message = f"git {arguments[1] if len(arguments) > 1 else ''} did not end within {seconds:.0f} s."
            raise SourceUnavailable(message, "Check that the server answers; the scan is tried again.") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise GitError(said.decode(errors="replace").strip())
    return output.decode(errors="replace")


def shorten(said: str) -> str:
    """git's words in one line, without control characters, bounded."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("hint:", "warning:"))]
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in " ".join(lines)).split())
    return text if len(text) <= _ERROR_CHARACTERS else text[:_ERROR_CHARACTERS] + "…"
