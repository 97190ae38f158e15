"""What a deletion on the local cluster takes along, and what it waits for."""

import os
import time

import pytest
from integration.local_cluster.workloads import Namespace, claim, job, running_pods, stored, web_deployment, web_service


def test_a_namespace_goes_with_jobs_whose_pods_no_node_takes(here: Namespace) -> None:
    waits = job("waits", "true", podReplacementPolicy="Failed")
    waits["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"memory": "900Ti"}}
    here.apply(waits)
    here.cluster.wait_for(lambda: here.pods("job-name=waits"), "the pod")
    here.kubectl("delete", "namespace", here.name, "--timeout=30s")


def test_deleting_a_namespace_takes_everything_along(here: Namespace) -> None:
    here.apply(web_deployment("one"), web_service(), claim("store"), job("slow", "sleep 60"))
    here.wait_until(lambda: running_pods(here, "app=web"), "it runs")
    uids = [pod["metadata"]["uid"] for pod in here.get("pods")["items"]]
    here.cluster.kubectl("delete", "namespace", here.name, "--timeout=40s")
    assert here.cluster.get("pods", "-A", "--field-selector", f"metadata.namespace={here.name}")["items"] == []
    assert [pid for uid in uids for pid in here.cluster.processes_of(uid)] == []
    volumes = here.cluster.get("pv")["items"]
    here.wait_until(
        lambda: (
            not [
                entry
                for entry in here.cluster.get("pv")["items"]
                if entry["spec"]["claimRef"]["namespace"] == here.name
            ]
        ),
        f"its volumes are gone: {[entry['metadata']['name'] for entry in volumes]}",
    )


@pytest.mark.parametrize(
    ("policy", "stays"),
    [pytest.param("background", False), pytest.param("foreground", False), pytest.param("orphan", True)],
)
def test_owned_objects_follow_their_owner_as_the_deletion_asks(here: Namespace, policy: str, stays: bool) -> None:
    here.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "parent"}})
    parent = here.get("configmap", "parent")["metadata"]
    owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "parent",
        "uid": parent["uid"],
        "blockOwnerDeletion": True,
    }
    here.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [owner]}})
    here.kubectl("delete", "configmap", "parent", f"--cascade={policy}", "--timeout=20s")
    if stays:
        time.sleep(0.5)
        assert "ownerReferences" not in here.get("configmap", "child")["metadata"]
    else:
        here.wait_until(
            lambda: "NotFound" in here.kubectl("get", "configmap", "child", check=False), "the child is gone"
        )


def test_a_claim_in_use_is_protected_and_its_folder_goes_with_it(here: Namespace) -> None:
    here.apply(claim("store"), job("user", "echo kept > /store/file; sleep 60", **stored("store")))
    here.wait_until(lambda: running_pods(here, "job-name=user"), "it runs")
    volume = here.get("pvc", "store")["spec"]["volumeName"]
    folder = here.cluster.get("pv", volume)["spec"]["hostPath"]["path"]
    here.wait_until(lambda: os.path.exists(f"{folder}/file"), "it writes into the claim")
    here.kubectl("delete", "pvc", "store", "--wait=false")
    assert here.get("pvc", "store")["metadata"]["deletionTimestamp"]
    here.kubectl("delete", "job", "user", "--cascade=foreground", "--grace-period=1", "--timeout=40s")
    here.wait_until(lambda: not os.path.exists(folder), "the folder is gone")
    assert "NotFound" in here.kubectl("get", "pvc", "store", check=False)
