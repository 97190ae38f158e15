"""What a scrape tells of resources: objects in, Prometheus' text out."""

from typing import Any

import pytest
from codetune_operator.handlers.queueing import QueueCounts
from codetune_operator.metrics.collecting import CATALOGUE, Snapshot, SnapshotCollector
from codetune_operator.metrics.counting import COUNTED
from prometheus_client import generate_latest

Obj = dict[str, Any]
SECRET = "hunter2"


def make(kind: str, status: Obj | None = None, spec: Obj | None = None) -> Obj:
    """A resource of today, as the watches tell of it."""
    metadata = {"namespace": "ns", "name": "mine", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"kind": kind, "metadata": metadata, "spec": spec or {}, **({"status": status} if status else {})}


def tell(*objects: Obj) -> list[str]:
    """The lines of a scrape about resources, values that are zero or of no interest here included."""
    kinds = {obj["kind"]: tuple(other for other in objects if other["kind"] == obj["kind"]) for obj in objects}
    text = generate_latest(SnapshotCollector(lambda: Snapshot(QueueCounts(0, 0, 0), kinds))).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in lines if not line.startswith(("codetune_operator", "codetune_queue"))]


def about(metric: str, *objects: Obj) -> list[str]:
    """The lines about one metric without its name, and without the labels that all have."""
    common = 'name="mine",namespace="ns"'
    lines = [line.removeprefix(metric) for line in tell(*objects) if line.startswith(metric + "{")]
    return [line.replace(f",{common}", "").replace(f"{common},", "").replace(common, "") for line in lines]


def condition(kind: str, status: str) -> Obj:
    return {"type": kind, "status": status, "reason": "Any", "message": SECRET}


RUNNING = {
    "phase": "Running",
    "progress": {
        "step": 30,
        "percent": 12.5,
        "loss": 1.5,
        "holdoutLoss": 1.75,
        "tokensPerSecond": 400.0,
        "message": SECRET,
    },
    "checkpoints": [
        {"name": "step-000010", "step": 10, "uri": f"pvc://{SECRET}"},
        {"name": "step-000020", "step": 20, "uri": f"pvc://{SECRET}"},
    ],
    "bestCheckpoint": "step-000010",
    "latestCheckpoint": "step-000020",
    "restarts": 2,
}
EVALUATED = {"evaluation": {"improvement": -0.25, "message": SECRET}}

FINETUNES = [
    pytest.param("codetune_finetune_progress_ratio", ["{} 0.125"], RUNNING, id="progress is a ratio"),
    pytest.param("codetune_finetune_loss", ["{} 1.5"], RUNNING, id="loss"),
    pytest.param("codetune_finetune_loss", [], {"phase": "Pending"}, id="no loss before there is one"),
    pytest.param("codetune_finetune_loss", [], {"progress": {"loss": None}}, id="no loss that is null"),
    pytest.param("codetune_finetune_holdout_loss", ["{} 1.75"], RUNNING, id="held-out loss"),
    pytest.param("codetune_finetune_tokens_per_second", ["{} 400.0"], RUNNING, id="speed"),
    pytest.param(
        "codetune_finetune_tokens_per_second", [], {**RUNNING, "phase": "Succeeded"}, id="no speed after the run"
    ),
    pytest.param(
        "codetune_finetune_checkpoint_step",
        ['{checkpoint="best"} 10.0', '{checkpoint="latest"} 20.0'],
        RUNNING,
        id="checkpoints",
    ),
    pytest.param(
        "codetune_finetune_checkpoint_step", [], {"bestCheckpoint": "step-000010"}, id="a checkpoint that is gone"
    ),
    pytest.param("codetune_finetune_evaluation_improvement_ratio", ["{} -0.25"], EVALUATED, id="worse than its base"),
    pytest.param("codetune_finetune_restarts_total", ["{} 2.0"], RUNNING, id="restarts"),
]


@pytest.mark.parametrize(("metric", "expected", "status"), FINETUNES)
def test_a_finetune_tells_what_its_run_does(metric: str, expected: list[str], status: Obj) -> None:
    assert about(metric, make("FineTune", status)) == expected


SCANNED = {
    "phase": "Ready",
    "scannedAt": "2026-01-01T00:01:00Z",
    "files": {"total": 10, "accepted": 7, "rejected": 3, "trained": 6, "heldOut": 1, "bytes": 4096},
    "sources": [
        {"name": "app", "files": 10},
        {"name": "lib", "reason": "SourceUnavailable", "message": SECRET},
    ],
    "rejections": [{"reason": "Secret", "files": 3, "examples": [SECRET]}],
}
PROJECTS = [
    pytest.param(
        "codetune_project_files",
        ['{decision="trained"} 6.0', '{decision="held_out"} 1.0', '{decision="rejected"} 3.0'],
        SCANNED,
        id="files by decision",
    ),
    pytest.param("codetune_project_accepted_bytes", ["{} 4096.0"], SCANNED, id="bytes"),
    pytest.param(
        "codetune_project_last_scan_timestamp_seconds", ["{} 1.76722566e+09"], SCANNED, id="time of the last scan"
    ),
    pytest.param("codetune_project_failing_sources", ["{} 1.0"], SCANNED, id="a source fails"),
    pytest.param(
        "codetune_project_failing_sources", ["{} 0.0"], {"sources": [{"name": "app"}]}, id="each source was fetched"
    ),
    pytest.param("codetune_project_failing_sources", [], {"phase": "Scanning"}, id="nothing is known of sources yet"),
    pytest.param("codetune_project_files", [], {"phase": "Scanning"}, id="nothing is known of files yet"),
]


@pytest.mark.parametrize(("metric", "expected", "status"), PROJECTS)
def test_a_project_tells_what_its_last_scan_found(metric: str, expected: list[str], status: Obj) -> None:
    assert about(metric, make("Project", status)) == expected


def test_a_modeldeployment_tells_what_is_asked_for_and_what_serves() -> None:
    adapters = [{"name": "a", "phase": "Ready"}, {"name": "b", "phase": "Ready"}, {"name": "c", "phase": "Failed"}]
    served = make("ModelDeployment", {"readyReplicas": 1, "adapters": adapters}, {"replicas": 2})
    assert about("codetune_modeldeployment_spec_replicas", served) == ["{} 2.0"]
    assert about("codetune_modeldeployment_status_replicas_ready", served) == ["{} 1.0"]
    assert about("codetune_modeldeployment_adapters", served) == [
        '{phase="Pending"} 0.0',
        '{phase="Loading"} 0.0',
        '{phase="Ready"} 2.0',
        '{phase="Held"} 0.0',
        '{phase="Failed"} 1.0',
    ]


def test_a_team_tells_how_many_of_its_models_answer() -> None:
    models = [{"project": "", "deployment": "d", "ready": True}, {"project": "p", "deployment": "d", "ready": False}]
    assert about("codetune_team_models", make("Team", {"models": models})) == [
        '{ready="true"} 1.0',
        '{ready="false"} 1.0',
    ]


CONDITIONS = [
    pytest.param([1, 0, 0], "True", id="true"),
    pytest.param([0, 1, 0], "False", id="false"),
    pytest.param([0, 0, 1], "Unknown", id="unknown"),
]


@pytest.mark.parametrize(("expected", "status"), CONDITIONS)
def test_a_condition_is_told_for_each_status_that_it_could_have(expected: list[int], status: str) -> None:
    found = about("codetune_resource_condition", make("Team", {"conditions": [condition("Ready", status)]}))
    assert found == [
        f'{{kind="Team",status="{name}",type="Ready"}} {value:.1f}'
        for name, value in zip(("true", "false", "unknown"), expected, strict=True)
    ]


PHASES = [
    pytest.param("FineTune", 8, "WaitingForData", id="FineTune"),
    pytest.param("Project", 6, "Scanning", id="Project"),
    pytest.param("ModelDeployment", 6, "Updating", id="ModelDeployment"),
    pytest.param("Team", 6, "Stopped", id="Team"),
]


@pytest.mark.parametrize(("kind", "count", "phase"), PHASES)
def test_a_phase_is_told_beside_all_others_of_its_kind(kind: str, count: int, phase: str) -> None:
    found = about("codetune_resource_phase", make(kind, {"phase": phase}))
    assert len(found) == count
    assert [line for line in found if line.endswith(" 1.0")] == [f'{{kind="{kind}",phase="{phase}"}} 1.0']


def test_a_failure_is_told_by_its_reason_as_long_as_there_is_one() -> None:
    failure = {"reason": "OutOfMemory", "message": SECRET, "hint": SECRET}
    metric = "codetune_resource_failure"
    assert about(metric, make("FineTune", {"failure": failure})) == ['{kind="FineTune",reason="OutOfMemory"} 1.0']
    assert about(metric, make("FineTune", {"failure": None})) == []


@pytest.mark.parametrize("kind", ["Project", "FineTune", "ModelDeployment", "Team"])
def test_a_resource_without_a_status_tells_when_it_was_made(kind: str) -> None:
    found = tell(make(kind))
    created = f'codetune_resource_created_timestamp_seconds{{kind="{kind}",name="mine",namespace="ns"}} 1.7672256e+09'
    assert created in found
    assert not [line for line in found if line.startswith(("codetune_resource_condition", "codetune_resource_phase"))]


ODD = [
    pytest.param(
        "FineTune", {"checkpoints": [{"name": "step-1"}], "bestCheckpoint": "step-1"}, id="a field is missing"
    ),
    pytest.param("ModelDeployment", {"adapters": ["a"]}, id="a text where an object belongs"),
    pytest.param("Project", {"scannedAt": "yesterday"}, id="no time"),
    pytest.param("Team", {"conditions": {"Ready": "True"}}, id="an object where a list belongs"),
]


@pytest.mark.parametrize(("kind", "status"), ODD)
def test_a_status_of_another_version_costs_only_what_can_not_be_read_of_it(kind: str, status: Obj) -> None:
    found = about("codetune_resource_phase", make(kind, {**status, "phase": "Failed"}))
    assert f'{{kind="{kind}",phase="Failed"}} 1.0' in found


def test_messages_paths_and_names_of_files_are_in_no_label() -> None:
    failure = {"reason": "DiskFull", "message": SECRET}
    status = {**SCANNED, "conditions": [condition("Ready", "True")], "failure": failure}
    run = {**RUNNING, **EVALUATED, "failure": failure, "conditions": [condition("Ready", "True")]}
    assert SECRET not in "\n".join(tell(make("Project", status), make("FineTune", run)))


def test_an_operator_that_stands_by_tells_no_more_than_that() -> None:
    text = generate_latest(SnapshotCollector(Snapshot)).decode()
    told = [line.partition("{")[0] for line in text.splitlines() if not line.startswith("#")]
    assert told == ["codetune_operator_info", "codetune_operator_leading 0.0"]


def test_each_metric_has_one_name_and_tells_what_it_is() -> None:
    names = [family.name for family in CATALOGUE]
    assert len(names) == len(set(names)) > 20
    described = {metric.name for metric in SnapshotCollector(Snapshot).describe()}
    assert described == {family.name.removesuffix("_total") for family in CATALOGUE if family not in COUNTED}
    for family in CATALOGUE:
        assert family.help.endswith("."), family.name
        assert (family.type == "counter") == family.name.endswith("_total"), family.name
