"""What serves a ModelDeployment: spec in, whole objects out."""

import base64
import json
from typing import Any

import kubernetes_validate
import pytest
from codetune_api.contracts import DesiredAdapter, DesiredAdapters, FetchConfig
from codetune_api.modeldeployment import ModelDeployment
from codetune_operator.resources.modeldeployment.names import adapter_token, pod_selector
from codetune_operator.resources.modeldeployment.pod import rank_of, server_arguments
from codetune_operator.resources.modeldeployment.serving import build_serving
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.settings import Settings

Obj = dict[str, Any]
KEY = b"0123456789abcdef0123456789abcdef"
NONE = DesiredAdapters()
ONE = DesiredAdapters(adapters=[DesiredAdapter(name="mine", digest="sha256:" + "1" * 64, path="ns/a")])


def make_deployment(uid: str = "u1", **spec: Any) -> ModelDeployment:
    metadata = {"name": "coder", "namespace": "ns", "uid": uid, "generation": 1}
    spec = {"baseModel": "pvc://models/qwen", **spec}
    return ModelDeployment.from_wire(
        {"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": spec}
    )


def build(
    deployment: ModelDeployment, desired: DesiredAdapters = NONE, rank: int = 16, answers: bool = True
) -> dict[str, Obj]:
    """The objects by `kind/name`."""
    model = locate_model(deployment.spec.base_model, Settings())
    assert isinstance(model, ModelSource), model
    built = build_serving(deployment, desired, model, Settings(), operator_key=KEY, max_rank=rank, answers=answers)
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in built}


def pod_spec(objects: dict[str, Obj]) -> Obj:
    spec: Obj = objects["Deployment/coder"]["spec"]["template"]["spec"]
    return spec


def env(container: Obj) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


VARIANTS = [
    pytest.param({}, id="one GPU"),
    pytest.param({"resources": {"gpus": 0, "cpu": "2", "memory": "8Gi"}, "replicas": 0}, id="CPU, none"),
    pytest.param({"baseModel": "hf://org/name", "modelSecretRef": {"name": "hub"}}, id="hub model"),
    pytest.param({"apiKeysSecretRef": {"name": "keys"}, "env": [{"name": "A", "value": "b"}]}, id="keys"),
    pytest.param({"replicas": 3, "autoscaling": {"maxReplicas": 5}, "image": "mine:1"}, id="scaled"),
    pytest.param({"service": {"type": "NodePort", "port": 80}, "scheduling": {"nodeSelector": {"a": "b"}}}, id="port"),
]


@pytest.mark.parametrize("spec", VARIANTS)
def test_every_object_is_valid_kubernetes_owned_and_labelled(spec: Obj) -> None:
    objects = build(make_deployment(**spec), ONE)
    assert objects.keys() >= {
        "ConfigMap/coder-adapters", "Secret/coder-adapter-token", "Service/coder", "NetworkPolicy/coder",
        "Deployment/coder",
    }  # fmt: skip
    for built in objects.values():
        kubernetes_validate.validate(built, "1.37", strict=True)
        (owner,) = built["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("ModelDeployment", "u1")
        assert built["metadata"]["labels"]["codetune.dev/modeldeployment"] == "coder"


@pytest.mark.parametrize("spec", VARIANTS)
def test_every_container_is_restricted_and_reads_the_store_only(spec: Obj) -> None:
    pod = pod_spec(build(make_deployment(**spec)))
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (server,) = pod["containers"]
    (store,) = [mount for mount in server["volumeMounts"] if mount["name"] == "store"]
    assert store["readOnly"] is True


ARGUMENTS = [
    pytest.param(
        "--model /m --served-model-name qwen --port 8000 --max-lora-rank 16 --max-loras 4 --max-cpu-loras 16 "
        "--shutdown-timeout 110 --enable-lora",
        {},
        id="the least",
    ),
    pytest.param(
        "--model /m --served-model-name base --port 8000 --max-lora-rank 16 --max-loras 16 --max-cpu-loras 32 "
        "--tensor-parallel-size 2 --max-model-len 1024 --dtype bfloat16 --quantization fp8 "
        "--gpu-memory-utilization 0.8 --shutdown-timeout 590 --enable-lora --seed 1",
        {
            "servedModelName": "base",
            "resources": {"gpus": 2},
            "terminationGracePeriodSeconds": 600,
            "engine": {
                "maxLoras": 16,
                "maxModelLen": 1024,
                "dtype": "bfloat16",
                "quantization": "fp8",
                "gpuMemoryUtilization": 0.8,
                "extraArgs": ["--seed", "1"],
            },
        },
        id="everything, the user's own arguments last",
    ),
]


@pytest.mark.parametrize(("expected", "spec"), ARGUMENTS)
def test_vllm_is_started_with_its_own_options(expected: str, spec: Obj) -> None:
    assert " ".join(server_arguments(make_deployment(**spec), "/m", 16)) == expected


def test_changing_adapters_changes_no_pod_and_changing_the_rank_does() -> None:
    deployment = make_deployment()
    before, after = build(deployment), build(deployment, ONE)
    assert before["Deployment/coder"] == after["Deployment/coder"]
    data = after["ConfigMap/coder-adapters"]["data"]["adapters.json"]
    assert DesiredAdapters.model_validate_json(data) == ONE
    assert build(deployment, rank=64)["Deployment/coder"] != before["Deployment/coder"]


def test_the_rank_of_a_deployment_is_read_back() -> None:
    assert rank_of(build(make_deployment(), rank=64)["Deployment/coder"]) == 64
    assert rank_of(None) == 0


def test_where_nothing_answers_a_change_takes_away_what_hangs() -> None:
    spec = build(make_deployment(), answers=False)["Deployment/coder"]["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "100%"}}
    assert spec["template"] == build(make_deployment())["Deployment/coder"]["spec"]["template"], "no rollout for that"


def test_a_change_never_takes_the_service_down() -> None:
    spec = build(make_deployment(replicas=3))["Deployment/coder"]["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    (server,) = spec["template"]["spec"]["containers"]
    assert server["readinessProbe"]["httpGet"]["path"] == "/codetune/ready"
    assert server["startupProbe"]["httpGet"]["path"] == server["livenessProbe"]["httpGet"]["path"] == "/health"
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 1800
    assert spec["progressDeadlineSeconds"] > 1800


@pytest.mark.parametrize("grace", [30, 120, 3600])
def test_a_pod_that_goes_waits_for_its_requests_within_its_grace_period(grace: int) -> None:
    pod = pod_spec(build(make_deployment(terminationGracePeriodSeconds=grace)))
    (server,) = pod["containers"]
    hook = server["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[:4] == ["python", "-m", "codetune_server", "drain"]
    settle, wait = (int(hook[hook.index(name) + 1]) for name in ("--settle", "--seconds"))
    assert 0 < settle <= wait < grace
    assert hook[hook.index("--port") + 1] == "8000"
    assert pod["terminationGracePeriodSeconds"] == grace


def test_vllm_is_no_first_process_which_would_not_hear_of_its_end_while_it_loads() -> None:
    assert pod_spec(build(make_deployment()))["shareProcessNamespace"] is True


def test_the_time_to_load_a_model_is_the_specs_to_say() -> None:
    (server,) = pod_spec(build(make_deployment(startupTimeoutSeconds=7200)))["containers"]
    assert server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"] == 7200


def test_adapters_are_copied_into_a_volume_of_limited_size() -> None:
    pod = pod_spec(build(make_deployment(adapterCacheSize="1Gi")))
    (server,) = pod["containers"]
    assert {"name": "adapter-cache", "emptyDir": {"sizeLimit": "1Gi"}} in pod["volumes"]
    (mount,) = [mount for mount in server["volumeMounts"] if mount["name"] == "adapter-cache"]
    told = env(server)
    assert told["CODETUNE_ADAPTER_CACHE"].startswith(mount["mountPath"])
    assert 0.9 * 2**30 < int(told["CODETUNE_ADAPTER_CACHE_BYTES"]) < 2**30  # the kubelet evicts a pod above it


def test_api_keys_are_mounted_whole_so_that_they_can_be_renewed() -> None:
    pod = pod_spec(build(make_deployment(apiKeysSecretRef={"name": "keys"})))
    (server,) = pod["containers"]
    assert {"name": "api-keys", "secret": {"secretName": "keys", "optional": True}} in pod["volumes"]
    (mount,) = [mount for mount in server["volumeMounts"] if mount["name"] == "api-keys"]
    assert mount == {"name": "api-keys", "mountPath": env(server)["CODETUNE_API_KEYS"], "readOnly": True}
    assert "subPath" not in mount
    (open_server,) = pod_spec(build(make_deployment()))["containers"]
    assert "CODETUNE_API_KEYS" not in env(open_server)


def test_variables_of_the_spec_are_added_and_replace_our_defaults() -> None:
    mine = [
        {"name": "VLLM_NO_USAGE_STATS", "value": "0"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "EMPTY"},
    ]
    (server,) = pod_spec(build(make_deployment(env=mine)))["containers"]
    names = [entry["name"] for entry in server["env"]]
    assert len(names) == len(set(names))
    told = env(server)
    assert (told["VLLM_NO_USAGE_STATS"], told["EMPTY"]) == ("0", "")
    assert told["KEY"] == {"secretKeyRef": {"name": "s", "key": "k"}}


def test_an_image_of_ones_own_comes_with_its_secrets() -> None:
    pod = pod_spec(build(make_deployment(image="registry/x:1", imagePullSecrets=[{"name": "mine"}])))
    assert pod["containers"][0]["image"] == "registry/x:1"
    assert pod["imagePullSecrets"] == [{"name": "mine"}]


def test_several_gpus_split_the_model() -> None:
    (server,) = pod_spec(build(make_deployment(resources={"gpus": 4})))["containers"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert "--tensor-parallel-size 4" in " ".join(server["args"])


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_processes_share_as_much_memory_as_they_like(gpus: int) -> None:
    pod = pod_spec(build(make_deployment(resources={"gpus": gpus})))
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod["volumes"]


def test_the_service_finds_the_pods_and_only_them() -> None:
    objects = build(make_deployment(service={"port": 80}))
    selector = pod_selector(make_deployment())
    spec, service = objects["Deployment/coder"]["spec"], objects["Service/coder"]["spec"]
    assert spec["selector"]["matchLabels"] == service["selector"] == selector
    assert selector.items() <= spec["template"]["metadata"]["labels"].items()
    assert service["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    (server,) = spec["template"]["spec"]["containers"]
    assert server["ports"] == [{"name": "http", "containerPort": 8000, "protocol": "TCP"}]


def test_the_token_is_derived_from_the_operators_key_and_the_object() -> None:
    first, second = make_deployment(), make_deployment(uid="u2")
    token = adapter_token(KEY, first)
    assert len(token) == 64
    assert token != adapter_token(KEY, second)
    assert token != adapter_token(b"another", first)
    secret = build(first)["Secret/coder-adapter-token"]
    assert base64.b64decode(secret["data"]["token"]).decode() == token
    others = [built for name, built in build(first).items() if not name.startswith("Secret/")]
    assert token not in json.dumps(others)


def test_a_pod_is_told_by_environment_where_things_are() -> None:
    (server,) = pod_spec(build(make_deployment(baseModel="hf://org/name")))["containers"]
    told = env(server)
    assert told["CODETUNE_ADAPTERS"] == "/codetune/adapters/adapters.json"
    assert told["CODETUNE_ADAPTER_TOKEN_FILE"] == "/codetune/adapter-token/token"
    assert told["CODETUNE_BASE_MODEL"] == "hf://org/name@main"
    assert told["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert told["HF_HUB_OFFLINE"] == "1"
    assert told["CODETUNE_DEVICE"] == "cuda"
    assert {told[name].startswith("/codetune/scratch") for name in ("HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR")} == {
        True
    }


@pytest.mark.parametrize(
    ("expected", "resources"),
    [
        pytest.param("4", {"gpus": 0, "cpu": "4"}, id="cores"),
        pytest.param("2", {"gpus": 0, "cpu": "1500m"}, id="a part of one more"),
        pytest.param(None, {"gpus": 0}, id="all that the node has"),
    ],
)
def test_a_pod_knows_how_many_cores_it_asked_for(expected: str | None, resources: Obj) -> None:
    (server,) = pod_spec(build(make_deployment(resources=resources)))["containers"]
    assert env(server).get("CODETUNE_CPUS") == expected


@pytest.mark.parametrize(
    ("image", "device", "gpus"), [("codetune-server:", "cuda", 1), ("codetune-server-cpu:", "cpu", 0)]
)
def test_cpu_and_gpu_have_images_of_their_own(image: str, device: str, gpus: int) -> None:
    (server,) = pod_spec(build(make_deployment(resources={"gpus": gpus})))["containers"]
    assert image in server["image"]
    assert env(server)["CODETUNE_DEVICE"] == device


def test_only_the_fetching_init_container_has_the_hub_token_and_writes_the_store() -> None:
    objects = build(make_deployment(baseModel="hf://org/name@v1", modelSecretRef={"name": "hub"}))
    (fetch,), (server,) = pod_spec(objects)["initContainers"], pod_spec(objects)["containers"]
    assert env(fetch)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "HF_TOKEN" not in env(server)
    (store,) = [mount for mount in fetch["volumeMounts"] if mount["name"] == "store"]
    assert not store.get("readOnly")
    config = FetchConfig.model_validate_json(objects["ConfigMap/coder-fetch"]["data"]["fetch.json"])
    assert (config.repository, config.revision, config.name) == ("org/name", "v1", "coder")
