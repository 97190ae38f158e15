"""`kubectl codetune complete`: what is asked of a model's server or a team's gateway, and what becomes of the answer.

The server is a fake one behind the API server's real service proxy; one test puts the real gateway before it.
"""

import asyncio
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from codetune_api.gateway import GatewayConfig, Upstream
from codetune_cli.main import main
from codetune_gateway.app import build_app
from codetune_gateway.ending import Traffic
from codetune_gateway.settings import GatewaySettings, Timing

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Obj = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
TEXT = "def total(items):\n    return \n\nprint(total([]))\n"
KEY = "sk-the-key"
STATUS: Obj = {"phase": "Ready", "readyReplicas": 1, "models": ["base", "shop"]}
TEAM: Obj = {"phase": "Ready", "readyReplicas": 1}


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "text": text}]}).encode()


DONE = b"data: [DONE]"


@dataclass
class FakeServer:
    """The server of a model."""

    port: int = 0
    events: list[bytes] = field(default_factory=lambda: [event("sum("), event("items)"), DONE])
    status: int = 200
    body: bytes = b""
    """In the place of events, where the status is no 200."""
    kind: str = "text/event-stream; charset=utf-8"
    questions: list[Obj] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        self.paths.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.questions.append(await request.json())
        if self.status != 200:
            return web.Response(status=self.status, body=self.body, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": self.kind})
        await response.prepare(request)
        for line in self.events:
            await response.write(line + b"\n\n")
        return response


@contextmanager
def listening(app: web.Application) -> Iterator[int]:
    """An application that is served in a thread; yields its port."""
    loop, runner = asyncio.new_event_loop(), web.AppRunner(app, access_log=None)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A running one."""
    fake, app = FakeServer(), web.Application()
    app.router.add_post("/{rest:.*}", fake.answer)
    with listening(app) as fake.port:
        yield fake


@pytest.fixture
def run(
    desk: "Desk",
    server: FakeServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Run:
    """`run(...)` completes; returns exit code, stdout, and stderr as one line. No key is in what it says."""
    desk.define()
    monkeypatch.delenv("CODETUNE_API_KEY", raising=False)
    (tmp_path / "a.py").write_text(TEXT)
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["complete", *words, "--kubeconfig", str(desk.kubeconfig), "-n", "team"])
        told = capsys.readouterr()
        assert KEY not in told.out + told.err
        return code, told.out, " ".join(told.err.split())

    return call


def deploy(desk: "Desk", server: FakeServer, status: Obj = STATUS, **spec: Any) -> None:
    """A ModelDeployment `coder`."""
    desk.make("ModelDeployment", "modeldeployments", "coder", {"baseModel": "hf://a/base", **spec}, status)
    desk.serve_as("coder", spec.get("service", {}).get("port", 8000), server.port)


def form_team(desk: "Desk", port: int, status: Obj = TEAM, **spec: Any) -> None:
    """A Team `payments`."""
    whole = {
        "apiKeysSecretRef": {"name": "keys"},
        "completionModel": {"deploymentRef": {"name": "coder"}},
        "projects": [{"projectRef": {"name": "backend"}}],
        **spec,
    }
    desk.make("Team", "teams", "payments", {key: value for key, value in whole.items() if value is not None}, status)
    desk.serve_as("payments-gateway", 8000, port)


def test_a_completion_at_a_place_sends_what_stands_behind_it_too(desk: "Desk", server: FakeServer, run: Run) -> None:
    deploy(desk, server)
    code, told, said = run("coder", "a.py", "--line", "2")
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
def test_words_and_options_may_stand_in_any_order(words: list[str], desk: "Desk", server: FakeServer, run: Run) -> None:
    deploy(desk, server)
    assert run(*words)[0] == 0
    assert server.questions[0]["prompt"] == "def total(items):\n    "


def test_a_text_that_is_not_cut_has_nothing_behind_it_and_may_come_from_stdin(
    desk: "Desk", server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(desk, server)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("größe = \r\n".encode())))
    code, _, _ = run("coder", "--max-tokens", "5", "--temperature", "0.5")
    assert code == 0
    assert server.questions == [
        {"model": "shop", "prompt": "größe = \r\n", "max_tokens": 5, "temperature": 0.5, "stream": True}
    ]


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
    row: tuple[list[str], list[str], list[str]], desk: "Desk", server: FakeServer, run: Run
) -> None:
    expected, models, words = row
    deploy(desk, server, {**STATUS, "models": models})
    code, _, said = run("coder", "a.py", *words)
    assert (code, [question["model"] for question in server.questions]) == (0, expected), said


def test_two_models_are_shown_one_after_the_other(desk: "Desk", server: FakeServer, run: Run) -> None:
    deploy(desk, server)
    code, told, said = run("coder", "a.py", "--compare")
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
    row: tuple[str, Obj, list[str]], desk: "Desk", server: FakeServer, run: Run
) -> None:
    expected, status, words = row
    deploy(desk, server, status)
    code, told, said = run("coder", "a.py", *words)
    assert (code, told, server.questions) == (1, "", [])
    assert expected in said


def test_a_deployment_that_is_not_there_names_those_that_are(desk: "Desk", server: FakeServer, run: Run) -> None:
    deploy(desk, server)
    code, _, said = run("codr", "a.py")
    assert (code, "There is no ModelDeployment 'codr'" in said, "There are: coder." in said) == (1, True, True)


@pytest.mark.parametrize(("name", "content"), [("b.py", None), ("b.py", b"\xff\xfe")], ids=["none", "no text"])
def test_a_file_that_can_not_be_read_is_told(
    name: str, content: bytes | None, desk: "Desk", server: FakeServer, run: Run
) -> None:
    deploy(desk, server)
    if content is not None:
        Path(name).write_bytes(content)
    code, _, said = run("coder", name)
    assert code == 1
    assert ("No such file" if content is None else "b.py is no text in UTF-8, from byte 0 on") in said


# -- what comes back


@pytest.mark.parametrize(
    ("said", "events"),
    [
        pytest.param("broke off before its end", [], id="the connection"),
        pytest.param(
            "has broken the answer off: EngineDeadError",
            [b'data: {"error": {"message": "EngineDeadError"}}'],
            id="the server",
        ),
        pytest.param("something else than a completion", [b"data: <html>"], id="nonsense"),
    ],
)
def test_what_came_of_an_answer_that_broke_off_is_kept(
    said: str, events: list[bytes], desk: "Desk", server: FakeServer, run: Run
) -> None:
    deploy(desk, server)
    server.events = [event("sum("), *events]
    code, told, error = run("coder", "a.py")
    assert (code, told, said in error) == (1, "sum(", True), error


def test_comments_and_events_about_usage_are_no_text(desk: "Desk", server: FakeServer, run: Run) -> None:
    deploy(desk, server)
    server.events = [b": ping", event("a"), b"event: x", b'data: {"choices": [], "usage": {"total_tokens": 3}}', DONE]
    assert run("coder", "a.py")[:2] == (0, "a")


@pytest.mark.parametrize(
    ("is_terminal", "expected"),
    [
        pytest.param(False, "\tx\x1b[2J\n\ud83d".encode("utf-8", "replace").decode(), id="a file"),
        pytest.param(True, "\tx\\x1b[2J\n?\n", id="a terminal"),
    ],
)
def test_code_goes_to_a_file_as_it_is_and_steers_no_terminal(
    is_terminal: bool, expected: str, desk: "Desk", server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codetune_cli.showing.Screen.is_terminal", is_terminal)
    deploy(desk, server)
    server.events = [event("\tx\x1b[2J\n"), event("\ud83d"), DONE]
    assert run("coder", "a.py")[:2] == (0, expected)


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
    row: tuple[str, int, bytes], desk: "Desk", server: FakeServer, run: Run
) -> None:
    expected, server.status, server.body = row
    deploy(desk, server)
    code, told, said = run("coder", "a.py")
    assert (code, told) == (1, "")
    assert expected in said


def test_a_service_that_nobody_stands_behind_is_no_matter_of_networks(
    desk: "Desk", server: FakeServer, run: Run
) -> None:
    deploy(desk, server)
    path = "/apis/discovery.k8s.io/v1/namespaces/team/endpointslices/coder-1"
    desk.connection.ask("DELETE", path)
    code, _, said = run("coder", "a.py")
    assert (code, 'no endpoints available for service "coder"' in said, "NetworkPolicy" in said) == (1, True, False)


def test_what_answers_with_a_page_is_no_server(desk: "Desk", server: FakeServer, run: Run) -> None:
    deploy(desk, server)
    server.kind = "text/html"
    code, told, said = run("coder", "a.py")
    assert (code, told, "answers with text/html and not as a model's server does" in said) == (1, "", True)


# -- keys


@pytest.mark.parametrize("how", ["file", "environment"])
def test_a_key_goes_in_a_header_that_the_proxy_passes_on(
    how: str, desk: "Desk", server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(desk, server, apiKeysSecretRef={"name": "keys"}, service={"port": 9000})
    if how == "environment":
        monkeypatch.setenv("CODETUNE_API_KEY", KEY)
    assert run("coder", "a.py", *(["--api-key-file", "key"] if how == "file" else []))[0] == 0
    (headers,) = server.headers
    assert headers["x-api-key"] == KEY
    assert "authorization" not in headers


def test_a_key_that_nobody_asks_for_is_not_sent(
    desk: "Desk", server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(desk, server)
    monkeypatch.setenv("CODETUNE_API_KEY", KEY)
    assert run("coder", "a.py")[0] == 0
    assert "x-api-key" not in server.headers[0]


def test_where_a_key_is_asked_for_and_none_is_given_nothing_is_asked(
    desk: "Desk", server: FakeServer, run: Run
) -> None:
    deploy(desk, server, apiKeysSecretRef={"name": "keys"})
    code, _, said = run("coder", "a.py")
    assert (code, server.questions) == (1, [])
    assert "asks for an API key. Give one with --api-key-file FILE or in the environment variable" in said


# -- teams


@pytest.mark.parametrize(
    ("model", "words"), [("default", []), ("project/backend", ["--project", "backend"])], ids=["default", "project"]
)
def test_a_teams_gateway_picks_the_model(
    model: str, words: list[str], desk: "Desk", server: FakeServer, run: Run
) -> None:
    form_team(desk, server.port)
    code, told, said = run("--team", "payments", "a.py", "--line", "2", "--api-key-file", "key", *words)
    assert (code, told) == (0, "sum(items)"), said
    assert (server.questions[0]["model"], server.headers[0]["x-api-key"]) == (model, KEY)
    assert server.questions[0]["suffix"].startswith("\n\nprint")


TEAMS: dict[str, tuple[str, Obj, Obj, list[str]]] = {
    "no key": ("The gateway of Team 'payments' asks for an API key.", TEAM, {}, []),
    "no such project": ("has no project 'web'. Its projects are: backend.", TEAM, {}, ["--project", "web"]),
    "no default": (
        "has no model for all projects: name one with --project. Its projects are: backend.",
        TEAM,
        {"completionModel": None, "projects": [
            {"projectRef": {"name": "backend"}, "completionModel": {"deploymentRef": {"name": "coder"}}}]},
        [],
    ),
    "no gateway": ("The gateway of Team 'payments' answers nobody now.", {"phase": "Pending"}, {}, []),
    "a model that is not served": (
        "is not served now: there is no ModelDeployment coder",
        {**TEAM, "models": [{"project": "", "deployment": "coder", "ready": False,
                             "message": "there is no ModelDeployment coder"}]},
        {},
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", TEAMS.values(), ids=TEAMS.keys())
def test_what_a_team_lacks_is_told_beforehand(
    row: tuple[str, Obj, Obj, list[str]], desk: "Desk", server: FakeServer, run: Run
) -> None:
    expected, status, spec, words = row
    form_team(desk, server.port, status, **spec)
    code, _, said = run("--team", "payments", "a.py", *words)
    assert (code, server.questions, expected in said) == (1, [], True), said


def test_the_real_gateway_admits_the_key_and_passes_the_answer_on(
    desk: "Desk", server: FakeServer, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/ide").write_text(f"{KEY}\n")
    upstream = Upstream(url=f"http://127.0.0.1:{server.port}", model="shop", deployment="coder")
    settings = GatewaySettings(GatewayConfig(team="payments", default=upstream), tmp_path / "keys", None)
    with listening(build_app(settings, Traffic(), Timing())) as port:
        form_team(desk, port)
        assert run("--team", "payments", "a.py", "--api-key-file", "key")[:2] == (0, "sum(items)")
        (tmp_path / "key").write_text("sk-another")
        code, _, said = run("--team", "payments", "a.py", "--api-key-file", "key")
    assert (code, "This is the gateway of the team payments" in said) == (1, True)
    assert [question["model"] for question in server.questions] == ["shop"]
    assert not {"x-api-key", "authorization"} & set(server.headers[0])


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
