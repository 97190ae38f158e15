"""Teams on a local cluster: children, conditions, repair and removal, by the real operator; and a gateway's keys.

Left out: what a gateway answers to completions, and models that are served: no pod of a ModelDeployment gets so far
here. The tests of the gateway itself and the end-to-end tests have them.
"""

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]
BASE = "file:///tiny"
KINDS = "deployments,services,configmaps,networkpolicies,poddisruptionbudgets"
EXPECTED = {
    "ConfigMap/web-gateway",
    "Deployment/web-gateway",
    "NetworkPolicy/web-gateway",
    "Service/web-gateway",
}


def make(kind: str, name: str, spec: Obj) -> Obj:
    metadata = {"name": name}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def make_team(*projects: Obj, **more: Any) -> Obj:
    spec = {
        "apiKeysSecretRef": {"name": "web-keys"},
        "completionModel": completes("coder"),
        "projects": list(projects),
        "replicas": 0,
        **more,
    }
    return make("Team", "web", spec)


def make_mdep(name: str = "coder", **more: Any) -> Obj:
    return make("ModelDeployment", name, {"baseModel": BASE, "replicas": 0, "resources": {"gpus": 0}, **more})


def completes(deployment: str, model: str | None = None) -> Obj:
    return {"deploymentRef": {"name": deployment}, **({"model": model} if model else {})}


def patch(team: "Team", **spec: Any) -> None:
    team.kubectl("patch", "cteam", "web", "--type=merge", "-p", json.dumps({"spec": spec}))


def children(team: "Team") -> dict[str, Obj]:
    """Everything that belongs to the Team but its pods, by `Kind/name`."""
    found = team.get(KINDS, "-l", "codetune.dev/team=web")["items"]
    return {f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in found}


def condition(team: "Team", kind: str) -> Obj:
    entries = team.status("cteam", "web").get("conditions", [])
    return next((dict(entry) for entry in entries if entry["type"] == kind), {})


def models(team: "Team") -> dict[str, Obj]:
    return {entry["project"]: entry for entry in team.status("cteam", "web").get("models", [])}


def config(team: "Team") -> Obj:
    """What the gateway is told now."""
    found: Obj = json.loads(team.get("configmap", "web-gateway")["data"]["config.json"])
    return found


def digest(team: "Team") -> str:
    """What new pods are told apart by."""
    annotations = team.get("deployment", "web-gateway")["spec"]["template"]["metadata"]["annotations"]
    return str(annotations["codetune.dev/config-digest"])


def test_children_are_made_repaired_and_removed_with_their_owner(team: "Team") -> None:
    team.apply(make_team())
    team.wait_for_phase("cteam", "web", "Stopped")
    assert condition(team, "Ready")["reason"] == "ScaledToZero"
    assert children(team).keys() == EXPECTED
    endpoint = team.wait_until(lambda: team.status("cteam", "web").get("endpoint"), "the endpoint is told")
    assert endpoint == f"http://{team.get('service', 'web-gateway')['spec']['clusterIP']}:8000"

    for kind in ("service", "deployment", "networkpolicy"):
        team.kubectl("delete", kind, "web-gateway")
        team.wait_until(lambda kind=kind: not team.is_gone(kind, "web-gateway"), f"the {kind} is made anew")
    team.kubectl("scale", "deployment", "web-gateway", "--replicas=5")
    team.wait_until(
        lambda: team.get("deployment", "web-gateway")["spec"]["replicas"] == 0, "what was changed by hand is put right"
    )

    team.kubectl("delete", "cteam", "web", "--timeout=60s")
    team.wait_until(lambda: not children(team), "no child is left")


def test_what_is_missing_is_waited_for_and_moves_on_when_it_comes(team: "Team") -> None:
    team.apply(make_team({"projectRef": {"name": "shop"}, "completionModel": completes("coder", "mine")}))
    team.wait_until(lambda: models(team), "the models are told")
    assert {project: model["reason"] for project, model in models(team).items()} == {
        "": "DeploymentNotFound",
        "shop": "DeploymentNotFound",
    }
    assert (
        "spec.projects[0].completionModel.deploymentRef names ModelDeployment 'coder'"
        in models(team)["shop"]["message"]
    )
    assert config(team)["default"]["url"] is None

    team.apply(make_mdep(adapters=[{"name": "mine", "fineTuneRef": {"name": "none"}}]))

    team.wait_until(lambda: models(team)[""]["reason"] == "ModelNotServed", "the Team has seen the ModelDeployment")
    assert models(team)[""]["model"] == "tiny"
    team.wait_until(lambda: (config(team)["default"] or {}).get("url"), "the gateway is told where")
    assert config(team)["default"]["url"] == f"http://{team.get('service', 'coder')['spec']['clusterIP']}:8000"
    assert config(team)["default"]["model"] == "tiny"
    assert config(team)["projects"]["shop"]["model"] == "mine"

    team.kubectl("delete", "mdep", "coder", "--timeout=60s")
    team.wait_until(lambda: models(team)[""]["reason"] == "DeploymentNotFound", "the Team has seen it go")


def secrets(team: "Team") -> set[str]:
    """Names of the Secrets that the gateway's pods mount."""
    pod = team.get("deployment", "web-gateway")["spec"]["template"]["spec"]
    return {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}


def test_a_change_of_routes_is_a_change_of_configuration_and_of_pods(team: "Team") -> None:
    team.apply(make_mdep(), make_team())
    team.wait_for_phase("cteam", "web", "Stopped")
    team.wait_until(lambda: (config(team)["default"] or {}).get("url"), "the gateway is told where")
    before = digest(team)

    patch(team, projects=[{"projectRef": {"name": "shop"}}], limits={"requestsPerMinute": 120})

    team.wait_until(lambda: digest(team) != before, "the pods have another configuration")
    assert config(team)["projects"]["shop"] == config(team)["default"]
    assert config(team)["requestsPerMinute"] == 120
    team.kubectl("patch", "mdep", "coder", "--type=merge", "-p", '{"spec": {"apiKeysSecretRef": {"name": "inner"}}}')
    team.wait_until(lambda: config(team)["default"].get("keys") == "inner", "the gateway is told whose keys")
    team.wait_until(lambda: "inner" in secrets(team), "the pods have these keys")


def test_policies_are_there_only_when_asked_for(team: "Team") -> None:
    team.apply(make_team())
    team.wait_until(lambda: "NetworkPolicy/web-gateway" in children(team), "the NetworkPolicy is made")
    patch(team, networkPolicy={"enabled": False})
    team.wait_until(lambda: "NetworkPolicy/web-gateway" not in children(team), "the NetworkPolicy is gone")


def test_a_name_that_a_deployment_has_already_is_not_taken_from_it(team: "Team") -> None:
    team.apply(make_mdep("web-gateway"))
    team.wait_for_phase("mdep", "web-gateway", "Stopped")
    team.apply(make_team())

    team.wait_until(lambda: condition(team, "Stalled").get("reason") == "NameTaken", "the Team says whose it is")
    assert "belongs to ModelDeployment 'web-gateway'" in condition(team, "Ready")["message"]
    labels = team.get("deployment", "web-gateway")["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "server"

    team.kubectl("delete", "mdep", "web-gateway", "--timeout=60s")
    team.wait_until(lambda: children(team).keys() == EXPECTED, "the gateway is made", 120)


@pytest.mark.parametrize("order", ["keys first", "keys last"])
def test_a_gateway_admits_somebody_once_there_are_keys(order: str, team: "Team") -> None:
    def make_keys() -> None:
        team.kubectl("create", "secret", "generic", "web-keys", "--from-literal=keys=0123456789abcdef0123456789abcdef")

    if order == "keys first":
        make_keys()
    team.apply(make_team(replicas=1))
    if order == "keys last":
        team.wait_until(lambda: condition(team, "Stalled").get("reason") == "NoApiKeys", "nobody is admitted")
        assert "Secret 'web-keys'" in condition(team, "Ready")["message"]
        assert condition(team, "Available")["status"] == "False"
        make_keys()

    team.wait_until(lambda: condition(team, "Available").get("status") == "True", "the gateway answers", 100)
    assert condition(team, "Ready")["reason"] == "DeploymentNotFound"
    assert team.status("cteam", "web")["readyReplicas"] == 1


def test_two_gateways_have_a_budget_and_share_the_limit(team: "Team") -> None:
    team.kubectl("create", "secret", "generic", "web-keys", "--from-literal=keys=0123456789abcdef0123456789abcdef")
    team.apply(make_team(replicas=2, limits={"requestsPerMinute": 100}))
    team.wait_until(lambda: children(team).keys() == {*EXPECTED, "PodDisruptionBudget/web-gateway"}, "all is made")
    assert config(team)["requestsPerMinute"] == 50
    patch(team, replicas=1)
    team.wait_until(lambda: "PodDisruptionBudget/web-gateway" not in children(team), "the budget is gone")
    assert config(team)["requestsPerMinute"] == 100
