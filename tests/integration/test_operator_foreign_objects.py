"""Objects of somebody else under names that the operator needs: left as they are, told, and gone on from."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]
MDEP: Obj = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "coder"},
    # More GPUs than there are: no pod gets so far as to start vLLM.
    "spec": {"baseModel": "file:///tiny", "replicas": 0, "resources": {"gpus": 64}},
}
OURS = {
    "app.kubernetes.io/managed-by": "codetune",
    "app.kubernetes.io/component": "server",
    "app.kubernetes.io/instance": "coder",
}
POD = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
CONFIG: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coder-adapters"}, "data": {"mine": "1"}}
OBJECTS: list[Obj] = [
    CONFIG,
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "coder-adapter-token"}, "stringData": {"mine": "1"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "coder"}, "spec": {"ports": [{"port": 80}]}},
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coder"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": POD},
    },
]


def condition(team: "Team", kind: str) -> Obj:
    entries = team.status("mdep", "coder").get("conditions", [])
    return next((entry for entry in entries if entry["type"] == kind), {})


@pytest.mark.parametrize("theirs", OBJECTS, ids=lambda obj: obj["kind"])
def test_an_object_of_somebody_else_is_not_touched(theirs: Obj, team: "Team") -> None:
    kind, name = theirs["kind"], theirs["metadata"]["name"]
    team.apply(theirs)
    before = team.get(kind, name)["metadata"]

    team.apply(MDEP)

    team.wait_until(lambda: condition(team, "Stalled").get("reason") == "NameTaken", "the resource says so")
    assert f"{kind} '{name}' is in the way: somebody else made it. Delete it" in condition(team, "Ready")["message"]
    after = team.get(kind, name)["metadata"]
    assert (after["resourceVersion"], after["uid"]) == (before["resourceVersion"], before["uid"])
    team.kubectl("delete", "mdep", "coder", "--timeout=60s")
    assert not team.is_gone(kind, name)


def test_the_resource_goes_on_when_the_object_is_gone(team: "Team") -> None:
    team.apply(CONFIG, MDEP)
    team.wait_until(lambda: condition(team, "Stalled").get("reason") == "NameTaken", "the resource says so")

    team.kubectl("delete", "configmap", "coder-adapters")

    team.wait_for_phase("mdep", "coder", "Stopped", seconds=120)
    assert not condition(team, "Stalled")
    assert "adapters.json" in team.get("configmap", "coder-adapters")["data"]


def test_what_outlived_its_owner_is_taken_over_by_the_next_of_its_name(team: "Team") -> None:
    team.apply(MDEP)
    team.wait_for_phase("mdep", "coder", "Stopped")
    first = team.get("deployment", "coder")["metadata"]["uid"]
    team.kubectl("delete", "mdep", "coder", "--cascade=orphan", "--timeout=60s")

    team.apply(MDEP)

    team.wait_for_phase("mdep", "coder", "Stopped")
    owner = team.get("mdep", "coder")["metadata"]["uid"]
    team.wait_until(
        lambda: [entry["uid"] for entry in team.get("deployment", "coder")["metadata"]["ownerReferences"]] == [owner],
        "the Deployment has the new owner",
    )
    assert team.get("deployment", "coder")["metadata"]["uid"] == first


def test_children_out_of_a_backup_give_way_to_new_ones(team: "Team") -> None:
    dead = {"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment", "name": "coder", "uid": "0-1"}
    owners = [{**dead, "controller": True, "blockOwnerDeletion": True}]
    team.apply({**CONFIG, "metadata": {**CONFIG["metadata"], "labels": OURS, "ownerReferences": owners}}, MDEP)

    team.wait_for_phase("mdep", "coder", "Stopped", seconds=120)

    owner = team.get("mdep", "coder")["metadata"]["uid"]
    assert [entry["uid"] for entry in team.get("configmap", "coder-adapters")["metadata"]["ownerReferences"]] == [owner]
