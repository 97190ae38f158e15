"""What Prometheus reads of the real operator while a FineTune lives: it waits, trains, ends and is gone.

What each metric says of each status is in tests/unit/operator/metrics/test_metrics_of_resources.py.
"""

import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

pytestmark = pytest.mark.timeout(300)

CODE = {
    f"shop/{name}.py": "".join(f"def {name}_{number}(value):\n    return value + {number}\n\n" for number in range(40))
    for name in ("cart", "order", "stock", "tax", "price", "store")
}


def make(kind: str, name: str, spec: Obj) -> Obj:
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


class Scrape:
    """What the operator told at one moment."""

    def __init__(self, team: "Team") -> None:
        with urllib.request.urlopen(team.installation.metrics, timeout=30) as answer:
            self.text = answer.read().decode()
        self._samples = [entry for family in text_string_to_metric_families(self.text) for entry in family.samples]

    def value(self, metric: str, /, **labels: str) -> float | None:
        """The value of the only series with these labels, or None where there is none."""
        found = [entry for entry in self._samples if entry.name == metric and labels.items() <= entry.labels.items()]
        assert len(found) <= 1, found
        return found[0].value if found else None


def test_metrics_follow_a_finetune_from_its_creation_to_its_end(team: "Team", model: str) -> None:
    run = {"namespace": team.name, "name": "mine"}
    looks = {"kind": "FineTune", "outcome": "success"}
    training = {"maxSteps": 6, "sequenceLength": 64, "batchTokens": 128, "learningRate": 0.01}
    resources = {"gpus": 0, "cpu": "100m", "memory": "3Gi"}
    spec = {"projectRef": {"name": "shop"}, "baseModel": model, "lora": {"rank": 4}, "resources": resources}
    team.apply(make("FineTune", "mine", {**spec, "training": training, "checkpoints": {"everySteps": 2}}))
    team.wait_for_phase("ft", "mine", "WaitingForData")

    waiting = Scrape(team)
    assert waiting.value("codetune_operator_leading") == 1
    assert waiting.value("codetune_resource_phase", kind="FineTune", phase="WaitingForData", **run) == 1
    assert waiting.value("codetune_resource_condition", kind="FineTune", type="Ready", status="true", **run) == 0
    assert waiting.value("codetune_finetune_loss", **run) is None

    source = {"name": "app", "git": {"url": team.repository("shop", CODE)}}
    team.apply(make("Project", "shop", {"sources": [source], "holdout": {"fraction": 0.2}}))
    team.kubectl("wait", "--for=condition=Ready", "ft/mine", "--timeout=240s")

    ended = Scrape(team)
    status = team.status("ft", "mine")
    assert ended.value("codetune_resource_phase", kind="FineTune", phase="Succeeded", **run) == 1
    assert ended.value("codetune_resource_condition", kind="FineTune", type="Ready", status="true", **run) == 1
    assert ended.value("codetune_finetune_progress_ratio", **run) == 1
    assert ended.value("codetune_finetune_loss", **run) == status["progress"]["loss"]
    improvement = ended.value("codetune_finetune_evaluation_improvement_ratio", **run)
    assert improvement == status["evaluation"]["improvement"]
    assert ended.value("codetune_finetune_checkpoint_step", checkpoint="latest", **run) == 6
    files = {"namespace": team.name, "name": "shop", "decision": "trained"}
    assert ended.value("codetune_project_files", **files) == team.status("cproj", "shop")["files"]["trained"]

    def grew(metric: str, /, **labels: str) -> float:
        return (ended.value(metric, **labels) or 0) - (waiting.value(metric, **labels) or 0)

    assert grew("codetune_finetune_job_delay_seconds_count") == 1
    assert grew("codetune_reconcile_total", **looks) > 0
    assert grew("codetune_api_requests_total", method="PATCH", kind="FineTune", code="200") > 0

    team.kubectl("delete", "ft", "mine", "--timeout=90s")
    team.wait_until(lambda: 'name="mine"' not in Scrape(team).text, "nothing is told of it any more", 30)
