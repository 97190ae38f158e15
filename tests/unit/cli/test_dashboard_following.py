"""The dashboard follows the resources of a real API surface, whatever happens to its connection."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from codetune_cli.connecting import Connection, connect
from codetune_cli.dashboard.following import Board, Follower, Shelf
from codetune_cli.errors import ApiRefusal
from kubernetes.client import ApiClient, Configuration

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

SPEC = {"projectRef": {"name": "shop"}, "baseModel": "hf://org/base"}
PATH = "/apis/codetune.dev/v1alpha1/namespaces/team/finetunes"


def _wait(board: Board, wanted: Callable[[dict[str, Shelf]], bool]) -> dict[str, Shelf]:
    deadline = time.monotonic() + 20
    while not wanted((found := board.read())[1]):
        board.wait(found[0], 1)
        assert time.monotonic() < deadline, found[1]
    return found[1]


def _names(shelves: dict[str, Shelf]) -> list[str]:
    return sorted(name for _, name in shelves["finetunes"].objects)


@pytest.fixture
def follow(desk: "Desk", monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Board]]:
    """Starts following the FineTunes with a connection; watches are short, so that one follows the other."""
    monkeypatch.setattr("codetune_cli.watching.WATCH_SECONDS", 1)
    stopped, started = threading.Event(), []

    def start(connection: Connection, everywhere: bool = False) -> Board:
        board = Board()
        thread = threading.Thread(
            target=Follower(connection, "finetunes", everywhere, board).run, args=(stopped,), daemon=True
        )
        thread.start()
        started.append((thread, connection))
        return board

    yield start
    stopped.set()
    for thread, connection in started:
        thread.join(20)
        connection.api.rest_client.pool_manager.clear()


def test_what_is_there_comes_to_be_changes_and_goes_is_followed(desk: "Desk", follow: Callable[..., Board]) -> None:
    desk.define()
    desk.make("FineTune", "finetunes", "first", SPEC)
    board = follow(connect(desk.kubeconfig, None, "team"))
    _wait(board, lambda shelves: _names(shelves) == ["first"])
    desk.make("FineTune", "finetunes", "second", SPEC, {"phase": "Running"})
    shelves = _wait(board, lambda shelves: _names(shelves) == ["first", "second"] and _phase(shelves) == "Running")
    assert shelves["finetunes"] == Shelf(shelves["finetunes"].objects, loaded=True, problem="")
    desk.connection.ask("DELETE", f"{PATH}/first")
    _wait(board, lambda shelves: _names(shelves) == ["second"])


def _phase(shelves: dict[str, Shelf]) -> object:
    return shelves["finetunes"].objects[("team", "second")].get("status", {}).get("phase")


def test_other_namespaces_are_left_alone_unless_all_are_asked_for(desk: "Desk", follow: Callable[..., Board]) -> None:
    desk.define()
    desk.connection.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    desk.make("FineTune", "finetunes", "here", SPEC)
    made = {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": "there"}, "spec": SPEC}
    desk.connection.ask("POST", PATH.replace("/team/", "/other/"), made)
    one, all_of_them = (follow(connect(desk.kubeconfig, None, "team"), everywhere) for everywhere in (False, True))
    _wait(all_of_them, lambda shelves: _names(shelves) == ["here", "there"])
    assert _names(_wait(one, lambda shelves: shelves["finetunes"].loaded)) == ["here"]


def test_a_cluster_without_codetune_is_told_and_followed_once_it_has_it(
    desk: "Desk", follow: Callable[..., Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codetune_cli.dashboard.following._PAUSE_SECONDS", 0.1)
    board = follow(connect(desk.kubeconfig, None, "team"))
    _wait(board, lambda shelves: "install the Helm chart" in shelves["finetunes"].problem)
    desk.define()
    _wait(board, lambda shelves: shelves["finetunes"] == Shelf(loaded=True))


def test_after_a_lost_connection_what_was_known_stays_and_is_brought_up_to_date(
    desk: "Desk", follow: Callable[..., Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codetune_cli.dashboard.following._PAUSE_SECONDS", 0.1)
    desk.define()
    desk.make("FineTune", "finetunes", "first", SPEC)
    connection = connect(desk.kubeconfig, None, "team")
    board = follow(connection)
    _wait(board, lambda shelves: _names(shelves) == ["first"])
    with monkeypatch.context() as line:
        line.setattr(connection.api.configuration, "host", "http://127.0.0.1:1")
        shelves = _wait(board, lambda shelves: "can't be reached" in shelves["finetunes"].problem)
        assert _names(shelves) == ["first"]
        desk.make("FineTune", "finetunes", "second", SPEC)
        desk.connection.ask("DELETE", f"{PATH}/first")
    _wait(board, lambda shelves: _names(shelves) == ["second"] and not shelves["finetunes"].problem)


def test_a_watch_that_is_too_old_begins_anew(desk: "Desk", monkeypatch: pytest.MonkeyPatch) -> None:
    desk.define()
    desk.make("FineTune", "finetunes", "first", SPEC)
    board, stopped, told, waited = Board(), threading.Event(), 0, list[float]()

    def expire(self: Follower, version: str) -> str:
        nonlocal told
        told += 1
        if told == 2:
            stopped.set()
        raise ApiRefusal(410, "too old resource version")

    # Not at once, lest an API server that always says so is asked for everything as fast as it can answer.
    monkeypatch.setattr(stopped, "wait", waited.append)

    monkeypatch.setattr(Follower, "_watch", expire)
    Follower(desk.connection, "finetunes", False, board).run(stopped)
    assert (told, _names(board.read()[1]), board.read()[1]["finetunes"].problem) == (2, ["first"], "")
    assert waited == [1.0, 1.0]


NONE = b'{"items": [], "metadata": {"resourceVersion": "1"}}'
OTHERS: dict[str, tuple[bytes, bytes, str]] = {
    "no list": (b'{"error": "log in first"}', b"", "answers with something else than a list of finetunes"),
    "no object": (b"null", b"", "answers with something else than a list of finetunes"),
    "no resources": (b'{"items": [{}], "metadata": {"resourceVersion": "1"}}', b"", "something else than a list"),
    "no change": (NONE, b'{"type": "ADDED", "object": null}', "broke off in the middle of a change"),
    "a change of nothing": (NONE, b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "2"}}}', "broke off"),
    "an error in other words": (NONE, b'{"type": "ERROR", "object": "too late"}', "broke off"),
}


@pytest.mark.parametrize("row", OTHERS.values(), ids=OTHERS.keys())
def test_what_answers_in_the_place_of_an_api_server_is_told_and_ends_nothing(
    row: tuple[bytes, bytes, str], follow: Callable[..., Board]
) -> None:
    listed, watched, expected = row

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = watched if "watch=" in self.path else listed
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{server.server_port}"
        board = follow(Connection("team", ApiClient(configuration)))
        _wait(board, lambda shelves: expected in shelves["finetunes"].problem)
        server.shutdown()
