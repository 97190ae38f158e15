"""The training Job: spec in, whole objects out."""

import json
from typing import Any

import kubernetes_validate
import pytest
from codetune_api.common import Failure
from codetune_api.contracts import FetchConfig, TrainConfig
from codetune_api.finetune import FineTune
from codetune_operator.resources.finetune.training import (
    build_training,
    pin_dataset,
    run_nonce,
    switch_training,
    training_job_name,
)
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.settings import Settings

Obj = dict[str, Any]
REVISION = "sha256:" + "a" * 64
SETTINGS = Settings.model_validate({"images": {"trainer": "registry/codetune-trainer:1"}})


def make_finetune(uid: str = "u1", **spec: Any) -> FineTune:
    metadata = {"name": "mine", "namespace": "ns", "uid": uid, "generation": 1}
    spec = {"projectRef": {"name": "code"}, "baseModel": "pvc://models/base", **spec}
    return FineTune.from_wire(
        {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": metadata, "spec": spec}
    )


def build_all(finetune: FineTune, settings: Settings = SETTINGS) -> tuple[Obj, ...]:
    model = locate_model(finetune.spec.base_model, settings)
    assert isinstance(model, ModelSource), model
    return build_training(finetune, pin_dataset(finetune, REVISION), model, settings)


def build(finetune: FineTune, settings: Settings = SETTINGS) -> tuple[Obj, Obj]:
    *_, config_map, job = build_all(finetune, settings)
    return config_map, job


def name_of(finetune: FineTune, revision: str = REVISION) -> str:
    return training_job_name(finetune, pin_dataset(finetune, revision))


def pod_spec(job: Obj) -> Obj:
    spec: Obj = job["spec"]["template"]["spec"]
    return spec


def env(container: Obj) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


VARIANTS = [
    pytest.param({}, id="one GPU"),
    pytest.param({"resources": {"gpus": 0, "cpu": "2", "memory": "6Gi"}}, id="CPU"),
    pytest.param({"baseModel": "hf://org/name@v1", "modelSecretRef": {"name": "hub"}}, id="hub model"),
    pytest.param(
        {"scheduling": {"queueName": "team", "nodeSelector": {"a": "b"}, "priorityClassName": "low"}}, id="queue"
    ),
    pytest.param({"activeDeadlineSeconds": 60, "suspend": True, "retries": 0}, id="deadline, suspended"),
    pytest.param({"resources": {"gpus": 8, "nodes": 2}, "scheduling": {"queueName": "team"}}, id="nodes in a queue"),
]


@pytest.mark.parametrize("spec", VARIANTS)
def test_all_objects_are_valid_kubernetes(spec: Obj) -> None:
    built = build_all(make_finetune(**spec))
    assert {"ConfigMap", "Job"} <= {obj["kind"] for obj in built}
    for obj in built:
        kubernetes_validate.validate(obj, "1.37", strict=True)


@pytest.mark.parametrize("spec", VARIANTS)
def test_every_container_is_restricted(spec: Obj) -> None:
    _, job = build(make_finetune(**spec))
    pod = pod_spec(job)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_job_is_retried_but_not_for_disruptions_stops_and_hopeless_cases() -> None:
    _, job = build(make_finetune(retries=5))
    assert job["spec"]["backoffLimit"] == 5
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert job["spec"]["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {"containerName": "train", "operator": "In", "values": [75, 143]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [64]}},
    ]
    assert pod_spec(job)["restartPolicy"] == "Never"
    assert pod_spec(job)["terminationGracePeriodSeconds"] >= 60


def test_the_trainer_is_told_everything_by_its_config() -> None:
    finetune = make_finetune(lora={"rank": 8}, training={"maxSteps": 60}, resources={"gpus": 0})
    config_map, job = build(finetune)
    config = TrainConfig.model_validate_json(config_map["data"]["config.json"])
    assert config.dataset == f"ns/projects/code/{'a' * 64}"
    assert config.dataset_revision == REVISION
    assert config.output == "ns/finetunes/mine/u1"
    assert (config.device, config.gpus, config.lora.rank, config.training.max_steps) == ("cpu", 0, 8, 60)
    assert config.nonce == run_nonce(finetune, job["metadata"]["name"])
    volumes = {volume["name"]: volume for volume in pod_spec(job)["volumes"]}
    assert volumes["config"] == {"name": "config", "configMap": {"name": config_map["metadata"]["name"]}}


def test_children_are_owned_labelled_and_named_after_the_run() -> None:
    finetune = make_finetune()
    config_map, job = build(finetune)
    for metadata in (config_map["metadata"], job["metadata"]):
        assert metadata["name"] == name_of(finetune)
        assert metadata["labels"]["codetune.dev/finetune"] == "mine"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "codetune"
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("FineTune", "mine", "u1", True)


def test_a_gpu_run_gets_its_devices_and_shared_memory_and_a_cpu_run_neither() -> None:
    _, job = build(make_finetune(resources={"gpus": 2, "memory": "24Gi"}))
    (train,) = pod_spec(job)["containers"]
    assert train["resources"]["limits"]["nvidia.com/gpu"] in {2, "2"}
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod_spec(job)["volumes"]
    _, job = build(make_finetune(resources={"gpus": 0}))
    (train,) = pod_spec(job)["containers"]
    assert "nvidia.com/gpu" not in train["resources"].get("limits", {})
    assert "shm" not in {volume["name"] for volume in pod_spec(job)["volumes"]}


def test_only_the_fetching_init_container_has_the_hub_token() -> None:
    finetune = make_finetune(baseModel="hf://org/name@v1", modelSecretRef={"name": "hub"})
    settings = Settings.model_validate({"hub": {"endpoint": "https://mirror.example"}})
    config_map, job = build(finetune, settings)
    (train,), (fetch,) = pod_spec(job)["containers"], pod_spec(job)["initContainers"]
    assert env(fetch)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert env(fetch)["HF_ENDPOINT"] == "https://mirror.example"
    assert env(fetch)["CODETUNE_CONFIG"] == "/codetune/config/fetch.json"
    assert fetch["command"] == ["python", "-m", "codetune_trainer", "fetch"]
    assert "HF_TOKEN" not in env(train)
    assert (env(train)["HF_HUB_OFFLINE"], env(train)["CODETUNE_MODEL"]) == ("1", "/codetune/scratch/model")
    config = FetchConfig.model_validate_json(config_map["data"]["fetch.json"])
    assert (config.repository, config.revision) == ("org/name", "v1")
    assert config.nonce == json.loads(config_map["data"]["config.json"])["nonce"]


@pytest.mark.parametrize("asked", [True, False, None])
def test_embeddings_that_are_asked_for_are_checked_before_weights_are_fetched(asked: bool | None) -> None:
    config_map, _ = build(make_finetune(baseModel="hf://org/name", lora={"trainEmbeddings": asked}), Settings())
    config = FetchConfig.model_validate_json(config_map["data"]["fetch.json"])
    assert (config.training, config.train_embeddings) == (True, bool(asked))


def test_a_model_on_a_claim_is_mounted_read_only() -> None:
    _, job = build(make_finetune())
    (train,) = pod_spec(job)["containers"]
    assert {"name": "model", "mountPath": "/codetune/models/models", "readOnly": True} in train["volumeMounts"]
    assert env(train)["CODETUNE_MODEL"] == "/codetune/models/models/base"
    assert "initContainers" not in pod_spec(job) or pod_spec(job)["initContainers"] == []


def test_a_file_model_is_a_folder_below_the_file_root() -> None:
    _, job = build(make_finetune(baseModel="file:///SmolLM2"), Settings(file_root="/srv/files"))
    (train,) = pod_spec(job)["containers"]
    assert env(train)["CODETUNE_MODEL"] == "/srv/files/SmolLM2"


def test_a_queued_run_starts_suspended_with_kueues_label() -> None:
    _, job = build(make_finetune(scheduling={"queueName": "team"}))
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "queueName" not in pod_spec(job)


SAME_JOB = [
    pytest.param(True, {"suspend": True}, id="suspend"),
    pytest.param(True, {"ttlSecondsAfterFinished": 5}, id="ttl"),
    pytest.param(True, {"deletionPolicy": "Retain"}, id="deletion policy"),
    pytest.param(True, {"retries": 3, "checkpoints": {"keep": 3}, "resources": {"gpus": 1}}, id="defaults spelled out"),
    pytest.param(False, {"retries": 4}, id="retries"),
    pytest.param(True, {"resources": {"nodes": 1}}, id="one node spelled out"),
    pytest.param(False, {"resources": {"gpus": 2}}, id="resources"),
    pytest.param(False, {"resources": {"nodes": 2}}, id="nodes"),
    pytest.param(False, {"scheduling": {"nodeSelector": {"a": "b"}}}, id="scheduling"),
    pytest.param(False, {"checkpoints": {"keep": 9}}, id="checkpoints"),
    pytest.param(False, {"activeDeadlineSeconds": 60}, id="deadline"),
    pytest.param(False, {"uid": "u2"}, id="another object of the same name"),
]


@pytest.mark.parametrize(("same", "edit"), SAME_JOB)
def test_an_edit_makes_another_job_only_where_a_job_cannot_be_edited(same: bool, edit: Obj) -> None:
    assert (name_of(make_finetune()) == name_of(make_finetune(**edit))) is same


def test_another_dataset_makes_another_job_and_an_upgrade_of_the_operator_does_not() -> None:
    finetune = make_finetune()
    assert name_of(finetune) != name_of(finetune, "sha256:" + "b" * 64)
    upgraded = Settings.model_validate({"images": {"trainer": "registry/codetune-trainer:2"}})
    assert build(finetune)[1]["metadata"]["name"] == build(finetune, upgraded)[1]["metadata"]["name"]


def test_names_of_jobs_fit_into_a_label() -> None:
    finetune = make_finetune()
    longest = finetune.model_copy(update={"metadata": finetune.metadata.model_copy(update={"name": "n" * 48})})
    assert len(name_of(longest)) <= 63


def test_switching_an_old_job_keeps_what_cannot_be_changed() -> None:
    _, built = build(make_finetune())
    live = {**built, "spec": {**built["spec"], "template": {"old": "template"}, "selector": {"x": "y"}}}
    switched = switch_training(built, live, suspend=True)
    assert switched["spec"]["template"] == {"old": "template"}
    assert switched["spec"]["suspend"] is True
    assert "selector" not in switched["spec"]


def test_no_secret_value_and_no_path_of_this_machine_is_in_a_job() -> None:
    refused = locate_model("file:///SmolLM2", Settings())
    assert isinstance(refused, Failure)
    text = json.dumps(build(make_finetune(baseModel="hf://org/name", modelSecretRef={"name": "hub"})))
    assert "hostPath" not in text
    assert text.count('"hub"') == 1
