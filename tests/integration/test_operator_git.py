"""Git sources from `kubectl apply` to status: what is wrong is told where a person looks."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

CODE = {
    "shop/cart.py": "def total(items):\n    return sum(item.price for item in items)\n",
    "shop/tax.py": "def tax(amount):\n    return amount * 19 / 100\n",
    "bank/pay.py": "def pay(amount):\n    return -amount\n",
}


def make_project(*sources: Obj) -> Obj:
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": "shop"},
        "spec": {"sources": list(sources)},
    }


def find_condition(status: Obj, kind: str) -> Obj:
    (condition,) = [condition for condition in status["conditions"] if condition["type"] == kind]
    return dict(condition)


def test_a_folder_of_a_repository_becomes_a_dataset(team: "Team") -> None:
    url = team.repository("mono", CODE)
    team.apply(make_project({"name": "shop", "git": {"url": url, "path": "shop"}}))

    status = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    assert status["files"]["total"] == 2
    assert len(status["sources"][0]["commit"]) == 40


def test_a_folder_that_is_not_there_fails_the_project_until_it_is_mended(team: "Team") -> None:
    url = team.repository("mono", CODE)
    team.apply(make_project({"name": "shop", "git": {"url": url, "path": "shp"}}))

    failed = team.wait_for_phase("cproj", "shop", "Failed")["status"]
    assert failed["failure"]["reason"] == "PathNotFound"
    assert "'shp' does not exist" in failed["sources"][0]["message"]
    assert find_condition(failed, "SourcesReady")["reason"] == "PathNotFound"
    assert "git.path" in find_condition(failed, "SourcesReady")["message"]

    team.apply(make_project({"name": "shop", "git": {"url": url, "path": "shop"}}))
    assert team.wait_for_phase("cproj", "shop", "Ready")["status"]["sources"][0].get("message", "") == ""


@pytest.mark.parametrize(
    ("reason", "sentence", "keys"),
    [
        pytest.param(
            "HostKeyUnknown", "ssh-keyscan -p 2222 git.example.com", ["ssh-privatekey=k"], id="no-known-hosts"
        ),
        pytest.param("AuthenticationFailed", "no `ssh-privatekey`", ["token=t"], id="token-for-ssh"),
    ],
)
def test_a_secret_that_lacks_something_is_told_on_its_source_and_stops_no_other(
    team: "Team", reason: str, sentence: str, keys: list[str]
) -> None:
    team.kubectl("create", "secret", "generic", "key", *(f"--from-literal={key}" for key in keys))
    far = {"url": "ssh://git@git.example.com:2222/team/far.git"}
    near = {"name": "near", "git": {"url": team.repository("near", CODE)}}
    team.apply(make_project({"name": "far", "git": far, "credentialsSecretRef": {"name": "key"}}, near))

    status = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    told = {source["name"]: source for source in status["sources"]}
    assert (told["far"]["reason"], told["near"].get("reason", "")) == (reason, "")
    assert sentence in told["far"]["message"]
    condition = find_condition(status, "SourcesReady")
    assert (condition["status"], condition["reason"]) == ("False", reason)
    assert sentence in condition["message"]
    assert status["files"]["total"] == len(CODE)


def test_a_secret_that_does_not_exist_stops_no_other_source_and_is_waited_for(team: "Team") -> None:
    far = {"name": "far", "git": {"url": "https://git.invalid/far.git"}, "credentialsSecretRef": {"name": "absent"}}
    near = {"name": "near", "git": {"url": team.repository("near", CODE)}}
    team.apply(make_project(far, near))

    status = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    told = {source["name"]: source for source in status["sources"]}
    assert (told["far"]["reason"], told["near"].get("reason", "")) == ("SourceUnavailable", "")
    assert "The Secret `absent` of source 'far' does not exist" in told["far"]["message"]
    assert "tried again by itself" in find_condition(status, "SourcesReady")["message"]
    assert status["files"]["total"] == len(CODE)


def test_the_only_sources_secret_may_come_after_the_project(team: "Team") -> None:
    depot = {"url": team.repository("near", CODE)}
    team.apply(make_project({"name": "near", "git": depot, "credentialsSecretRef": {"name": "late"}}))
    team.wait_until(lambda: any(event["reason"] == "ScanStarted" for event in team.get("events")["items"]), "a scan")

    team.kubectl("create", "secret", "generic", "late", "--from-literal=token=t")

    assert team.wait_for_phase("cproj", "shop", "Ready")["status"]["files"]["total"] == len(CODE)
