"""Puts a git source together: its own tree, submodules below it, and the content behind Git LFS pointers.

A submodule or an LFS object that can't be had is one file that can't be read, with the reason; whether the source goes
on without it is decided elsewhere.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from codetune_api.project import GitSource

from codetune_trainer.errors import HostUnreachable, SourceError, SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.git.environment import build_environment
from codetune_trainer.scan.git.lfs import Lfs
from codetune_trainer.scan.git.mirror import Mirror
from codetune_trainer.scan.git.modules import find_remote, read_modules
from codetune_trainer.scan.git.names import find_obstacle
from codetune_trainer.scan.git.objects import MOST_ENTRIES, Entry, describe, list_entries
from codetune_trainer.scan.git.secrets import Credentials
from codetune_trainer.scan.git.tree import GitTree
from codetune_trainer.scan.git.urls import Remote
from codetune_trainer.scan.records import Found

MOST_MODULES = 64
"""Submodules of one source that are tried to be fetched, at all depths together."""
DEEPEST_MODULE = 4
"""Submodules in submodules."""
_PROTOCOLS = {"file": ("file",), "ssh": ("ssh",), "https": ("https",), "http": ("http", "https")}


@dataclass
class Assembly:
    """One source being put together."""

    git: GitSource
    remote: Remote
    """Of the source itself; its Secret is for this host only."""
    credentials: Credentials | None
    home: Path
    """A private folder in the pod."""
    modules: Path
    """Where the mirrors of submodules are."""
    file_root: Path | None
    wants: Callable[[Found], bool]
    """Whether a file of this path and size would be read."""
    stands_in: bool = False
    """Whether it is for the last commit that came with all of its submodules, in place of one that does not."""
    used: list[tuple[Mirror, str]] = field(default_factory=list)
    """The mirrors that the tree is in, and the commit of each; the source's own comes first."""
    opened: set[str] = field(default_factory=set)
    """Names of all mirrors that it should be in."""
    attempts: int = 0
    """Submodules that were fetched, or tried to."""
    silent: set[str] = field(default_factory=set)
    """Hosts that could not be reached."""
    listed: int = 0
    """Entries of all trees together."""
    troubles: list[str] = field(default_factory=list)
    """What could not be fetched."""
    lacking: dict[str, SourceError] = field(default_factory=dict)
    """Why submodules could not be fetched, by their paths inside the source."""
    away: bool = False
    """Whether any of it may be had at the next attempt."""

    def build(self, mirror: Mirror, commit: str, prefix: str = "", depth: int = 0) -> GitTree:
        """The tree of a commit that is in a mirror.

        Args:
            mirror: Where it is.
            commit: Its name.
            prefix: Its path inside the source; empty or with `/` at its end.
            depth: How many submodules are around it.
        """
        self.used.append((mirror, commit))
        treeish = f"{commit}:{mirror.path}"
        links: list[Entry] = []
        pointers = Lfs(mirror, self._authorization(mirror.remote), prefix, self.wants) if self.git.lfs else None
        for entry in list_entries(mirror.folder, treeish, mirror.here.reading):
            self._count()
            if entry.is_submodule and not find_obstacle(entry.name):
                links.append(entry)
            elif pointers is not None:
                pointers.look_at(entry)
        modules, troubles = (
            self._fetch_modules(mirror, commit, links, prefix, depth) if self.git.submodules else ({}, {})
        )
        stand_ins, failed = pointers.fetch() if pointers is not None else ({}, [])
        if failed:
            why = failed[0].message.rstrip(".")
            self._note(f"{len(failed)} Git LFS objects were not fetched: {why}.", failed)
        return GitTree(treeish, modules, troubles, stand_ins)

    def open(self, remote: Remote, folder: Path, holder: str, path: str = "", revision: str | None = None) -> Mirror:
        """A mirror, with the source's Secret if it is on the source's own host."""
        credentials = self.credentials if remote.origin == self.remote.origin else None
        self.opened.add(folder.stem)
        home = self.home / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        environment = build_environment(home, _PROTOCOLS[remote.protocol], remote.host, credentials)
        mirror = Mirror(folder, remote, environment, holder, path, revision)
        return mirror.of_whole if self.stands_in else mirror

    def keep_whole(self) -> None:
        """Hold on to what was put together until there is something newer with all of its submodules."""
        for mirror, commit in self.used:
            mirror.of_whole.sync_commit(commit)

    def sum_up_lacking(self) -> SourceError:
        """One error for the submodules that could not be fetched, of which there is at least one."""
        (path, first), *others = self.lacking.items()
        away = any(isinstance(error, SourceUnavailable) for error in self.lacking.values())
        kind = SourceUnavailable if away else type(first)  # so that it is tried again by itself
        said = f"The submodule {path!r} of {self.remote.shown} was not fetched: {first.message.rstrip('.')}."
        more = (
            " One more was not either." if len(others) == 1 else f" {len(others)} more were not either." * bool(others)
        )
        hint = (
            "Mend the submodule, or leave git.submodules out and make its repository a source of its own with "
            "use: HoldOut."
        )
        return kind(said + more, hint)

    def prune(self) -> None:
        """Remove the mirrors of submodules that are no longer there."""
        for folder in self.modules.glob("*"):
            if folder.stem not in self.opened:
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()

    def _count(self) -> None:
        self.listed += 1
        if self.listed > MOST_ENTRIES:
            hint = "Make the repositories of large submodules sources of their own."
            raise UnsupportedSource(f"It has more than {MOST_ENTRIES} files with those of its submodules.", hint)

    def _fetch_modules(
        self, mirror: Mirror, commit: str, links: Iterable[Entry], prefix: str, depth: int
    ) -> tuple[dict[str, GitTree], dict[str, str]]:
        modules: dict[str, GitTree] = {}
        troubles: dict[str, str] = {}
        try:
            urls = read_modules(mirror.here, commit)
        except SourceError as error:
            return {}, {describe(link).path: self._tell(prefix, describe(link).path, error) for link in links}
        for link in links:
            path = describe(link).path
            listed = f"{mirror.path}/{path}".lstrip("/")
            try:
                modules[path] = self._fetch_module(mirror.remote, urls.get(listed), link, f"{prefix}{path}", depth + 1)
            except SourceError as error:
                troubles[path] = self._tell(prefix, path, error)
        return modules, troubles

    def _fetch_module(self, parent: Remote, url: str | None, link: Entry, path: str, depth: int) -> GitTree:
        if url is None:
            raise UnsupportedSource("the list of submodules does not name it", "Correct .gitmodules.")
        if depth > DEEPEST_MODULE or self.attempts >= MOST_MODULES:
            raise UnsupportedSource(
                f"more than {MOST_MODULES} submodules, or more than {DEEPEST_MODULE} in each other",
                "Make its repository a source of its own.",
            )
        remote = find_remote(url, parent, self.file_root)
        if remote.protocol == "ssh" and (self.credentials is None or remote.origin != self.remote.origin):
            message = f"it is behind ssh at {remote.authority}, and the source's Secret is not for that"
            raise UnsupportedSource(message, "Make its repository a source of its own.")
        digest = hashlib.sha256(remote.shown.encode()).hexdigest()[:24]
        module = self.open(remote, self.modules / f"git-{digest}.git", path)
        commit = link.identity.decode()
        if remote.host in self.silent and not module.holds(commit):
            message = f"{remote.authority} could not be reached for another one, and is not tried again in this scan"
            raise SourceUnavailable(message)
        self.attempts += 1
        try:
            module.sync_commit(commit)
        except HostUnreachable:
            self.silent.add(remote.host)
            raise
        return self.build(module, commit, f"{path}/", depth)

    def _tell(self, prefix: str, path: str, error: SourceError) -> str:
        said = error.message.rstrip(".")
        self.lacking[prefix + path] = error
        self._note(f"The submodule {prefix + path!r} was not fetched: {said}.", [error])
        return said

    def _note(self, trouble: str, errors: Iterable[SourceError]) -> None:
        self.troubles.append(trouble)
        self.away = self.away or any(isinstance(error, SourceUnavailable) for error in errors)

    def _authorization(self, remote: Remote) -> str:
        if self.credentials is None or remote.origin != self.remote.origin or remote.protocol == "ssh":
            return ""
        return self.credentials.authorization()
