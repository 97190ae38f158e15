"""Projects over time, on a local cluster: scheduled scans, sources that fail, edits while a scan runs, and datasets.

Times of schedules are not waited for: the announced time in status is what the operator goes by, so it is moved.
"""

import json
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

CODE = {f"shop/{name}.py": f"def {name}(value):\n    return value + 1\n" for name in ("cart", "order", "stock", "tax")}
NEW_YEAR = "0 0 1 1 *"
LONG_AGO = "2020-01-01T00:00:00Z"


def source(name: str, url: str, **more: Any) -> Obj:
    return {"name": name, "git": {"url": url}, **more}


def make_project(*sources: Obj, **more: Any) -> Obj:
    spec = {"sources": list(sources), **more}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": {"name": "shop"}, "spec": spec}


def make_finetune(name: str = "mine", **more: Any) -> Obj:
    spec = {"projectRef": {"name": "shop"}, "baseModel": "file:///none", **more}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name}, "spec": spec}


def condition(team: "Team", kind: str) -> Obj:
    found = [entry for entry in team.status("cproj", "shop")["conditions"] if entry["type"] == kind]
    return dict(found[0]) if found else {}


def events(team: "Team", reason: str) -> list[str]:
    return [event["message"] for event in team.get("events")["items"] if event["reason"] == reason]


def scans(team: "Team") -> list[str]:
    """Scan Jobs that there are."""
    return [name for name in team.names("jobs") if name.startswith("shop-scan-")]


def rescan(team: "Team", value: str) -> Obj:
    """Ask for a scan and wait until it is done."""
    before = team.status("cproj", "shop")["configDigest"]
    team.kubectl("annotate", "cproj", "shop", "--overwrite", f"codetune.dev/rescan={value}")

    def look() -> Obj | None:
        status = team.status("cproj", "shop")
        done = status["phase"] in {"Ready", "Failed"} and status["configDigest"] != before
        return status if done and not scans(team) else None

    found: Obj = team.wait_until(look, "the scan that was asked for is done")
    return found


def announce(team: "Team", time: str) -> None:
    """Move the time that the next scan was announced for."""
    patch = json.dumps({"status": {"nextScanAt": time}})
    team.kubectl("patch", "cproj", "shop", "--subresource=status", "--type=merge", "-p", patch)


def wait_for_schedule(team: "Team") -> Obj:
    """Until a scheduled scan is done."""

    def look() -> Obj | None:
        status = team.status("cproj", "shop")
        return status if status.get("lastScheduledAt") and status["phase"] == "Ready" else None

    found: Obj = team.wait_until(look, "the scheduled scan is done")
    return found


def test_a_time_that_has_come_starts_one_scan(team: "Team") -> None:
    url = team.repository("shop", CODE)
    team.apply(make_project(source("app", url), schedule=NEW_YEAR, timeZone="Europe/Berlin"))
    first = team.wait_for_phase("cproj", "shop", "Ready")["status"]
    assert first["nextScanAt"].endswith("-12-31T23:00:00Z")
    assert "lastScheduledAt" not in first

    team.repository("shop", {"shop/more.py": "MORE = 1\n"})
    team.wait_until(lambda: not scans(team), "the first scan is removed")
    announce(team, LONG_AGO)

    second = wait_for_schedule(team)
    assert second["files"]["accepted"] == 5
    assert second["nextScanAt"] == first["nextScanAt"]
    assert second["lastScheduledAt"].endswith("-12-31T23:00:00Z")
    assert len(events(team, "Scanned")) == 2
    head, line = team.kubectl("get", "cproj").splitlines()
    wide = team.kubectl("get", "cproj", "-o", "wide")
    assert head.split() == ["NAME", "PHASE", "FILES", "TYPES", "REVISION", "READY", "AGE"]
    assert line.split()[:7] == ["shop", "Ready", "5", "Python", "5", second["revision"][7:19], "True"]
    for word in ("AllRead", NEW_YEAR, second["nextScanAt"]):
        assert word in wide


def test_times_that_were_missed_while_the_operator_was_down_make_one_scan(team: "Team") -> None:
    team.apply(make_project(source("app", team.repository("shop", CODE)), schedule=NEW_YEAR))
    team.wait_for_phase("cproj", "shop", "Ready")
    team.wait_until(lambda: not team.names("jobs"), "the first scan is removed")

    team.installation.end_operator(signal.SIGTERM)
    announce(team, LONG_AGO)
    team.installation.start_operator()
    wait_for_schedule(team)
    team.wait_until(lambda: not team.names("jobs"), "the scheduled scan is removed")

    created = [event for event in team.get("events")["items"] if event["reason"] == "SuccessfulCreate"]
    assert len({event["involvedObject"]["uid"] for event in created}) == 2


def test_a_schedule_that_names_no_time_is_told_and_takes_no_data_away(team: "Team") -> None:
    project = make_project(source("app", team.repository("shop", CODE)))
    team.apply(project)
    before = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    team.apply(make_project(*project["spec"]["sources"], schedule="0 0 31 2 *"))
    refused = team.wait_for_phase("cproj", "shop", "Failed")["status"]
    stalled = condition(team, "Stalled")
    team.apply(make_project(*project["spec"]["sources"], schedule="0 0 28 2 *"))

    assert stalled["reason"] == "InvalidSchedule"
    assert "spec.schedule '0 0 31 2 *'" in stalled["message"]
    assert refused["failure"]["reason"] == "InvalidSchedule"
    assert refused["failure"]["hint"]
    assert refused["revision"] == before["revision"]
    mended = team.wait_for_phase("cproj", "shop", "Ready")["status"]
    assert (mended["configDigest"], mended.get("failure")) == (before["configDigest"], None)


REFUSED = [
    pytest.param("5 fields", {"schedule": "0 3 * *"}, id="too few fields"),
    pytest.param("out of range", {"schedule": "0 25 * * *"}, id="no such hour"),
    pytest.param("timeZone", {"timeZone": "Europe/../etc"}, id="no name of a zone"),
]


@pytest.mark.parametrize(("said", "mistake"), REFUSED)
def test_kubectl_apply_itself_refuses(said: str, mistake: Obj, team: "Team") -> None:
    with pytest.raises(AssertionError, match=said):
        team.apply(make_project(source("app", "https://example.org/a.git"), **mistake))


def test_a_source_that_fails_is_told_on_it_and_does_not_stop_the_others(team: "Team") -> None:
    app, missing = team.repository("shop", CODE), f"file:///{team.name}/lib"
    lib = team.repository("lib", {})
    assert missing == lib
    team.apply(make_project(source("app", app), source("lib", lib)))
    status = team.wait_for_phase("cproj", "shop", "Ready")["status"]

    assert condition(team, "Ready")["status"] == "True"
    failing = condition(team, "SourcesReady")
    assert (failing["status"], failing["reason"]) == ("False", "EmptyRepository")
    assert "1 of 2 sources can't be read in full. lib:" in failing["message"]
    assert "kubectl annotate project shop" in failing["message"]
    assert [entry.get("reason", "") for entry in status["sources"]] == ["", "EmptyRepository"]

    team.repository("lib", {"lib.py": "LIB = 1\n"})
    healed = rescan(team, "1")

    assert [entry.get("message", "") for entry in healed["sources"]] == ["", ""]
    assert condition(team, "SourcesReady")["status"] == "True"
    assert healed["files"]["accepted"] == 5
    told = team.kubectl("describe", "cproj", "shop")
    for word in ("SourceFailed", "SourceRecovered", "All 2 were read", "5 of 5 files accepted"):
        assert word in told


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers. Gives its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/code.git"


def test_an_edit_while_a_scan_runs_replaces_the_scan(team: "Team", silent_server: str) -> None:
    team.apply(make_project(source("app", silent_server)))
    team.wait_until(
        lambda: any(pod["status"].get("phase") == "Running" for pod in team.get("pods")["items"]), "a scan runs"
    )
    (first,) = team.names("jobs")

    team.apply(make_project(source("app", team.repository("shop", CODE))))

    assert team.wait_for_phase("cproj", "shop", "Ready")["status"]["files"]["accepted"] == 4
    team.wait_until(lambda: not team.names("jobs") and not team.names("pods"), "both scans are removed")
    names = {event["involvedObject"]["name"] for event in team.get("events")["items"]}
    assert first in names
    assert len(events(team, "Scanned")) == 1


def test_a_source_for_evaluation_is_held_out(team: "Team") -> None:
    exam = team.repository("exam", {"x.py": "X = 1\n", "y.py": "Y = 1\n", "cart.py": CODE["shop/cart.py"]})
    app = source("app", team.repository("shop", CODE))
    team.apply(make_project(app, source("exam", exam, use="HoldOut"), holdout={"fraction": 0}))

    files = team.wait_for_phase("cproj", "shop", "Ready")["status"]["files"]

    assert (files["accepted"], files["trained"], files["heldOut"]) == (6, 3, 3)


def change(team: "Team", number: int) -> Obj:
    """A commit, and the scan of it."""
    team.repository("shop", {"shop/more.py": f"MORE = {number}\n"})
    return rescan(team, str(number))


def test_datasets_that_runs_were_made_on_stay_and_the_others_go(team: "Team") -> None:
    team.apply(make_project(source("app", team.repository("shop", CODE))))
    first = team.wait_for_phase("cproj", "shop", "Ready")["status"]["revision"]
    waiting = {"gpus": 1, "cpu": "100m", "memory": "64Mi"}  # a GPU that the node has not: the run stays queued
    team.apply(make_finetune(resources=waiting))
    run = team.wait_for_phase("ft", "mine", "Queued")["status"]

    second, third = change(team, 2)["revision"], change(team, 3)["revision"]

    folder = team.store() / team.name / "projects" / "shop"
    kept = {path.name for path in folder.iterdir() if len(path.name) == 64}
    assert kept == {revision.removeprefix("sha256:") for revision in (first, second, third)}
    fourth = change(team, 4)["revision"]
    kept = {path.name for path in folder.iterdir() if len(path.name) == 64}
    assert kept == {revision.removeprefix("sha256:") for revision in (first, third, fourth)}

    after = team.status("ft", "mine")
    assert (after["jobName"], after["dataset"]) == (run["jobName"], run["dataset"])
    assert run["dataset"]["revision"] == first
    assert team.names("jobs") == [run["jobName"]]


def test_a_project_that_is_deleted_waits_for_its_runs(team: "Team") -> None:
    team.apply(make_project(source("app", team.repository("shop", CODE))))
    team.wait_for_phase("cproj", "shop", "Ready")
    team.apply(make_finetune(suspend=True))
    team.wait_for_phase("ft", "mine", "Suspended")

    team.kubectl("delete", "cproj", "shop", "--wait=false")
    team.wait_for_phase("cproj", "shop", "Deleting")

    assert condition(team, "Ready")["reason"] == "DatasetInUse"
    assert "mine" in events(team, "DatasetInUse")[0]
    assert (team.store() / team.name / "projects" / "shop").is_dir()
    team.kubectl("delete", "ft", "mine", "--timeout=60s")
    team.wait_until(lambda: team.is_gone("cproj", "shop"), "the project is gone")
    assert not (team.store() / team.name / "projects" / "shop").exists()


def test_a_namespace_delete_does_not_wait_for_runs(team: "Team") -> None:
    team.apply(make_project(source("app", team.repository("shop", CODE))))
    team.wait_for_phase("cproj", "shop", "Ready")
    team.apply(make_finetune(suspend=True))
    team.wait_for_phase("ft", "mine", "Suspended")
    team.kubectl("delete", "cproj", "shop", "--wait=false")
    team.wait_until(lambda: condition(team, "Ready")["reason"] == "DatasetInUse", "the run holds the Project")

    cluster = team.installation.cluster
    cluster.kubectl("delete", "namespace", team.name, "--wait=false")

    team.wait_until(
        lambda: not cluster.kubectl("get", "namespace", team.name, "--ignore-not-found", "-o", "name"),
        "the namespace is gone",
    )


def test_new_rules_are_applied_to_what_was_fetched(team: "Team") -> None:
    url = team.repository("shop", {**CODE, "shop/page.js": "let page = 1\n"})
    team.apply(make_project(source("app", url)))
    first = team.wait_for_phase("cproj", "shop", "Ready")["status"]
    team.wait_until(lambda: not scans(team), "the first scan is removed")
    team.repository("shop", {"shop/more.py": "MORE = 1\n"})

    team.kubectl("patch", "cproj", "shop", "--type=merge", "-p", '{"spec": {"files": {"types": ["Python"]}}}')

    def look() -> Obj | None:
        status = team.status("cproj", "shop")
        return status if status["rulesDigest"] != first["rulesDigest"] and not scans(team) else None

    second = team.wait_until(look, "the new rules are applied")
    assert second["sources"][0]["commit"] == first["sources"][0]["commit"]
    assert (first["files"]["accepted"], second["files"]["accepted"]) == (5, 4)
    assert [(row["reason"], row["files"]) for row in second["rejections"]] == [("NotSelected", 1)]
    assert rescan(team, "now")["files"]["accepted"] == 5
