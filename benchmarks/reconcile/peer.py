"""The peer: one kopf handler that makes a Job of each object, as kopf's documentation shows it. Nothing else."""

import os
from typing import Any

import kopf
from kubernetes import client, config


@kopf.on.startup()  # type: ignore[arg-type]
def connect(**_: Any) -> None:
    """Read the administrator's kubeconfig."""
    config.load_kube_config(os.environ["KUBECONFIG"])


@kopf.on.create("configmaps", labels={"benchmark": "peer"})  # type: ignore[arg-type]
def make_job(name: str, namespace: str, **_: Any) -> None:
    """One Job, which no node takes."""
    container = {"name": "train", "image": "none", "command": ["true"]}
    pod = {"restartPolicy": "Never", "nodeSelector": {"benchmark": "nowhere"}, "containers": [container]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": {"spec": pod}}}
    kopf.adopt(job)
    client.BatchV1Api().create_namespaced_job(namespace, job)
