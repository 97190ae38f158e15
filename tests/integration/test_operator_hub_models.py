"""Base models of a hub, from `hf://` in a spec to the commit in the store: the real operator, trainer and hub client.

The hub is a stand-in on the loopback, which the operator's settings name as a mirror.
"""

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from standin_hub import COMMIT, REPOSITORY, Hub, serve_hub

if TYPE_CHECKING:
    from integration.conftest import Installation, Team

Obj = dict[str, Any]

pytestmark = pytest.mark.timeout(600)

CODE = {f"shop/{name}.py": f"def {name}(value):\n    return value + 1\n" * 60 for name in ("cart", "order", "stock")}
TOKEN = "hf_right"


@pytest.fixture
def hub(installation: "Installation", model: str) -> Iterator[Hub]:
    """A hub with the tiny model, and an operator that is told of it."""
    before = installation.settings.read_text()
    with serve_hub() as made:
        folder = installation.file_root / model.removeprefix("file:///")
        made.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        made.token = TOKEN
        _restart(installation, yaml.safe_dump({**yaml.safe_load(before), "hub": {"endpoint": made.url}}))
        yield made
        _restart(installation, before)


def _restart(installation: "Installation", settings: str) -> None:
    if installation.process is not None:
        installation.end_operator(signal.SIGTERM)
    installation.settings.write_text(settings)
    installation.start_operator()


def make_project(team: "Team") -> Obj:
    source = {"name": "app", "git": {"url": team.repository("shop", CODE)}}
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": "shop"},
        "spec": {"sources": [source], "files": {"duplicates": "Allow"}, "holdout": {"fraction": 0}},
    }


def make_secret(token: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "stringData": {"token": token}}


def make_finetune(name: str, base: str = f"hf://{REPOSITORY}") -> Obj:
    spec = {
        "projectRef": {"name": "shop"},
        "baseModel": base,
        "modelSecretRef": {"name": "hub"},
        "lora": {"rank": 2},
        "training": {"maxSteps": 1, "sequenceLength": 64, "batchTokens": 64},
        "resources": {"gpus": 0, "cpu": "100m", "memory": "3Gi"},
    }
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name}, "spec": spec}


def test_a_hub_model_is_fetched_once_pinned_and_trained_on(team: "Team", hub: Hub) -> None:
    team.apply(make_project(team), make_secret(TOKEN), make_finetune("first"))
    status = team.wait_for_phase("ft", "first", "Succeeded", 240)["status"]
    assert status["baseModel"] == {"uri": f"hf://{REPOSITORY}@{COMMIT}", "commit": COMMIT}
    folder = team.store() / "models" / REPOSITORY / COMMIT
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == hub.files
    assert TOKEN not in team.kubectl("get", "ft,jobs,pods,configmaps,events", "-o", "yaml")

    hub.downloads.clear()
    team.apply(make_finetune("second"))
    again = team.wait_for_phase("ft", "second", "Succeeded", 240)["status"]
    assert again["baseModel"] == status["baseModel"]
    assert hub.downloads == []


def test_what_the_hub_refuses_stands_in_status_with_a_hint(team: "Team", hub: Hub) -> None:
    hub.gated = True
    team.apply(make_project(team), make_secret(TOKEN))
    team.apply(
        make_finetune("gated"),
        make_finetune("missing", "hf://acme/other"),
        make_finetune("old", f"hf://{REPOSITORY}@v9"),
    )
    for name, reason in (("gated", "GatedModel"), ("missing", "ModelNotFound"), ("old", "RevisionNotFound")):
        failure = team.wait_for_phase("ft", name, "Failed", 120)["status"]["failure"]
        assert (failure["reason"], bool(failure["hint"])) == (reason, True)


def test_a_model_that_can_not_be_trained_stands_in_status_with_a_hint(team: "Team", hub: Hub) -> None:
    hub.files["config.json"] = b'{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}'
    team.apply(make_project(team), make_secret(TOKEN), make_finetune("mine"))
    failure = team.wait_for_phase("ft", "mine", "Failed", 120)["status"]["failure"]
    assert (failure["reason"], bool(failure["hint"])) == ("RemoteCodeModel", True)
    assert hub.downloads == ["config.json"]
