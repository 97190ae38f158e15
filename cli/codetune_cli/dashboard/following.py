"""Follows the resources of Codetune's kinds: lists them, then watches what changes."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from codetune_api.metadata import API_VERSION

from codetune_cli.connecting import Connection, Obj
from codetune_cli.errors import ApiRefusal, CliError
from codetune_cli.resources import NOT_INSTALLED
from codetune_cli.watching import GONE, watch_events

KINDS = ("projects", "finetunes", "modeldeployments", "teams")
"""Plural names, in the order in which the parts build on each other."""
_PAGE = 500
_BETWEEN_SECONDS = 1.0
"""Between two watches, should something on the way end each at once, or forget what there was at once."""
_PAUSE_SECONDS = 5.0
"""After a failure."""

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Shelf:
    """What is known of one kind."""

    objects: dict[Key, Obj] = field(default_factory=dict)
    loaded: bool = False
    """Whether they were listed at all."""
    problem: str = ""
    """Why they can't be followed now; what was known before stays."""


class Board:
    """The resources as they are known now; written by the followers, read by the pages."""

    def __init__(self) -> None:
        self._shelves = dict.fromkeys(KINDS, Shelf())
        self._changed = threading.Condition()
        self._version = 0

    def read(self) -> tuple[int, dict[str, Shelf]]:
        """Everything, and the number of the last change to it."""
        with self._changed:
            return self._version, dict(self._shelves)

    def wait(self, since: int, seconds: float) -> None:
        """Return once there is a change that came after the one of this number, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != since, seconds)

    def fill(self, kind: str, objects: Iterable[Obj]) -> None:
        """All resources of a kind."""
        self._set(kind, lambda _: Shelf({_key(found): found for found in objects}, loaded=True))

    def put(self, kind: str, found: Obj) -> None:
        """A resource that is new or other than before."""
        self._set(kind, lambda shelf: replace(shelf, objects={**shelf.objects, _key(found): found}, problem=""))

    def drop(self, kind: str, gone: Obj) -> None:
        """A resource that is no more."""
        key = _key(gone)
        self._set(
            kind, lambda shelf: replace(shelf, objects={k: v for k, v in shelf.objects.items() if k != key}, problem="")
        )

    def tell(self, kind: str, problem: str) -> None:
        """Why a kind can't be followed; empty: it can again."""
        self._set(kind, lambda shelf: replace(shelf, problem=problem))

    def _set(self, kind: str, change: Callable[[Shelf], Shelf]) -> None:
        with self._changed:
            after = change(self._shelves[kind])
            if after != self._shelves[kind]:
                self._shelves[kind] = after
                self._version += 1
                self._changed.notify_all()


@dataclass(frozen=True)
class Follower:
    """Follows one kind.

    Args:
        connection: The API server, with the caller's rights.
        kind: Plural name.
        everywhere: In all namespaces, and not in the connection's alone.
        board: Gets what is found.
    """

    connection: Connection
    kind: str
    everywhere: bool
    board: Board

    def run(self, stopped: threading.Event) -> None:
        """Follow until told to stop; a connection that breaks is told on the board and made anew."""
        version = ""
        while not stopped.is_set():
            try:
                if not version:
                    version = self._list()
                version = self._watch(version)
                stopped.wait(_BETWEEN_SECONDS)
            except ApiRefusal as error:
                version = ""
                if error.status == GONE:  # only too much has happened meanwhile
                    stopped.wait(_BETWEEN_SECONDS)
                else:
                    self._pause(_explain(error), stopped)
            except CliError as error:
                version = ""
                self._pause(str(error), stopped)

    def _pause(self, problem: str, stopped: threading.Event) -> None:
        self.board.tell(self.kind, problem)
        stopped.wait(_PAUSE_SECONDS)

    @property
    def _path(self) -> str:
        inside = "" if self.everywhere else f"/namespaces/{self.connection.namespace}"
        return f"/apis/{API_VERSION}{inside}/{self.kind}"

    def _list(self) -> str:
        """Returns: the version to watch from. Raises: CliError."""
        objects: dict[Key, Obj] = {}
        going_on = ""
        while True:
            query = {"limit": str(_PAGE), **({"continue": going_on} if going_on else {})}
            page = self.connection.ask("GET", f"{self._path}?{urlencode(query)}")
            try:
                objects |= {_key(item): item for item in page["items"]}
                version, going_on = str(page["metadata"]["resourceVersion"]), page["metadata"].get("continue") or ""
            except (KeyError, TypeError, AttributeError) as error:
                message = f"The API server answers with something else than a list of {self.kind}"
                raise CliError(f"{message}: is the kubeconfig's server right?") from error
            if not going_on:
                self.board.fill(self.kind, objects.values())
                return version

    def _watch(self, version: str) -> str:
        """Returns: the version to go on from. Raises: CliError."""
        for event in watch_events(self.connection, self._path, version):
            version = event.version
            if event.type == "DELETED":
                self.board.drop(self.kind, event.object)
            elif event.type != "BOOKMARK":
                self.board.put(self.kind, event.object)
        return version


def _explain(error: ApiRefusal) -> str:
    if error.status == 404:
        return NOT_INSTALLED
    return str(error)


def _key(found: Obj) -> Key:
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
