"""`kubectl codetune complete MODELDEPLOYMENT`: what is asked of a model's server, and what becomes of the answer.

The server is a stand-in behind the API server's real service proxy.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_cli.main import main
from standin_server import DONE, StandinServer, event

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Obj = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
STATUS: Obj = {"phase": "Ready", "readyReplicas": 1, "models": ["base", "shop"]}


def test_a_completion_at_a_place_sends_what_stands_behind_it_too(
    desk: "Desk", server: StandinServer, complete: Run
) -> None:
    desk.deploy(server.port, STATUS)
    code, told, said = complete("coder", "a.py", "--line", "2")
    assert (code, told, said) == (0, "sum(items)", "Model: shop")
    assert server.paths == ["/v1/completions"]
    assert server.questions == [
        {"model": "shop", "prompt": "def total(items):\n    return ", "suffix": "\n\nprint(total([]))\n",
         "max_tokens": 128, "temperature": 0.0, "stream": True},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["coder", "a.py", "--line", "2", "--column", "5"],
        ["coder", "--line", "2", "a.py", "--column", "5"],
        ["--column", "5", "--line", "2", "coder", "a.py"],
        ["--line", "2", "coder", "--column", "5", "a.py"],
    ],
    ids=" ".join,
)
def test_words_and_options_may_stand_in_any_order(
    words: list[str], desk: "Desk", server: StandinServer, complete: Run
) -> None:
    desk.deploy(server.port, STATUS)
    assert complete(*words)[0] == 0
    assert server.questions[0]["prompt"] == "def total(items):\n    "


def test_a_text_that_is_not_cut_has_nothing_behind_it_and_may_come_from_stdin(
    desk: "Desk", server: StandinServer, complete: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.deploy(server.port, STATUS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("größe = \r\n".encode())))
    code, _, _ = complete("coder", "--max-tokens", "5", "--temperature", "0.5")
    assert code == 0
    assert server.questions == [
        {"model": "shop", "prompt": "größe = \r\n", "max_tokens": 5, "temperature": 0.5, "stream": True}
    ]


def test_a_byte_order_mark_is_no_column_of_the_text(
    desk: "Desk", server: StandinServer, complete: Run, tmp_path: Path
) -> None:
    desk.deploy(server.port, STATUS)
    (tmp_path / "a.py").write_text("import os\n", encoding="utf-8-sig")
    assert complete("coder", "a.py", "--line", "1", "--column", "8")[0] == 0
    assert (server.questions[0]["prompt"], server.questions[0]["suffix"]) == ("import ", "os\n")


MODELS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "no adapter: the base model": (["base"], ["base"], []),
    "the only adapter": (["shop"], ["base", "shop"], []),
    "several adapters: the base model": (["base"], ["base", "shop", "site"], []),
    "by name": (["site"], ["base", "shop", "site"], ["--model", "site"]),
    "the base model by name": (["base"], ["base", "shop"], ["--model", "base"]),
    "both": (["base", "shop"], ["base", "shop"], ["--compare"]),
    "both, of several": (["base", "site"], ["base", "shop", "site"], ["--compare", "--model", "site"]),
}


@pytest.mark.parametrize("row", MODELS.values(), ids=MODELS.keys())
def test_which_models_are_asked(
    row: tuple[list[str], list[str], list[str]], desk: "Desk", server: StandinServer, complete: Run
) -> None:
    expected, models, words = row
    desk.deploy(server.port, {**STATUS, "models": models})
    code, _, said = complete("coder", "a.py", *words)
    assert (code, [question["model"] for question in server.questions]) == (0, expected), said


def test_two_models_are_shown_one_after_the_other(desk: "Desk", server: StandinServer, complete: Run) -> None:
    desk.deploy(server.port, STATUS)
    code, told, said = complete("coder", "a.py", "--compare")
    assert (code, told, said) == (0, "==> base <==\nsum(items)\n==> shop <==\nsum(items)\n", "")


ADAPTER = {"name": "site", "phase": "Held", "message": "its improvement is 0.01"}
REFUSED: dict[str, tuple[str, Obj, list[str]]] = {
    "not ready": (
        "ModelDeployment 'coder' answers nobody now. Starting: a replica loads its model",
        {"conditions": [{"type": "Ready", "status": "False", "reason": "Starting",
                         "message": "a replica loads its model", "lastTransitionTime": "2026-11-23T10:00:00Z"}]},
        [],
    ),
    "no such model": ("serves no model 'shp' now. There are: base, shop.", STATUS, ["--model", "shp"]),
    "an adapter that is not served": (
        "serves no model 'site' now. That adapter is Held: its improvement is 0.01 There are: base, shop.",
        {**STATUS, "adapters": [ADAPTER]},
        ["--model", "site"],
    ),
    "nothing to compare with": (
        "--compare asks the base model and an adapter: name one with --model. There are: base, a, b.",
        {**STATUS, "models": ["base", "a", "b"]},
        ["--compare"],
    ),
    "no such place": ("There is no line 9", STATUS, ["--line", "9"]),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED.keys())
def test_what_can_be_known_beforehand_is_not_asked(
    row: tuple[str, Obj, list[str]], desk: "Desk", server: StandinServer, complete: Run
) -> None:
    expected, status, words = row
    desk.deploy(server.port, status)
    code, told, said = complete("coder", "a.py", *words)
    assert (code, told, server.questions) == (1, "", [])
    assert expected in said


def test_a_deployment_that_is_not_there_names_those_that_are(
    desk: "Desk", server: StandinServer, complete: Run
) -> None:
    desk.deploy(server.port, STATUS)
    code, _, said = complete("codr", "a.py")
    assert (code, "There is no ModelDeployment 'codr'" in said, "There are: coder." in said) == (1, True, True)


@pytest.mark.parametrize(("name", "content"), [("b.py", None), ("b.py", b"\xff\xfe")], ids=["none", "no text"])
def test_a_file_that_can_not_be_read_is_told(
    name: str, content: bytes | None, desk: "Desk", server: StandinServer, complete: Run
) -> None:
    desk.deploy(server.port, STATUS)
    if content is not None:
        Path(name).write_bytes(content)
    code, _, said = complete("coder", name)
    assert code == 1
    assert ("No such file" if content is None else "b.py is no text in UTF-8, from byte 0 on") in said


# -- what comes back


@pytest.mark.parametrize(
    ("said", "events"),
    [
        pytest.param("broke off before its end. What came until then is not the whole", [], id="the connection"),
        pytest.param(
            "has broken the answer off: EngineDeadError",
            [b'data: {"error": {"message": "EngineDeadError"}}'],
            id="the server",
        ),
        pytest.param("something else than a completion", [b"data: <html>"], id="nonsense"),
    ],
)
def test_what_came_of_an_answer_that_broke_off_is_kept(
    said: str, events: list[bytes], desk: "Desk", server: StandinServer, complete: Run
) -> None:
    desk.deploy(server.port, STATUS)
    server.events = [event("sum("), *events]
    code, told, error = complete("coder", "a.py")
    assert (code, told, said in error) == (1, "sum(", True), error


def test_comments_and_events_about_usage_are_no_text(desk: "Desk", server: StandinServer, complete: Run) -> None:
    desk.deploy(server.port, STATUS)
    server.events = [b": ping", event("a"), b"event: x", b'data: {"choices": [], "usage": {"total_tokens": 3}}', DONE]
    assert complete("coder", "a.py")[:2] == (0, "a")


@pytest.mark.parametrize(
    ("is_terminal", "expected"),
    [
        pytest.param(False, "\tx\x1b[2J\n\ud83d".encode("utf-8", "replace").decode(), id="a file"),
        pytest.param(True, "\tx\\x1b[2J\n?\n", id="a terminal"),
    ],
)
def test_code_goes_to_a_file_as_it_is_and_steers_no_terminal(
    is_terminal: bool,
    expected: str,
    desk: "Desk",
    server: StandinServer,
    complete: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("codetune_cli.showing.Screen.is_terminal", is_terminal)
    desk.deploy(server.port, STATUS)
    server.events = [event("\tx\x1b[2J\n"), event("\ud83d"), DONE]
    assert complete("coder", "a.py")[:2] == (0, expected)


def test_on_a_terminal_line_breaks_of_windows_are_line_breaks(
    desk: "Desk", server: StandinServer, complete: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codetune_cli.showing.Screen.is_terminal", True)
    desk.deploy(server.port, STATUS)
    server.events = [event("a\r\nb\r"), event("\nc\rd"), event("\r"), DONE]
    assert complete("coder", "a.py")[:2] == (0, "a\nb\nc\\rd\\r\n")


def openai(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "t", "param": None, "code": "c"}}).encode()


def kubernetes(code: int, message: str) -> bytes:
    return json.dumps({"kind": "Status", "apiVersion": "v1", "code": code, "message": message}).encode()


ANSWERS: dict[str, tuple[str, int, bytes]] = {
    "the server: another key": (
        "refuses (HTTP 401): give a valid one Give one with --api-key-file FILE or in the environment variable",
        401, openai("give a valid one"),
    ),
    "the server: closed": ("refuses (HTTP 403): /v1/x is closed", 403, openai("/v1/x is closed")),
    "the server: unknown model": ("refuses (HTTP 404): The model `x` does not exist.", 404,
                                  openai("The model `x` does not exist.")),
    "the gateway: too many": ("refuses (HTTP 429): ask again in 3.0 s", 429, openai("ask again in 3.0 s")),
    "the API server: who is that": ("credentials of the kubeconfig are refused", 401, kubernetes(401, "Unauthorized")),
    "the API server: no right": (
        "You may not ask ModelDeployment 'coder': no. Ask for `create` on services/proxy of http:coder:8000",
        403, kubernetes(403, "no"),
    ),
    "the API server: too many": ("The API server has too much to do now: slow down", 429, kubernetes(429, "slow down")),
    "the API server: no way": (
        "can't be reached (HTTP 503): error trying to reach service: dial tcp: i/o timeout. Its NetworkPolicy may",
        503, kubernetes(503, "error trying to reach service: dial tcp: i/o timeout"),
    ),
    "something between": ("can't be reached (HTTP 504): <h1>Timeout</h1>.", 504, b"<h1>Timeout</h1>"),
}  # fmt: skip


@pytest.mark.parametrize("row", ANSWERS.values(), ids=ANSWERS.keys())
def test_a_refusal_is_told_in_the_words_of_who_refuses_and_with_its_cure(
    row: tuple[str, int, bytes], desk: "Desk", server: StandinServer, complete: Run
) -> None:
    expected, server.status, server.body = row
    desk.deploy(server.port, STATUS)
    code, told, said = complete("coder", "a.py")
    assert (code, told) == (1, "")
    assert expected in said


def test_a_service_that_nobody_stands_behind_is_no_matter_of_networks(
    desk: "Desk", server: StandinServer, complete: Run
) -> None:
    desk.deploy(server.port, STATUS)
    path = "/apis/discovery.k8s.io/v1/namespaces/team/endpointslices/coder-1"
    desk.connection.ask("DELETE", path)
    code, _, said = complete("coder", "a.py")
    assert (code, 'no endpoints available for service "coder"' in said, "NetworkPolicy" in said) == (1, True, False)


def test_what_answers_with_a_page_is_no_server(desk: "Desk", server: StandinServer, complete: Run) -> None:
    desk.deploy(server.port, STATUS)
    server.kind = "text/html"
    code, told, said = complete("coder", "a.py")
    assert (code, told, "answers with text/html and not as a model's server does" in said) == (1, "", True)


WRONG: dict[str, tuple[str, list[str]]] = {
    "nobody to ask": ("name a ModelDeployment, or give --team TEAM", []),
    "two files": ("what is 'b.py'?", ["coder", "a.py", "b.py"]),
    "two files of a team": ("what is 'b.py'?", ["--team", "payments", "a.py", "b.py"]),
    "a column of no line": ("--column is of no line", ["coder", "--column", "3"]),
    "a project of no team": ("--project belongs to --team", ["coder", "--project", "x"]),
    "a model of a team": ("the gateway of a team picks the model", ["--team", "payments", "--model", "x"]),
    "a comparison in a team": ("the gateway of a team picks the model", ["--team", "payments", "--compare"]),
    "no tokens": ("'0' is no number of tokens", ["coder", "--max-tokens", "0"]),
    "a key on the command line": ("what is '--api-key", ["coder", "--api-key=sk-1"]),
}


@pytest.mark.parametrize("row", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_command_line_is_told_and_ends_with_2(
    row: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    expected, words = row
    with pytest.raises(SystemExit) as ended:
        main(["complete", *words])
    assert (ended.value.code, expected in capsys.readouterr().err) == (2, True)
