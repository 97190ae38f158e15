"""`kubectl codetune logs FINETUNE` or `project/NAME`: what a run prints, from its pod or from what the store keeps."""

from dataclasses import dataclass

from codetune_api.artifacts import TRAIN_LOG
from codetune_api.finetune import FineTune
from codetune_api.metadata import LABEL_COMPONENT, LABEL_FINETUNE, LABEL_PROJECT
from codetune_api.project import Project

from codetune_cli import waiting
from codetune_cli.connecting import Connection, Obj
from codetune_cli.errors import ApiRefusal, CliError, Interrupted, StoreRefused
from codetune_cli.podlogs import PodLog
from codetune_cli.pods import choose_pod, find_container, is_over, newest_pods
from codetune_cli.reaching import reach_store
from codetune_cli.resources import find_finetune, find_project, tell_ready
from codetune_cli.showing import Screen, printable
from codetune_cli.streaming import read_pieces, split_lines
from codetune_cli.waiting import describe_pod, insist

_LOOK_SECONDS = 2.0
_STANDS = frozenset({"Succeeded", "Failed", "Suspended", "Ready"})
"""Phases in which nothing runs and nothing is about to."""


@dataclass(frozen=True)
class LogWish:
    """What was asked for."""

    target: str
    """`NAME` or `finetune/NAME`, `project/NAME`."""
    pod: str | None
    follow: bool
    wait_seconds: float


@dataclass(frozen=True)
class Run:
    """Whose log it is."""

    kind: str
    name: str
    connection: Connection

    def find(self) -> FineTune | Project:
        """The resource as it is now. Raises: CliError."""
        find = find_project if self.kind == "project" else find_finetune
        return find(self.connection, self.name)

    def pods(self) -> list[Obj]:
        """Its pods, also of attempts before. Raises: CliError."""
        label, component = (LABEL_PROJECT, "scan") if self.kind == "project" else (LABEL_FINETUNE, "train")
        selector = f"{label}={self.name},{LABEL_COMPONENT}={component}"
        path = f"/api/v1/namespaces/{self.connection.namespace}/pods?labelSelector={selector}"
        try:
            found: list[Obj] = self.connection.ask("GET", path)["items"]
        except ApiRefusal as error:
            raise may_not_read(error) from error
        return found


def show_logs(asked: LogWish, connection: Connection, screen: Screen) -> None:
    """Print a log. Raises: CliError."""
    run = _read_target(asked.target, connection)
    resource = run.find()
    if _Follower(run, asked, screen).follow() if asked.follow else _show_pod(run, asked, screen):
        return
    if asked.pod is not None:
        raise CliError(
            f"The pods of {run.kind} {run.name!r} are gone; without --pod, what is kept of the log is shown."
        )
    if isinstance(resource, FineTune):
        _show_kept(resource, connection, asked.wait_seconds, screen)
        return
    why = tell_ready(resource.status.conditions)
    told = f"Project {run.name!r} has no scan with a pod now, and the log of one that has succeeded is not kept. {why}"
    raise CliError(f"{told.rstrip()} What the last scan did with each file: kubectl codetune files {run.name}")


def may_not_read(error: ApiRefusal) -> CliError:
    """The refusal of pods or their logs, with what to do."""
    hint = "Ask for `list` on pods and `get` on pods/log in this namespace; the ClusterRole `view` has both"
    return CliError(f"The run's pods can't be read: {error}. {hint}." if error.status == 403 else str(error))


def _read_target(text: str, connection: Connection) -> Run:
    kind, _, name = text.rpartition("/")
    kind = {"": "finetune", "ft": "finetune", "cproj": "project"}.get(kind, kind)
    if kind not in {"finetune", "project"} or not name:
        raise CliError(f"{text!r} is neither a FineTune's name nor project/NAME.")
    return Run(kind, name, connection)


def _show_pod(run: Run, asked: LogWish, screen: Screen) -> bool:
    """The log as it is now. Returns: False where there is no pod. Raises: CliError."""
    pods = run.pods()
    if not pods:
        return False
    pod = choose_pod(pods, asked.pod)
    _tell_choice(pods, pod, asked, screen)
    container = find_container(pod)
    if container is None:
        name = pod["metadata"]["name"]
        raise CliError(f"Pod {name} has printed nothing yet: {describe_pod(pod) or 'it is starting.'}")
    try:
        for line in PodLog(run.connection, pod, container).read():
            screen.result(show_line(line))
    except ApiRefusal as error:
        raise may_not_read(error) from error
    return True


def show_line(line: str) -> str:
    """A line of a log, with nothing in it that a terminal would take for an order."""
    return printable(line.expandtabs().rstrip("\r"))


def _tell_choice(pods: list[Obj], pod: Obj, asked: LogWish, screen: Screen) -> None:
    """Which of several pods it is, where nobody has chosen."""
    newest = newest_pods(pods)
    if len(newest) > 1 and asked.pod is None:
        others = ", ".join(str(index) for index in sorted(newest))
        screen.say(f"Pod {pod['metadata']['name']}, of {len(newest)}; --pod shows another: {others}, or a name.")


class _Follower:
    """Passes on what a run prints until it has ended: one pod's log after the other where it begins again."""

    def __init__(self, run: Run, asked: LogWish, screen: Screen) -> None:
        self._run, self._asked, self._screen = run, asked, screen
        self._logs: dict[tuple[str, str], PodLog] = {}
        self._done: set[tuple[str, str]] = set()
        self._broken: dict[tuple[str, str], str] = {}
        """Pods' names by the logs that have broken off and were not read on."""
        self._told = ""

    def follow(self) -> bool:
        """Returns: False where there was nothing to pass on. Raises: CliError."""
        while True:
            # The resource first: of a run that has ended by then, these are all pods.
            resource, pods = insist(self._run.find, self._screen.say), insist(self._run.pods, self._screen.say)
            begun = self._find_begun(pods)
            pod = begun or (choose_pod(pods, self._asked.pod) if pods else None)
            if pod is None or self._pass_on(pod, pods):
                if begun is not None:
                    continue  # with a newer one, if there is any
                if resource.status.phase in _STANDS:
                    self._check_whole()
                    return bool(self._logs)
            if pod is None or is_over(pod):
                self._say(tell_ready(resource.status.conditions))
            else:
                self._say(describe_pod(pod))
            waiting.sleep(_LOOK_SECONDS)

    def _check_whole(self) -> None:
        """Raises: CliError where a log broke off and went before it could be read on."""
        if self._broken:
            names = ", ".join(sorted(self._broken.values()))
            cure = "; without --follow, what the store has of the log is shown" if self._run.kind == "finetune" else ""
            raise CliError(f"The log of {names} broke off and could not be read on: lines may be missing here{cure}.")

    def _find_begun(self, pods: list[Obj]) -> Obj | None:
        """The pod whose log is shown and not whole yet: a newer one's comes after it."""
        open_ends = {uid for uid, _ in self._logs} - {uid for uid, _ in self._done}
        return next((pod for pod in pods if pod["metadata"]["uid"] in open_ends), None)

    def _pass_on(self, pod: Obj, pods: list[Obj]) -> bool:
        """What is new in a pod's log. Returns: whether that is all that will ever come of it. Raises: CliError."""
        container, was_over = find_container(pod), is_over(pod)
        key = (pod["metadata"]["uid"], container or "")
        if container is None or key in self._done:
            return was_over
        if key not in self._logs:
            _tell_choice(pods, pod, self._asked, self._screen)
            self._logs[key] = PodLog(self._run.connection, pod, container)
        try:
            for line in self._logs[key].read(follow=True):
                self._screen.result(show_line(line))
                self._screen.flush()
        except Interrupted:
            self._broken[key] = pod["metadata"]["name"]
            return False  # read on from there
        except ApiRefusal as error:
            # It is just beginning, or just going.
            is_passing = error.status in {400, 404} and not was_over
            if error.status < 500 and not is_passing:
                raise may_not_read(error) from error
            self._say("" if is_passing else str(error))
            return False
        self._broken.pop(key, None)
        if was_over:  # before it was read, so the log is whole
            self._done.add(key)
        return was_over

    def _say(self, state: str) -> None:
        """What is waited for, once."""
        if state and state != self._told:
            self._screen.say(f"Waiting: {state}")
            self._told = state


def _show_kept(finetune: FineTune, connection: Connection, seconds: float, screen: Screen) -> None:
    """The log of all attempts, as the run has kept it in the store. Raises: CliError."""
    name = finetune.metadata.name
    if finetune.status.started_at is None and not finetune.status.checkpoints:
        why = tell_ready(finetune.status.conditions)
        raise CliError(f"FineTune {name!r} has printed nothing yet: no pod of it has begun. {why}".rstrip())
    screen.say(f"The pods of FineTune {name!r} are gone; this is what the store has of its log.")
    store = reach_store(connection, finetune, seconds, screen)
    path = f"/v1/finetunes/{name}/{finetune.metadata.uid}/files/{TRAIN_LOG}"
    try:
        for line in split_lines(read_pieces(store.open("GET", path, headers={"Accept": "*/*"}))):
            screen.result(show_line(line.decode(errors="replace")))
    except StoreRefused as error:
        raise CliError(f"The store has no log of FineTune {name!r}: {error}") from error
    except Interrupted as error:
        raise CliError(f"{error}. Run the same command again.") from error
