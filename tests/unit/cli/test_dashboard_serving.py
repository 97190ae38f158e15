"""The dashboard's server: who gets an answer, and what."""

import http.client
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_cli.connecting import Connection
from codetune_cli.dashboard.following import Board
from codetune_cli.dashboard.pages import View
from codetune_cli.dashboard.serving import Dashboard
from codetune_cli.dashboard.showing import Wish, show_dashboard
from codetune_cli.showing import Screen
from kubernetes.client import ApiClient

Headers = dict[str, str]
RUN = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "FineTune",
    "metadata": {"name": "tuned", "namespace": "team"},
    "spec": {"projectRef": {"name": "shop"}, "baseModel": "hf://org/base"},
}


@pytest.fixture
def server() -> Iterator[Dashboard]:
    board = Board()
    board.fill("finetunes", [RUN])

    def look() -> View:
        version, shelves = board.read()
        return View(version, "team", shelves, datetime.now(UTC))

    with Dashboard(0, board, look) as dashboard:
        threading.Thread(target=dashboard.serve_forever, args=(0.05,), daemon=True).start()
        yield dashboard
        dashboard.shutdown()


def _ask(server: Dashboard, path: str, headers: Headers | None = None, method: str = "GET") -> tuple[int, Headers, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def _cookie(server: Dashboard) -> Headers:
    return {"Cookie": f"{server.cookie}={server.token}"}


def test_the_printed_address_lets_the_browser_in(server: Dashboard) -> None:
    path = server.url.partition(str(server.server_port))[2]
    status, headers, _ = _ask(server, path)
    assert (status, headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict"} <= set(headers["set-cookie"].split("; "))
    given = headers["set-cookie"].split("; ")[0]
    status, headers, page = _ask(server, "/", {"Cookie": f"other=1; {given}"})
    assert (status, "/finetunes/team/tuned" in page) == (200, True)
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert server.token not in page


def test_what_a_browser_is_started_with_lets_one_in_once(server: Dashboard) -> None:
    """Other users of the machine see the command, and with it the address."""
    path = server.issue_ticket().partition(str(server.server_port))[2]
    assert server.token not in path
    status, headers, _ = _ask(server, path)
    assert (status, headers["set-cookie"].partition(";")[0]) == (303, _cookie(server)["Cookie"])
    assert _ask(server, path)[0] == 403
    assert _ask(server, path, _cookie(server))[0] == 200


def test_a_browser_is_started_without_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("codetune_cli.dashboard.showing.KINDS", ())
    monkeypatch.setattr(Dashboard, "serve_forever", lambda _: None)
    show_dashboard(Wish(everywhere=False, port=0, browser=True), Connection("team", ApiClient()), Screen())
    (address,), printed = opened, capsys.readouterr().out.strip()
    assert address.partition("=")[0] == printed.partition("=")[0]
    assert address != printed


def test_a_page_of_its_own_can_be_opened_at_once(server: Dashboard) -> None:
    _, headers, _ = _ask(server, f"/finetunes/team/tuned?token={server.token}")
    assert headers["location"] == "/finetunes/team/tuned"
    _, headers, _ = _ask(server, f"//elsewhere.example?token={server.token}")
    assert not headers["location"].startswith("//")


NOBODY: dict[str, tuple[int, str, Headers]] = {
    "without a cookie": (403, "/", {}),
    "with a wrong token": (403, "/?token=guess", {}),
    "with a wrong cookie": (403, "/", {"Cookie": "codetune-1=guess"}),
    "with a cookie that is none": (403, "/", {"Cookie": "\x7f;;="}),
    "for changes": (403, "/changes?since=0", {}),
    "for a static file": (403, "/page.js", {}),
}


@pytest.mark.parametrize("row", NOBODY.values(), ids=NOBODY.keys())
def test_nobody_else_gets_an_answer(row: tuple[int, str, Headers], server: Dashboard) -> None:
    expected, path, headers = row
    status, _, text = _ask(server, path, headers)
    assert (status, "tuned" in text) == (expected, False)


@pytest.mark.parametrize(
    "others",
    [
        pytest.param('theme={"dark": true}', id="of JSON"),
        pytest.param("session=a b", id="with a blank"),
        pytest.param("seen", id="without a value"),
        pytest.param("items[]=1", id="with brackets"),
        pytest.param("codetune-1=another", id="of another dashboard"),
    ],
)
def test_cookies_of_other_servers_on_this_machine_are_no_matter(others: str, server: Dashboard) -> None:
    own = _cookie(server)["Cookie"]
    for cookies in (f"{others}; {own}", f"{own}; {others}"):
        assert _ask(server, "/", {"Cookie": cookies})[0] == 200


def test_a_name_that_somebody_lets_point_here_is_not_answered_to(server: Dashboard) -> None:
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1"):
        status, _, _ = _ask(server, "/", {**_cookie(server), "Host": host})
        assert status == 421
    status, _, _ = _ask(server, "/", {**_cookie(server), "Host": f"localhost:{server.server_port}"})
    assert status == 200


def test_it_listens_on_this_machine_alone(server: Dashboard) -> None:
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(method: str, server: Dashboard) -> None:
    assert _ask(server, "/", _cookie(server), method)[0] == 501


@pytest.mark.parametrize(
    "path", ["/finetunes/team/x", "/finetunes/team", "/secrets/team/tuned", "/../etc/passwd", "/a/b/c/d"]
)
def test_an_address_of_nothing_says_so(path: str, server: Dashboard) -> None:
    status, _, text = _ask(server, path, _cookie(server))
    assert (status, "Nothing here" in text) == (404, True)


def test_what_is_no_address_is_refused_in_silence(server: Dashboard, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), 20) as line:
        line.sendall(b"GET http://[ HTTP/1.1\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 400 ")
    assert capfd.readouterr().err == ""


def test_a_page_waits_for_the_next_change(server: Dashboard) -> None:
    version, _ = server.board.read()
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(_ask(server, f"/changes?since={version}", _cookie(server)))
    )
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    server.board.drop("finetunes", RUN)
    waiting.join(20)
    assert [(status, text) for status, _, text in answers] == [(200, str(version + 1))]
    # One that is behind need not wait, whatever it last saw.
    assert _ask(server, f"/changes?since={version}", _cookie(server))[2] == str(version + 1)
    assert _ask(server, "/changes?since=x", _cookie(server))[0] == 400


def test_what_changes_nothing_wakes_nobody(server: Dashboard) -> None:
    before, _ = server.board.read()
    server.board.put("finetunes", RUN)
    server.board.tell("teams", "")
    assert server.board.read()[0] == before
