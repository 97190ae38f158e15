"""ModelDeployments on a local cluster: children, conditions, scaling, repair and removal, by the real operator.

Left out: what a server answers. No pod of these tests gets so far: they ask for GPUs that are not there, or for no
replica; the end-to-end tests have the real vLLM.
"""

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]
BASE = "file:///tiny"


def make_mdep(*adapters: Obj, **more: Any) -> Obj:
    spec = {"baseModel": BASE, "adapters": list(adapters), "replicas": 0, "resources": {"gpus": 0}, **more}
    metadata = {"name": "coder"}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": spec}


def make_finetune(name: str, base: str = BASE) -> Obj:
    spec = {"projectRef": {"name": "none"}, "baseModel": base, "resources": {"gpus": 0}}
    metadata = {"name": name}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": metadata, "spec": spec}


def condition(team: "Team", kind: str) -> Obj:
    entries = team.status("mdep", "coder").get("conditions", [])
    return next((dict(entry) for entry in entries if entry["type"] == kind), {})


def adapters(team: "Team") -> dict[str, Obj]:
    return {entry["name"]: entry for entry in team.status("mdep", "coder").get("adapters", [])}


def patch(team: "Team", **spec: Any) -> None:
    team.kubectl("patch", "mdep", "coder", "--type=merge", "-p", json.dumps({"spec": spec}))


KINDS = "deployments,services,configmaps,secrets,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers"


def children(team: "Team") -> dict[str, Obj]:
    """Everything that belongs to the deployment but its pods, by `Kind/name`."""
    found = team.get(KINDS, "-l", "codetune.dev/modeldeployment=coder")["items"]
    return {f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in found}


EXPECTED = {
    "Deployment/coder",
    "Service/coder",
    "NetworkPolicy/coder",
    "ConfigMap/coder-adapters",
    "Secret/coder-adapter-token",
}


def test_children_are_made_repaired_and_removed_with_their_owner(team: "Team") -> None:
    team.apply(make_mdep())
    team.wait_for_phase("mdep", "coder", "Stopped")
    assert condition(team, "Ready")["reason"] == "ScaledToZero"
    assert children(team).keys() == EXPECTED
    endpoint = team.wait_until(lambda: team.status("mdep", "coder").get("endpoint"), "the endpoint is told")
    assert endpoint == f"http://{team.get('service', 'coder')['spec']['clusterIP']}:8000"

    team.kubectl("delete", "service", "coder")
    team.wait_until(lambda: not team.is_gone("service", "coder"), "the Service is made anew")
    team.kubectl("scale", "deployment", "coder", "--replicas=5")
    team.wait_until(
        lambda: team.get("deployment", "coder")["spec"]["replicas"] == 0, "what was changed by hand is put right"
    )

    team.kubectl("delete", "mdep", "coder", "--timeout=60s")
    team.wait_until(lambda: not children(team), "no child is left")


def test_a_change_is_written_only_where_it_belongs(team: "Team") -> None:
    team.apply(make_mdep())
    team.wait_for_phase("mdep", "coder", "Stopped")
    before = {name: obj["metadata"]["resourceVersion"] for name, obj in children(team).items()}
    team.kubectl("annotate", "deployment", "coder", "somebody=else")

    patch(team, engine={"maxLoras": 7})

    def arguments() -> list[str]:
        (server,) = team.get("deployment", "coder")["spec"]["template"]["spec"]["containers"]
        return list(server["args"])

    team.wait_until(lambda: "7" in arguments(), "the pod template has the new option")
    after = children(team)
    for name in EXPECTED - {"Deployment/coder"}:
        assert after[name]["metadata"]["resourceVersion"] == before[name], name
    assert after["Deployment/coder"]["metadata"]["annotations"]["somebody"] == "else"


def test_too_many_gpus_are_told_and_scaling_to_zero_heals(team: "Team") -> None:
    team.apply(make_mdep(replicas=1, resources={"gpus": 64}))

    def told() -> Obj | None:
        status = team.status("mdep", "coder")
        return status if (status.get("failure") or {}).get("reason") == "Unschedulable" else None

    status = team.wait_until(told, "the deployment says that no node fits")
    assert status["phase"] == "Starting"
    assert "64 nvidia.com/gpu" in status["failure"]["message"]
    assert "spec.resources.gpus" in status["failure"]["hint"]
    assert (condition(team, "Ready")["reason"], condition(team, "Available")["status"]) == ("Unschedulable", "False")
    assert "Unschedulable" in team.kubectl("describe", "mdep", "coder")

    team.kubectl("scale", "mdep", "coder", "--replicas=0")

    stopped = team.wait_for_phase("mdep", "coder", "Stopped")
    assert "failure" not in stopped["status"]
    team.kubectl("wait", "--for=condition=Ready", "mdep/coder", "--timeout=30s")


def test_adapters_that_cannot_be_served_say_why(team: "Team") -> None:
    refs = {"pending": "waiting", "foreign": "other", "missing": "nobody"}
    uris = {"outside": "pvc://elsewhere/adapter", "stored": "pvc://codetune-artifacts/some/adapter"}
    team.apply(
        make_finetune("waiting"),
        make_finetune("other", "hf://someone/else"),
        make_mdep(
            *({"name": name, "fineTuneRef": {"name": ref}} for name, ref in refs.items()),
            *({"name": name, "uri": uri} for name, uri in uris.items()),
        ),
    )
    team.wait_for_phase("mdep", "coder", "Stopped")
    team.wait_until(lambda: adapters(team).get("foreign", {}).get("reason") == "AdapterIncompatible", "it is told")

    found = {name: (state["phase"], state.get("reason", "")) for name, state in adapters(team).items()}
    assert found == {
        "pending": ("Pending", "AdapterPending"),
        "foreign": ("Failed", "AdapterIncompatible"),
        "missing": ("Pending", "AdapterPending"),
        "outside": ("Failed", "AdapterUnsupported"),
        "stored": ("Pending", ""),
    }
    assert "hf://someone/else" in adapters(team)["foreign"]["message"]
    assert BASE in adapters(team)["foreign"]["message"]
    desired = json.loads(team.get("configmap", "coder-adapters")["data"]["adapters.json"])
    assert [entry["name"] for entry in desired["adapters"]] == ["stored"]
    assert "AdapterIncompatible" in team.kubectl("describe", "mdep", "coder")


def test_an_adapter_set_changes_without_a_new_pod_template(team: "Team") -> None:
    team.apply(make_mdep({"name": "one", "uri": "pvc://codetune-artifacts/one"}))
    team.wait_for_phase("mdep", "coder", "Stopped")
    before = team.get("deployment", "coder")

    patch(team, adapters=[{"name": "two", "uri": "pvc://codetune-artifacts/two"}])

    def told() -> bool:
        return '"two"' in team.get("configmap", "coder-adapters")["data"]["adapters.json"]

    team.wait_until(told, "the pods' configuration names the other adapter")
    after = team.get("deployment", "coder")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


@pytest.mark.parametrize(
    ("reason", "base"),
    [
        pytest.param("StartError", "hf://org/gated", id="the hub token's Secret is missing"),
        pytest.param("Unschedulable", "pvc://nowhere/model", id="the model's claim is missing"),
    ],
)
def test_a_model_that_cannot_be_reached_is_told(reason: str, base: str, team: "Team") -> None:
    secret = {"modelSecretRef": {"name": "no-such-secret"}} if base.startswith("hf://") else {}
    team.apply(make_mdep(replicas=1, baseModel=base, **secret))

    def told() -> Obj | None:
        failure = team.status("mdep", "coder").get("failure") or {}
        return failure if failure.get("reason") == reason else None

    failure = team.wait_until(told, f"the deployment says {reason}")
    assert "no-such-secret" in failure["message"] or "nowhere" in failure["message"]
    assert failure["hint"]


def test_the_token_of_the_adapter_routes_is_nowhere_but_in_its_secret(team: "Team") -> None:
    team.apply(make_mdep())
    team.wait_for_phase("mdep", "coder", "Stopped")
    token = team.kubectl("get", "secret", "coder-adapter-token", "-o", "go-template={{.data.token | base64decode}}")
    assert len(token) == 64
    shown = team.kubectl("get", "mdep,deployments,services,configmaps,events", "-o", "yaml")
    assert token not in shown
    assert token not in team.installation.log
    assert "cannot" not in team.installation.log  # as in: User "…" cannot list resource "secrets"
