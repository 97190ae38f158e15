"""Projects, from `kubectl apply` to the dataset in the store: the real operator, the real scan, a local cluster."""

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

CODE = {
    "shop/cart.py": "def total(items):\n    return sum(item.price for item in items)\n",
    "shop/order.py": "class Order:\n    def __init__(self, items):\n        self.items = items\n",
    "shop/stock.py": "STOCK = {}\n\n\ndef take(name):\n    STOCK[name] -= 1\n",
    "shop/tax.py": "def tax(amount):\n    return amount * 19 / 100\n",
    "README.md": "# Shop\n",
}


def make_project(url: str, name: str = "shop", **more: Any) -> Obj:
    source = {"name": "app", "git": {"url": url, **more.pop("git", {})}}
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": name},
        "spec": {"sources": [source], **more},
    }


def ready(obj: Obj) -> Obj:
    """The condition Ready."""
    (found,) = [entry for entry in obj["status"]["conditions"] if entry["type"] == "Ready"]
    return dict(found)


def test_a_project_becomes_a_dataset_and_leaves_no_job_behind(team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE)))

    project = team.wait_for_phase("cproj", "shop", "Ready")
    status = project["status"]

    assert ready(project)["status"] == "True"
    assert status["files"]["accepted"] == 4
    assert status["files"]["trained"] + status["files"]["heldOut"] == 4
    assert [row["accepted"] for row in status["fileTypes"] if row["type"] == "Python"] == [4]
    assert len(status["sources"][0]["commit"]) == 40
    manifest = json.loads((team.store() / status["uri"].split("/", 3)[3] / "manifest.json").read_text())
    assert manifest["revision"] == status["revision"]
    team.wait_until(lambda: not team.names("jobs") and not team.names("pods"), "the scan's Job is removed")
    assert team.names("configmaps") in ([], ["kube-root-ca.crt"])


def test_a_person_sees_it_with_kubectl(team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE)))

    team.kubectl("wait", "--for=condition=Ready", "cproj/shop", "--timeout=60s")

    assert "Ready" in team.kubectl("get", "codetune")
    told = team.kubectl("describe", "cproj", "shop")
    assert "4 of 5 files accepted" in told
    assert "ScanStarted" in told
    assert "Scanned" in told


MISTAKES = [
    pytest.param("SourceUnavailable", {"git": {"url": "file:///nowhere"}}, id="no such repository"),
    pytest.param("RevisionNotFound", {"git": {"revision": "no-such-branch"}}, id="no such branch"),
    pytest.param("EmptyDataset", {"files": {"types": ["Haskell"]}}, id="no accepted file"),
]


@pytest.mark.parametrize(("reason", "mistake"), MISTAKES)
def test_a_mistake_is_told_on_the_project(reason: str, mistake: Obj, team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE), **mistake))

    project = team.wait_for_phase("cproj", "shop", "Failed")

    failure = project["status"]["failure"]
    assert failure["reason"] == ready(project)["reason"] == reason
    assert failure["hint"]
    assert ready(project)["status"] == "False"
    assert "revision" not in project["status"]
    assert reason in team.kubectl("describe", "cproj", "shop")


def test_an_empty_repository_is_told_and_the_project_heals_when_it_is_filled(team: "Team") -> None:
    url = team.repository("shop", {})
    team.apply(make_project(url))
    failed = team.wait_for_phase("cproj", "shop", "Failed")
    assert failed["status"]["failure"]["reason"] == "EmptyRepository"
    assert {entry["type"] for entry in failed["status"]["conditions"]} == {"Ready", "Stalled", "SourcesReady"}

    team.repository("shop", CODE)
    team.kubectl("annotate", "cproj", "shop", "codetune.dev/rescan=now")

    healed = team.wait_for_phase("cproj", "shop", "Ready")
    assert "failure" not in healed["status"]
    assert healed["status"]["sources"][0].get("message", "") == ""


def test_a_failed_rescan_keeps_the_data_that_is_there(team: "Team") -> None:
    url = team.repository("shop", CODE)
    team.apply(make_project(url))
    good = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    team.apply(make_project(url, git={"revision": "gone"}))
    bad = team.wait_for_phase("cproj", "shop", "Failed")["status"]

    assert (bad["revision"], bad["files"]) == (good["revision"], good["files"])
    assert (team.store() / bad["uri"].split("/", 3)[3] / "files.jsonl").exists()


def test_new_commits_come_in_when_the_rescan_annotation_changes(team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE)))
    first = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    team.repository("shop", {"shop/more.py": "MORE = 1\n"})
    team.kubectl("annotate", "cproj", "shop", "codetune.dev/rescan=1")
    team.wait_until(
        lambda: team.status("cproj", "shop").get("revision") not in {None, first["revision"]}, "there is a new dataset"
    )

    second = team.wait_for_phase("cproj", "shop", "Ready")["status"]
    assert second["files"]["accepted"] == 5
    assert second["sources"][0]["commit"] != first["sources"][0]["commit"]


def test_a_suspended_project_is_left_alone_until_it_goes_on(team: "Team") -> None:
    url = team.repository("shop", CODE)
    team.apply(make_project(url, suspend=True))
    team.wait_for_phase("cproj", "shop", "Suspended")
    assert team.names("jobs") == []

    team.kubectl("patch", "cproj", "shop", "--type=merge", "-p", '{"spec":{"suspend":false}}')

    team.wait_for_phase("cproj", "shop", "Ready")


def test_deletion_removes_children_and_artifacts_and_nothing_else(team: "Team") -> None:
    url = team.repository("shop", CODE)
    team.apply(make_project(url), make_project(url, "other"))
    team.wait_for_phase("cproj", "shop", "Ready")
    team.wait_for_phase("cproj", "other", "Ready")
    folder = team.store() / team.name / "projects"
    assert (folder / "shop").is_dir()

    team.kubectl("delete", "cproj", "shop", "--timeout=60s")

    assert not (folder / "shop").exists()
    assert (folder / "other").is_dir()
    team.wait_until(lambda: not team.names("jobs") and not team.names("pods"), "the purge is removed")
    assert not [name for name in team.names("configmaps") if name.startswith("shop-")]


def test_deletion_in_the_middle_of_a_scan_leaves_nothing(team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE)))
    team.wait_until(lambda: team.names("jobs"), "the scan has begun")

    team.kubectl("delete", "cproj", "shop", "--timeout=60s")

    team.wait_until(lambda: not team.names("jobs") and not team.names("pods"), "no child is left")
    assert not (team.store() / team.name / "projects" / "shop").exists()


def test_a_namespace_delete_does_not_hang(team: "Team") -> None:
    url = team.repository("shop", CODE)
    team.apply(make_project(url), make_project(url, "second"))
    team.wait_for_phase("cproj", "shop", "Ready")

    team.installation.cluster.kubectl("delete", "namespace", team.name, "--wait=false")

    cluster = team.installation.cluster
    team.wait_until(
        lambda: not cluster.kubectl("get", "namespace", team.name, "--ignore-not-found", "-o", "name"),
        "the namespace is gone",
    )


def test_kill_9_of_the_operator_makes_no_child_twice(team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE)))
    team.wait_until(lambda: team.names("jobs"), "the scan has begun")
    job = team.get("jobs")["items"][0]["metadata"]

    team.installation.end_operator(signal.SIGKILL)
    team.kubectl("wait", "--for=condition=Complete", f"job/{job['name']}", "--timeout=60s")
    team.installation.start_operator()

    status = team.wait_for_phase("cproj", "shop", "Ready")["status"]
    assert status["files"]["accepted"] == 4
    team.wait_until(lambda: not team.names("jobs"), "the scan's Job is removed")
    events = team.get("events")["items"]
    made = [event for event in events if event["reason"] == "SuccessfulCreate"]
    assert [event["involvedObject"]["uid"] for event in made] == [job["uid"]]


def test_a_restarted_operator_changes_nothing_of_what_is_at_rest(team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE)))
    team.wait_for_phase("cproj", "shop", "Ready")
    team.wait_until(lambda: not team.names("jobs"), "the scan's Job is removed")
    before = team.get("cproj", "shop")["metadata"]["resourceVersion"]

    assert team.installation.end_operator(signal.SIGTERM) == 0
    team.installation.start_operator()
    team.apply(make_project(team.repository("next", CODE), "next"))
    team.wait_for_phase("cproj", "next", "Ready")

    assert team.get("cproj", "shop")["metadata"]["resourceVersion"] == before


FORBIDDEN = [
    pytest.param("list", "secrets", id="list Secrets"),
    pytest.param("get", "secrets", id="read Secrets"),
    pytest.param("create", "pods/exec", id="exec"),
    pytest.param("create", "pods", id="make bare pods"),
    pytest.param("delete", "cproj", id="delete what people made"),
]


@pytest.mark.parametrize(("verb", "resource"), FORBIDDEN)
def test_the_operator_may_not(verb: str, resource: str, team: "Team") -> None:
    operator = f"--kubeconfig={team.installation.kubeconfig}"

    assert team.kubectl("auth", "can-i", verb, resource, operator, check=False).strip() == "no"
    assert team.kubectl("auth", "can-i", "create", "jobs", operator, check=False).strip() == "yes"


def test_the_operator_has_every_right_that_it_uses(team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE)))
    team.wait_for_phase("cproj", "shop", "Ready")
    team.kubectl("delete", "cproj", "shop", "--timeout=60s")

    assert "cannot" not in team.installation.log  # as in: User "…" cannot list resource "secrets"
    assert "Traceback" not in team.installation.log
