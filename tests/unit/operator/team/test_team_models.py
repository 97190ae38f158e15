"""Which of a Team's models answer, and what a person reads about those that do not."""

from collections.abc import Sequence
from typing import Any

import pytest
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.team import Team
from codetune_operator.reconcile.team.models import JudgedModel, judge_models
from codetune_operator.reconcile.team.routes import find_routes

Obj = dict[str, Any]
SHOP = {"projectRef": {"name": "shop"}, "completionModel": {"deploymentRef": {"name": "coder"}, "model": "mine"}}


def judge(
    deployments: Sequence[ModelDeployment], *projects: Obj, there: Sequence[str] = ("shop", "app")
) -> dict[str, JudgedModel]:
    """The models of a Team whose default is the base model of `coder`, by project."""
    spec = {
        "apiKeysSecretRef": {"name": "keys"},
        "completionModel": {"deploymentRef": {"name": "coder"}},
        "projects": list(projects),
    }
    metadata = {"name": "web", "namespace": "ns"}
    team = Team.from_wire({"apiVersion": "codetune.dev/v1alpha1", "kind": "Team", "metadata": metadata, "spec": spec})
    found = {deployment.metadata.name: deployment for deployment in deployments}
    return {judged.state.project: judged for judged in judge_models(find_routes(team.spec), found, there)}


def make_mdep(*models: str, ready: str = "", reason: str | None = "Serving", **more: Any) -> ModelDeployment:
    """One that serves these models; `ready` and `reason`: what its condition Ready says, None for nothing yet."""
    happy = reason == "Serving"
    told = {"status": str(happy), "reason": reason, "message": ready, "lastTransitionTime": "2026-11-23T09:00:00Z"}
    status = {
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", **told}] if reason else [],
        "models": list(models),
        "adapters": more.pop("states", []),
    }
    return ModelDeployment.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "coder", "namespace": "ns", "generation": 1},
            "spec": {"baseModel": "pvc://models/base", **more},
            "status": status,
        }
    )


SERVED = make_mdep("base", "mine")


def adapter(phase: str, reason: str = "", message: str = "") -> list[Obj]:
    return [{"name": "mine", "phase": phase, "reason": reason, "message": message}]


MODELS = [
    pytest.param(True, "", [], [SERVED], id="it answers"),
    pytest.param(
        False,
        "DeploymentNotFound",
        ["spec.projects[0].completionModel.deploymentRef", "'coder'", "create it, or correct the name"],
        [],
        id="no deployment",
    ),
    pytest.param(
        False,
        "ModelNotServed",
        ["'coder', which spec.projects[0].completionModel names, serves nothing now: 0 of 1 replicas answer."],
        [make_mdep(ready="0 of 1 replicas answer.", reason="Starting")],
        id="the deployment serves nothing",
    ),
    pytest.param(
        False,
        "ModelNotServed",
        ["serves nothing now: it has not told"],
        [make_mdep(reason=None)],
        id="the deployment is new",
    ),
    pytest.param(
        False,
        "ModelNotServed",
        ["spec.projects[0].completionModel.model is 'mine'", "it serves: base, other. Choose one", "adapter"],
        [make_mdep("base", "other")],
        id="the deployment has others",
    ),
    pytest.param(
        False,
        "ModelNotServed",
        ["'coder'", "does not serve 'mine' now (AdapterPending): FineTune 'f' is Running."],
        [make_mdep("base", states=adapter("Pending", "AdapterPending", "FineTune 'f' is Running."))],
        id="its adapter waits",
    ),
    pytest.param(
        False,
        "ModelNotServed",
        ["does not serve 'mine' now: that adapter is Loading"],
        [make_mdep("base", states=adapter("Loading"))],
        id="its adapter loads",
    ),
    pytest.param(
        False,
        "ModelNotServed",
        ["does not serve 'mine' now (DigestMismatch): Other bytes."],
        [make_mdep(reason="DigestMismatch", states=adapter("Failed", "DigestMismatch", "Other bytes."))],
        id="its adapter failed",
    ),
    pytest.param(
        False,
        "ModelNotServed",
        ["does not serve 'mine' now: Rolling along."],
        [make_mdep("base", ready="Rolling along.", adapters=[{"name": "mine", "uri": "pvc://a/b"}])],
        id="its adapter is new",
    ),
]


@pytest.mark.parametrize(("ready", "reason", "words", "deployments"), MODELS)
def test_a_model_says_whether_it_answers_and_what_to_do(
    ready: bool, reason: str, words: list[str], deployments: list[ModelDeployment]
) -> None:
    found = judge(deployments, SHOP)["shop"].state
    assert (found.deployment, found.model, found.ready, found.reason) == ("coder", "mine", ready, reason)
    for word in words:
        assert word in found.message
    assert ready is not bool(found.message)


def test_models_stand_in_the_order_of_the_spec_with_the_default_first() -> None:
    judged = judge([SERVED], SHOP, {"projectRef": {"name": "app"}})
    assert [(project, entry.state.model, entry.state.ready) for project, entry in judged.items()] == [
        ("", "base", True),
        ("shop", "mine", True),
        ("app", "base", True),
    ]


def test_the_name_of_a_base_model_is_not_known_before_its_deployment_is() -> None:
    assert judge([])[""].state.model == ""


def test_a_project_that_takes_the_teams_model_is_told_of_the_teams_field() -> None:
    message = judge([], {"projectRef": {"name": "app"}})["app"].state.message
    assert message.startswith("spec.completionModel.deploymentRef names ModelDeployment 'coder'")


def test_a_project_that_is_not_there_keeps_its_model() -> None:
    state = judge([SERVED], SHOP, there=["app"])["shop"].state
    assert (state.ready, state.reason) == (True, "ProjectNotFound")
    assert "spec.projects[0].projectRef names Project 'shop', which does not exist" in state.message


def test_a_long_list_of_served_models_is_cut() -> None:
    message = judge([make_mdep("base", *(f"m{number}" for number in range(100)))], SHOP)["shop"].state.message
    assert "m8, …. Choose" in message
