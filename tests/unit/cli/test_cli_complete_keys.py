"""API keys of `kubectl codetune complete`, and teams, whose gateways always ask for one.

Servers are stand-ins behind the API server's real service proxy; one test puts the real gateway before one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.gateway import GatewayConfig, Upstream
from codetune_gateway.app import build_app
from codetune_gateway.ending import Traffic
from codetune_gateway.measuring import Meter
from codetune_gateway.settings import GatewaySettings, Timing
from standin_server import StandinServer, listening

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Obj = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
KEY = "sk-the-key"
STATUS: Obj = {"phase": "Ready", "readyReplicas": 1, "models": ["base", "shop"]}
TEAM: Obj = {"phase": "Ready", "readyReplicas": 1}


@pytest.mark.parametrize("how", ["file", "environment"])
def test_a_key_goes_in_a_header_that_the_proxy_passes_on(
    how: str, desk: "Desk", server: StandinServer, complete: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.deploy(server.port, STATUS, apiKeysSecretRef={"name": "keys"}, service={"port": 9000})
    if how == "environment":
        monkeypatch.setenv("CODETUNE_API_KEY", KEY)
    assert complete("coder", "a.py", *(["--api-key-file", "key"] if how == "file" else []))[0] == 0
    (headers,) = server.headers
    assert headers["x-api-key"] == KEY
    assert "authorization" not in headers


def test_a_key_that_nobody_asks_for_is_not_sent(
    desk: "Desk", server: StandinServer, complete: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.deploy(server.port, STATUS)
    monkeypatch.setenv("CODETUNE_API_KEY", KEY)
    assert complete("coder", "a.py")[0] == 0
    assert "x-api-key" not in server.headers[0]


def test_where_a_key_is_asked_for_and_none_is_given_nothing_is_asked(
    desk: "Desk", server: StandinServer, complete: Run
) -> None:
    desk.deploy(server.port, STATUS, apiKeysSecretRef={"name": "keys"})
    code, _, said = complete("coder", "a.py")
    assert (code, server.questions) == (1, [])
    assert "asks for an API key. Give one with --api-key-file FILE or in the environment variable" in said


# -- teams


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


@pytest.mark.parametrize(
    ("model", "words"), [("default", []), ("project/backend", ["--project", "backend"])], ids=["default", "project"]
)
def test_a_teams_gateway_picks_the_model(
    model: str, words: list[str], desk: "Desk", server: StandinServer, complete: Run
) -> None:
    form_team(desk, server.port)
    code, told, said = complete("--team", "payments", "a.py", "--line", "2", "--api-key-file", "key", *words)
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
    row: tuple[str, Obj, Obj, list[str]], desk: "Desk", server: StandinServer, complete: Run
) -> None:
    expected, status, spec, words = row
    form_team(desk, server.port, status, **spec)
    code, _, said = complete("--team", "payments", "a.py", *words)
    assert (code, server.questions, expected in said) == (1, [], True), said


def test_the_real_gateway_admits_the_key_and_passes_the_answer_on(
    desk: "Desk", server: StandinServer, complete: Run, tmp_path: Path
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/ide").write_text(f"{KEY}\n")
    upstream = Upstream(url=f"http://127.0.0.1:{server.port}", model="shop", deployment="coder")
    settings = GatewaySettings(GatewayConfig(team="payments", default=upstream), tmp_path / "keys", None)
    with listening(build_app(settings, Traffic(), Timing(), Meter("payments"))) as port:
        form_team(desk, port)
        assert complete("--team", "payments", "a.py", "--api-key-file", "key")[:2] == (0, "sum(items)")
        (tmp_path / "key").write_text("sk-another")
        code, _, said = complete("--team", "payments", "a.py", "--api-key-file", "key")
    assert (code, "This is the gateway of the team payments" in said) == (1, True)
    assert [question["model"] for question in server.questions] == ["shop"]
    assert not {"x-api-key", "authorization"} & set(server.headers[0])
