"""Which rights the commands that look and ask need: with these they get through, with one less they say which it is.

Nobody listens where completions are asked for: that a command learns of it shows that the API server let it through.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_cli.main import main

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Obj = dict[str, Any]
STARTED = {"phase": "Succeeded", "startedAt": "2026-11-23T10:00:00Z", "lossHistory": [{"step": 1, "loss": 2.0}]}
READY = {"phase": "Ready", "readyReplicas": 1, "models": ["base"]}


def may(verbs: str, resource: str, group: str = "", name: str = "") -> Obj:
    """One rule of a Role."""
    rule: Obj = {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()}
    return {**rule, "resourceNames": [name]} if name else rule


def may_see(resource: str, verbs: str = "get") -> Obj:
    return may(verbs, resource, "codetune.dev")


RIGHTS: dict[str, tuple[list[str], list[Obj], str, str]] = {
    "plot": (["plot", "coder"], [may_see("finetunes")], "", "FineTune 'coder' can't be read"),
    "plot --follow": (
        ["plot", "coder", "--follow"],
        [may_see("finetunes"), may_see("finetunes", "watch")],
        "",
        "",  # this run has ended, so nothing is watched any more
    ),
    "logs": (
        ["logs", "coder"],
        [may_see("finetunes"), may("list", "pods"), may("get", "pods/log")],
        "",
        "The run's pods can't be read",
    ),
    "complete": (
        ["complete", "coder", __file__],
        [may_see("modeldeployments"), may("create", "services/proxy", name="http:coder:8000")],
        "ModelDeployment 'coder' can't be reached",
        "Ask for `create` on services/proxy of http:coder:8000 in this namespace",
    ),
    "complete --team": (
        ["complete", "--team", "payments", __file__],
        [may_see("teams"), may("create", "services/proxy", name="http:payments-gateway:8000")],
        "The gateway of Team 'payments' can't be reached",
        "Ask for `create` on services/proxy of http:payments-gateway:8000",
    ),
}


@pytest.fixture
def everything(desk: "Desk", monkeypatch: pytest.MonkeyPatch) -> "Desk":
    """A run with a pod, a deployment and a team."""
    monkeypatch.setenv("CODETUNE_API_KEY", "sk-1")
    desk.define()
    desk.make("FineTune", "finetunes", "coder", {"projectRef": {"name": "shop"}, "baseModel": "hf://a/b"}, STARTED)
    desk.make("ModelDeployment", "modeldeployments", "coder", {"baseModel": "hf://a/base"}, READY)
    team = {"apiKeysSecretRef": {"name": "keys"}, "completionModel": {"deploymentRef": {"name": "coder"}}}
    desk.make("Team", "teams", "payments", team, {"phase": "Ready", "readyReplicas": 1})
    for service in ("coder", "payments-gateway"):
        desk.serve_as(service, 8000, 1)
    labels = {"codetune.dev/finetune": "coder", "app.kubernetes.io/component": "train"}
    pod = {"metadata": {"name": "coder-x", "labels": labels}, "spec": {"containers": [{"name": "train", "image": "x"}]}}
    desk.connection.ask("POST", "/api/v1/namespaces/team/pods", pod)
    state = {"name": "train", "image": "x", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"terminated": {"exitCode": 0}}}  # fmt: skip
    desk.patch("pods/coder-x/status", {"status": {"phase": "Succeeded", "containerStatuses": [state]}})
    desk.logs.lines["coder-x/train"] = []
    return desk


@pytest.mark.parametrize("row", RIGHTS.values(), ids=RIGHTS.keys())
def test_these_rights_are_enough(
    row: tuple[list[str], list[Obj], str, str], everything: "Desk", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, rules, outcome, _ = row
    code = main([*words, "--kubeconfig", str(everything.person(tmp_path, *rules)), "-n", "team"])
    said = capsys.readouterr().err
    assert (code, outcome in said, "forbidden" in said) == (int(bool(outcome)), True, False), said


@pytest.mark.parametrize(
    "row", [row for row in RIGHTS.values() if row[3]], ids=[key for key in RIGHTS if RIGHTS[key][3]]
)
def test_the_right_that_is_missing_is_told(
    row: tuple[list[str], list[Obj], str, str], everything: "Desk", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, rules, _, told = row
    code = main([*words, "--kubeconfig", str(everything.person(tmp_path, *rules[:-1])), "-n", "team"])
    said = " ".join(capsys.readouterr().err.split())
    assert (code, told in said, "forbidden" in said) == (1, True, True), said


def test_who_may_read_and_not_watch_is_told_so(
    everything: "Desk", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything.patch("finetunes/coder/status", {"status": {"phase": "Running"}})
    person = everything.person(tmp_path, may_see("finetunes"))
    assert main(["plot", "coder", "--follow", "--kubeconfig", str(person), "-n", "team"]) == 1
    assert "Ask for `watch` on finetunes in this namespace" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("command", "suffices"), [("plot", True), ("logs", True), ("complete", False)])
def test_who_may_view_may_look_and_not_complete(
    command: str, suffices: bool, everything: "Desk", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Kubernetes' own role `view` has it, with what the chart adds."""
    kinds = ("projects", "finetunes", "modeldeployments", "teams")
    own = [may_see(kind, "get list watch") for kind in kinds]
    view = everything.person(tmp_path, *own, may("get list watch", "pods"), may("get list watch", "pods/log"))
    words = [command, "coder", *([__file__] if command == "complete" else [])]
    code = main([*words, "--kubeconfig", str(view), "-n", "team"])
    said = " ".join(capsys.readouterr().err.split())
    assert (code == 0, "the ClusterRole `edit` has it" in said) == (suffices, not suffices), said
