"""What surrounds a ModelDeployment on a local cluster, and what its CRD refuses, with the words that a person reads."""

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]
BASE = "file:///tiny"


def make_mdep(**more: Any) -> Obj:
    # More GPUs than there are: no pod gets so far as to start vLLM.
    spec = {"baseModel": BASE, "replicas": 0, "resources": {"gpus": 64}, **more}
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "coder"},
        "spec": spec,
    }


def patch(team: "Team", **spec: Any) -> None:
    team.kubectl("patch", "mdep", "coder", "--type=merge", "-p", json.dumps({"spec": spec}))


def is_there(team: "Team", kind: str) -> bool:
    return not team.is_gone(kind, "coder")


def test_policies_come_and_go_with_the_spec(team: "Team") -> None:
    team.apply(make_mdep())
    team.wait_for_phase("mdep", "coder", "Stopped")
    assert is_there(team, "networkpolicy")
    assert not is_there(team, "pdb")
    assert not is_there(team, "hpa")

    patch(team, replicas=2, autoscaling={"minReplicas": 2, "maxReplicas": 4})
    team.wait_until(lambda: is_there(team, "pdb") and is_there(team, "hpa"), "budget and autoscaler are made")
    target = team.get("hpa", "coder")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("ModelDeployment", "coder")

    team.kubectl("delete", "pdb", "coder")
    team.wait_until(lambda: is_there(team, "pdb"), "the budget is made anew")
    team.kubectl("scale", "mdep", "coder", "--replicas=3")
    team.wait_until(
        lambda: team.get("deployment", "coder")["spec"]["replicas"] == 3, "the Deployment follows the scale"
    )
    scale = json.loads(team.kubectl("get", "--raw", scale_path(team)))
    assert scale["spec"]["replicas"] == 3
    assert "codetune.dev/modeldeployment=coder" in scale["status"]["selector"]

    patch(team, replicas=1, autoscaling=None, networkPolicy={"enabled": False})
    team.wait_until(
        lambda: not any(is_there(team, kind) for kind in ("pdb", "hpa", "networkpolicy")), "all of them are removed"
    )
    team.kubectl("delete", "mdep", "coder", "--timeout=60s")
    assert "cannot" not in team.installation.log  # as in: User "…" cannot list resource "secrets"


def scale_path(team: "Team") -> str:
    return f"/apis/codetune.dev/v1alpha1/namespaces/{team.name}/modeldeployments/coder/scale"


REFUSED = [
    pytest.param("set engine.maxModelLen", {"engine": {"extraArgs": ["--max-model-len", "8"]}}, id="owned argument"),
    pytest.param("--middleware: remove it", {"engine": {"extraArgs": ["--middleware=x.y"]}}, id="middleware"),
    pytest.param("maxCpuLoras must not be smaller", {"engine": {"maxLoras": 8, "maxCpuLoras": 4}}, id="CPU adapters"),
    pytest.param(
        "minReplicas must not be larger", {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, id="replicas"
    ),
    pytest.param("the operator sets this variable", {"env": [{"name": "VLLM_API_KEY", "value": "x"}]}, id="variable"),
    pytest.param(
        "give value or valueFrom",
        {"env": [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        id="two values",
    ),
    pytest.param("exactly one of secretKeyRef", {"env": [{"name": "A", "valueFrom": {}}]}, id="no source"),
    pytest.param(
        "values belong to the operators",
        {"adapterSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        id="no values",
    ),
    pytest.param("adapterCacheSize", {"adapterCacheSize": "a lot"}, id="quantity"),
]


@pytest.mark.parametrize(("sentence", "spec"), REFUSED)
def test_mistakes_are_refused_by_kubectl_apply(sentence: str, spec: Obj, team: "Team") -> None:
    with pytest.raises(AssertionError, match=sentence):
        team.apply(make_mdep(**spec))


def test_everything_that_may_stand_in_a_spec_is_accepted(team: "Team") -> None:
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    team.apply(
        make_mdep(
            adapterSelector={
                "matchLabels": {"team": "x"},
                "matchExpressions": [{"key": "stage", "operator": "NotIn", "values": ["draft"]}],
                "checkpoint": "latest",
                "minImprovement": 0.01,
            },
            adapterCacheSize="5Gi",
            engine={"maxLoras": 2, "maxCpuLoras": 8, "extraArgs": ["--seed", "1", "--enable-prefix-caching"]},
            networkPolicy={"allowNamespaces": ["monitoring"]},
            apiKeysSecretRef={"name": "keys"},
            env=[{"name": "A", "value": "b"}, {"name": "B", "valueFrom": source}],
            image="codetune-server:mine",
            imagePullSecrets=[{"name": "registry"}],
            startupTimeoutSeconds=3600,
            terminationGracePeriodSeconds=300,
        )
    )
    team.wait_for_phase("mdep", "coder", "Stopped")
    deployment = team.get("deployment", "coder")
    assert deployment["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def make_finetune(name: str, labels: dict[str, str]) -> Obj:
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": name, "labels": labels},
        "spec": {"projectRef": {"name": "none"}, "baseModel": BASE, "resources": {"gpus": 0}},
    }


def adapters(team: "Team") -> dict[str, Obj]:
    return {state["name"]: state for state in team.status("mdep", "coder").get("adapters", [])}


def test_labels_decide_what_is_served_without_an_edit(team: "Team") -> None:
    team.apply(
        make_finetune("one", {"team": "x"}),
        make_finetune("two", {"team": "other"}),
        make_mdep(adapterSelector={"matchLabels": {"team": "x"}}),
    )
    team.wait_until(lambda: adapters(team).keys() == {"one"}, "the first matches")
    team.kubectl("label", "finetune", "two", "team=x", "--overwrite")
    team.wait_until(lambda: adapters(team).keys() == {"one", "two"}, "both match")
    team.kubectl("label", "finetune", "one", "team-")
    team.wait_until(lambda: adapters(team).keys() == {"two"}, "one no longer matches")
    assert adapters(team)["two"]["fineTune"] == "two"
    team.kubectl("delete", "finetune", "two", "--timeout=60s")
    team.wait_until(lambda: not adapters(team), "what is deleted is let go of")


def succeed(team: "Team", name: str) -> None:
    """Give a FineTune the status of a run that is over; the operator leaves it at that."""
    uri = f"pvc://codetune-artifacts/{team.name}/finetunes/{name}/x/checkpoints/step-000001"
    digest = "sha256:" + "1" * 64
    status = {
        "phase": "Succeeded",
        "checkpoints": [{"name": "step-000001", "step": 1, "uri": uri, "digest": digest}],
        "bestCheckpoint": "step-000001",
        "latestCheckpoint": "step-000001",
        "adapter": {"uri": uri, "digest": digest, "rank": 8},
    }
    text = json.dumps({"status": status})
    team.kubectl("patch", "finetune", name, "--subresource=status", "--type=merge", "-p", text)


def test_a_finetune_that_is_served_is_kept_until_the_deployment_lets_go(team: "Team") -> None:
    team.apply(make_finetune("backend", {}), make_mdep(adapters=[{"name": "a", "fineTuneRef": {"name": "backend"}}]))
    team.wait_until(lambda: team.get("finetune", "backend")["metadata"].get("finalizers"), "the operator holds it")
    succeed(team, "backend")
    team.wait_until(lambda: adapters(team).get("a", {}).get("digest"), "it is to be served")

    team.kubectl("delete", "finetune", "backend", "--wait=false")

    def reason() -> str:
        conditions = team.status("finetune", "backend").get("conditions", [])
        return next((entry["reason"] for entry in conditions if entry["type"] == "Ready"), "")

    team.wait_until(lambda: reason() == "InUse", "it says who holds it")
    described = team.kubectl("describe", "finetune", "backend")
    assert "ModelDeployment 'coder'" in described
    desired = json.loads(team.get("configmap", "coder-adapters")["data"]["adapters.json"])
    assert [entry["name"] for entry in desired["adapters"]] == ["a"]
    assert not [name for name in team.names("jobs") if "purge" in name]

    patch(team, adapters=[])
    team.wait_until(lambda: team.is_gone("finetune", "backend"), "it is purged and gone")
    assert not adapters(team)


def test_a_namespace_goes_though_what_it_holds_is_served(team: "Team") -> None:
    team.apply(make_finetune("backend", {}), make_mdep(adapters=[{"name": "a", "fineTuneRef": {"name": "backend"}}]))
    team.wait_until(lambda: team.get("finetune", "backend")["metadata"].get("finalizers"), "the operator holds it")
    team.installation.cluster.kubectl("delete", "namespace", team.name, "--timeout=60s")
