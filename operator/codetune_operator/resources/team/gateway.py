"""A Team's gateway, as whole objects: configuration, Service, Deployment. Pure.

A change of what it does comes with new pods, so that a rollout which is over means that the change is in force. Keys
are no part of that: they come by mounted Secrets, and a pod takes in by itself what becomes of those.
"""

from typing import Any

from codetune_api.common import Resources
from codetune_api.digests import digest_value
from codetune_api.gateway import ENV_SERVER_KEYS, ENV_TEAM_KEYS, METRICS_PORT, GatewayConfig
from codetune_api.metadata import ANNOTATION_CONFIG_DIGEST
from codetune_api.team import Team

from codetune_operator.resources.answering import ROLLING, build_probe, container_ports, service_spec
from codetune_operator.resources.jobs import config_mount, config_volume
from codetune_operator.resources.pods import CONFIG_KEY, container, pod_template
from codetune_operator.resources.team.names import (
    CONTAINER,
    PORT,
    build_object,
    gateway_labels,
    gateway_name,
    pod_selector,
)
from codetune_operator.resources.team.policies import build_policies
from codetune_operator.settings import Settings

Obj = dict[str, Any]

TEAM_KEYS_FOLDER = "/codetune/team-keys"
SERVER_KEYS_FOLDER = "/codetune/server-keys"
RESOURCES = Resources(gpus=0, cpu="100m", memory="512Mi")
"""Answers pass through in pieces; a request is held whole, 64 MiB at most, and for a moment as text and as JSON too."""
_GRACE_SECONDS = 120
"""It goes on for 5 s until every proxy has heard of its end, and then lets requests end for up to 100 s."""


def build_gateway(team: Team, config: GatewayConfig, settings: Settings) -> tuple[Obj, ...]:
    """Everything of the gateway, in the order in which it is applied: what pods mount or obey comes first."""
    stored = {
        **build_object(team, "v1", "ConfigMap"),
        "data": {CONFIG_KEY: config.model_dump_json(by_alias=True, indent=2)},
    }
    workload = build_object(team, "apps/v1", "Deployment")
    workload["spec"] = {
        "replicas": team.spec.replicas,
        "selector": {"matchLabels": pod_selector(team)},
        "strategy": ROLLING,
        "revisionHistoryLimit": 2,
        "template": _pod_template(team, config, settings),
    }
    return (stored, _build_service(team), *build_policies(team, settings), workload)


def digest_config(config: GatewayConfig) -> str:
    """What tells pods of one configuration from those of another."""
    return digest_value(config.model_dump(mode="json", by_alias=True))


def digest_of(deployment: Obj | None) -> str:
    """Digest of the configuration that a Deployment's pods are to have; empty when there is none."""
    template = (deployment or {}).get("spec", {}).get("template", {})
    return str((template.get("metadata", {}).get("annotations") or {}).get(ANNOTATION_CONFIG_DIGEST, ""))


def _build_service(team: Team) -> Obj:
    """The stable address of all replicas."""
    return {**build_object(team, "v1", "Service"), "spec": service_spec(team.spec.service, pod_selector(team))}


def _pod_template(team: Team, config: GatewayConfig, settings: Settings) -> Obj:
    secrets = _server_secrets(config)
    template = pod_template(
        labels=gateway_labels(team),
        containers=[_build_container(secrets, settings)],
        volumes=[
            config_volume(gateway_name(team)),
            _key_volume("team-keys", team.spec.api_keys_secret_ref.name),
            *(_key_volume(name, secret) for name, secret in secrets.items()),
        ],
        scheduling=team.spec.scheduling,
        settings=settings,
        restart_policy="Always",
        grace_seconds=_GRACE_SECONDS,
    )
    template["metadata"]["annotations"] = {ANNOTATION_CONFIG_DIGEST: digest_config(config)}
    return template


def _build_container(secrets: dict[str, str], settings: Settings) -> Obj:
    built = container(
        name=CONTAINER,
        image=settings.images.operator,
        command=["python", "-m", "codetune_gateway"],
        settings=settings,
        env={ENV_TEAM_KEYS: TEAM_KEYS_FOLDER, **({ENV_SERVER_KEYS: SERVER_KEYS_FOLDER} if secrets else {})},
        mounts=[
            config_mount(),
            {"name": "team-keys", "mountPath": TEAM_KEYS_FOLDER, "readOnly": True},
            *(
                {"name": name, "mountPath": f"{SERVER_KEYS_FOLDER}/{secret}", "readOnly": True}
                for name, secret in secrets.items()
            ),
        ],
        resources=RESOURCES,
        store="None",
    )
    return {
        **built,
        "ports": [*container_ports(PORT), {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "startupProbe": build_probe("/healthz", period=1, failures=60),
        # It admits nobody as long as it has no key.
        "readinessProbe": build_probe("/readyz", period=5, failures=2),
        "livenessProbe": build_probe("/healthz", period=10, failures=6),
    }


def _server_secrets(config: GatewayConfig) -> dict[str, str]:
    """Volume → Secret with keys of servers; volumes are counted, because names of Secrets are longer and have dots."""
    upstreams = [config.default, *config.projects.values()]
    names = sorted({upstream.keys for upstream in upstreams if upstream is not None and upstream.keys is not None})
    return {f"server-keys-{index}": name for index, name in enumerate(names)}


def _key_volume(volume: str, secret: str) -> Obj:
    """The pod starts without the Secret all the same and takes it in when it comes. 0440: its group reads it."""
    return {"name": volume, "secret": {"secretName": secret, "optional": True, "defaultMode": 0o440}}
