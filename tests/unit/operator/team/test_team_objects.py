"""A Team's gateway: spec in, whole objects out; and what its pods are told about models and keys."""

import json
from typing import Any

import kubernetes_validate
import pytest
from codetune_api.gateway import GatewayConfig
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.team import Team
from codetune_operator.reconcile.team.routes import build_config, find_routes
from codetune_operator.resources.team.gateway import build_gateway, digest_of
from codetune_operator.settings import Settings

Obj = dict[str, Any]


def make_team(**spec: Any) -> Team:
    metadata = {"name": "web", "namespace": "ns", "uid": "t1", "generation": 1}
    spec = {"apiKeysSecretRef": {"name": "web-keys"}, "completionModel": completes("coder"), **spec}
    return Team.from_wire({"apiVersion": "codetune.dev/v1alpha1", "kind": "Team", "metadata": metadata, "spec": spec})


def completes(deployment: str, model: str | None = None) -> Obj:
    return {"deploymentRef": {"name": deployment}, **({"model": model} if model else {})}


def make_mdep(name: str = "coder", endpoint: str | None = None, **spec: Any) -> ModelDeployment:
    return ModelDeployment.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {"baseModel": "pvc://models/qwen", **spec},
            "status": {"endpoint": endpoint} if endpoint else {},
        }
    )


def configure(team: Team, *deployments: ModelDeployment, settings: Settings | None = None) -> GatewayConfig:
    found = {deployment.metadata.name: deployment for deployment in deployments}
    return build_config(team, find_routes(team.spec), found, settings or Settings())


def build(team: Team, *deployments: ModelDeployment, settings: Settings | None = None) -> dict[str, Obj]:
    """The objects by kind."""
    built = build_gateway(team, configure(team, *deployments, settings=settings), settings or Settings())
    assert {each["metadata"]["name"] for each in built} == {"web-gateway"}
    return {each["kind"]: each for each in built}


def template(objects: dict[str, Obj]) -> Obj:
    found: Obj = objects["Deployment"]["spec"]["template"]
    return found


KEYS: Obj = {"apiKeysSecretRef": {"name": "server-keys.internal"}}
VARIANTS = [
    pytest.param({}, {}, id="the least"),
    pytest.param({"replicas": 3, "limits": {"requestsPerMinute": 100}}, {}, id="three, and a limit"),
    pytest.param({"replicas": 0, "service": {"type": "NodePort", "port": 80}}, {}, id="none, and a port of the nodes"),
    pytest.param({}, {"s3": {}, "store": {"bucket": "s3://bucket/x"}}, id="a bucket as store"),
    pytest.param({"scheduling": {"nodeSelector": {"a": "b"}, "priorityClassName": "high"}}, {}, id="scheduled"),
]


@pytest.mark.parametrize(("spec", "settings"), VARIANTS)
def test_every_object_is_valid_kubernetes_owned_and_labelled(spec: Obj, settings: Obj) -> None:
    objects = build(make_team(**spec), make_mdep(**KEYS), settings=Settings.model_validate(settings))
    assert objects.keys() >= {"ConfigMap", "Service", "NetworkPolicy", "Deployment"}
    for built in objects.values():
        kubernetes_validate.validate(built, "1.37", strict=True)
        (owner,) = built["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Team", "web", "t1")
        assert built["metadata"]["labels"]["codetune.dev/team"] == "web"
        assert built["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"


@pytest.mark.parametrize(("spec", "settings"), VARIANTS)
def test_a_gateway_is_restricted_and_has_neither_the_store_nor_anybodys_rights(spec: Obj, settings: Obj) -> None:
    pod = template(build(make_team(**spec), make_mdep(), settings=Settings.model_validate(settings)))["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {volume["name"] for volume in pod["volumes"]} == {"scratch", "config", "team-keys"}
    variables = {entry["name"] for entry in container["env"]}
    assert not variables & {"CODETUNE_STORE", "CODETUNE_BUCKET", "AWS_REGION", "CODETUNE_SERVER_KEYS"}


def test_the_gateway_runs_from_the_image_of_the_operator_and_answers_its_probes() -> None:
    pod = template(build(make_team(), make_mdep()))["spec"]
    (container,) = pod["containers"]
    assert container["image"] == Settings().images.operator
    assert container["command"] == ["python", "-m", "codetune_gateway"]
    assert container["ports"] == [
        {"name": "http", "containerPort": 8000, "protocol": "TCP"},
        {"name": "metrics", "containerPort": 8001, "protocol": "TCP"},
    ]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "512Mi"},
        "limits": {"memory": "512Mi"},
    }
    assert pod["terminationGracePeriodSeconds"] == 120


def test_no_service_leads_to_the_metrics() -> None:
    (port,) = build(make_team(), make_mdep())["Service"]["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")


def test_keys_come_as_files_and_need_not_be_there_yet() -> None:
    team = make_team(projects=[{"projectRef": {"name": "shop"}, "completionModel": completes("big")}])
    pod = template(build(team, make_mdep(**KEYS), make_mdep("big", apiKeysSecretRef={"name": "big-keys"})))["spec"]
    volumes = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    assert volumes == {
        "team-keys": {"secretName": "web-keys", "optional": True, "defaultMode": 0o440},
        "server-keys-0": {"secretName": "big-keys", "optional": True, "defaultMode": 0o440},
        "server-keys-1": {"secretName": "server-keys.internal", "optional": True, "defaultMode": 0o440},
    }
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in volumes}
    assert mounts == {
        "team-keys": "/codetune/team-keys",
        "server-keys-0": "/codetune/server-keys/big-keys",
        "server-keys-1": "/codetune/server-keys/server-keys.internal",
    }
    assert all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] in volumes)
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert variables["CODETUNE_TEAM_KEYS"] == "/codetune/team-keys"
    assert variables["CODETUNE_SERVER_KEYS"] == "/codetune/server-keys"


def test_a_secret_that_several_servers_take_their_keys_from_is_mounted_once() -> None:
    team = make_team(projects=[{"projectRef": {"name": "shop"}, "completionModel": completes("big")}])
    pod = template(build(team, make_mdep(**KEYS), make_mdep("big", **KEYS)))["spec"]
    assert [volume["name"] for volume in pod["volumes"] if "secret" in volume] == ["team-keys", "server-keys-0"]


def test_the_gateway_reads_the_configuration_that_is_stored() -> None:
    team = make_team(limits={"requestsPerMinute": 90}, replicas=2)
    objects = build(team, make_mdep(**KEYS))
    stored = GatewayConfig.model_validate_json(objects["ConfigMap"]["data"]["config.json"])
    assert stored == configure(team, make_mdep(**KEYS))
    pod = template(objects)["spec"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "config"]
    assert volume["configMap"] == {"name": "web-gateway"}
    variables = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert variables["CODETUNE_CONFIG"] == "/codetune/config/config.json"


CHANGES = [
    pytest.param(False, {}, {}, id="nothing"),
    pytest.param(False, {"replicas": 5}, {}, id="replicas"),
    pytest.param(False, {"service": {"port": 80}}, {}, id="the Service"),
    pytest.param(True, {"completionModel": completes("coder", "mine")}, {}, id="another model"),
    pytest.param(True, {"projects": [{"projectRef": {"name": "shop"}}]}, {}, id="a project"),
    pytest.param(True, {"limits": {"requestsPerMinute": 60}}, {}, id="a limit"),
    pytest.param(True, {}, {"servedModelName": "other"}, id="the base model has another name"),
    pytest.param(True, {}, {"service": {"port": 80}}, id="its Service has another port"),
    pytest.param(True, {}, KEYS, id="it asks for keys"),
    pytest.param(False, {}, {"replicas": 5, "adapters": [{"name": "a", "uri": "pvc://a/b"}]}, id="adapters"),
]


@pytest.mark.parametrize(("expected", "spec", "served"), CHANGES)
def test_pods_are_replaced_when_what_they_do_changes_and_only_then(expected: bool, spec: Obj, served: Obj) -> None:
    before, after = build(make_team(), make_mdep()), build(make_team(**spec), make_mdep(**served))
    assert (template(before) != template(after)) is expected
    assert (digest_of(before["Deployment"]) != digest_of(after["Deployment"])) is expected
    assert digest_of(None) == ""


def test_a_gateway_is_no_first_process_which_would_not_hear_of_its_end_while_it_starts() -> None:
    assert template(build(make_team()))["spec"]["shareProcessNamespace"] is True


def test_a_rollout_takes_no_pod_away_before_its_successor_is_ready() -> None:
    strategy = build(make_team())["Deployment"]["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


BY_ADDRESS = Settings(endpoint="ClusterIP")
HERE = "http://10.96.0.5:8000"
UPSTREAMS = [
    pytest.param(
        {"url": "http://coder.ns.svc:8000", "model": "qwen", "deployment": "coder", "keys": None},
        completes("coder"),
        [make_mdep()],
        Settings(),
        id="the base model",
    ),
    pytest.param(
        {"url": "http://coder.ns.svc:80", "model": "base", "deployment": "coder", "keys": "server-keys.internal"},
        completes("coder"),
        [make_mdep(servedModelName="base", service={"port": 80}, **KEYS)],
        Settings(),
        id="its own name, port and keys",
    ),
    pytest.param(
        {"url": "http://coder.ns.svc:8000", "model": "mine", "deployment": "coder", "keys": None},
        completes("coder", "mine"),
        [make_mdep()],
        Settings(),
        id="an adapter",
    ),
    pytest.param(
        {"url": "http://coder.ns.svc:8000", "model": "mine", "deployment": "coder", "keys": None},
        completes("coder", "mine"),
        [],
        Settings(),
        id="a deployment that is not there: its name is known",
    ),
    pytest.param(
        {"url": None, "model": "", "deployment": "coder", "keys": None},
        completes("coder"),
        [],
        Settings(),
        id="nor is the name of its base model",
    ),
    pytest.param(
        {"url": HERE, "model": "qwen", "deployment": "coder", "keys": None},
        completes("coder"),
        [make_mdep(endpoint=HERE)],
        BY_ADDRESS,
        id="by address",
    ),
    pytest.param(
        {"url": None, "model": "qwen", "deployment": "coder", "keys": None},
        completes("coder"),
        [make_mdep()],
        BY_ADDRESS,
        id="its Service has no address yet",
    ),
]


@pytest.mark.parametrize(("expected", "wanted", "deployments", "settings"), UPSTREAMS)
def test_a_model_is_where_its_deployment_serves_it(
    expected: Obj, wanted: Obj, deployments: list[ModelDeployment], settings: Settings
) -> None:
    config = configure(make_team(completionModel=wanted), *deployments, settings=settings)
    assert config.default is not None
    assert config.default.model_dump() == expected


def test_a_project_without_a_model_of_its_own_has_the_teams() -> None:
    projects = [
        {"projectRef": {"name": "shop"}},
        {"projectRef": {"name": "app"}, "completionModel": completes("big", "app")},
    ]
    config = configure(make_team(projects=projects), make_mdep(), make_mdep("big"))
    assert config.default == config.projects["shop"]
    assert (config.projects["app"].deployment, config.projects["app"].model) == ("big", "app")


def test_without_a_default_each_request_names_a_project() -> None:
    projects = [{"projectRef": {"name": "app"}, "completionModel": completes("big")}]
    config = configure(make_team(completionModel=None, projects=projects), make_mdep("big"))
    assert config.default is None
    assert [*config.projects] == ["app"]


@pytest.mark.parametrize(
    ("expected", "limit", "replicas"),
    [(None, None, 1), (600.0, 600, 1), (200.0, 600, 3), (0.5, 1, 2), (600.0, 600, 0)],
)
def test_each_pod_admits_its_share(expected: float | None, limit: int | None, replicas: int) -> None:
    limits = {"requestsPerMinute": limit} if limit else {}
    assert configure(make_team(limits=limits, replicas=replicas)).requests_per_minute == expected


def test_the_stored_configuration_names_no_key() -> None:
    text = json.dumps(build(make_team(), make_mdep(**KEYS))["ConfigMap"]["data"])
    assert "web-keys" not in text
