"""The loops around the decisions for Deployments and ReplicaSets."""

from codetune_local.controllers.deployment import reconcile_deployment
from codetune_local.controllers.replicaset import reconcile_replicaset
from codetune_local.machinery.client import ApiError, Client
from codetune_local.machinery.executing import execute, write_status
from codetune_local.machinery.looping import Controller, itself, owner
from codetune_local.machinery.objects import Key, Obj, controlled_by, name_of, namespace_of, uid_of
from codetune_local.machinery.reading import get_or_none
from codetune_local.machinery.recording import Recorder
from codetune_local.machinery.times import Clock, utc_now


def replicaset_controller(client: Client, clock: Clock = utc_now) -> Controller:
    """Keeps the number of pods of each ReplicaSet."""
    recorder = Recorder(client, "replicaset-controller", clock=clock)

    async def reconcile(key: Key) -> float | None:
        namespace, name = key
        replicaset = await get_or_none(client, "replicasets.apps", name, namespace)
        if replicaset is None:
            return None
        pods = await client.list("pods", namespace, where=controlled_by(replicaset))
        plan = reconcile_replicaset(replicaset, pods, clock())
        await execute(plan, client, recorder)
        return plan.look_again

    return Controller("replicaset", {"replicasets.apps": itself, "pods": owner("ReplicaSet")}, reconcile)


def deployment_controller(client: Client, clock: Clock = utc_now) -> Controller:
    """Rolls out Deployments."""
    recorder = Recorder(client, "deployment-controller", clock=clock)

    async def reconcile(key: Key) -> float | None:
        namespace, name = key
        deployment = await get_or_none(client, "deployments.apps", name, namespace)
        if deployment is None:
            return None
        replicasets = await client.list("replicasets.apps", namespace, where=controlled_by(deployment))
        pods = await client.list("pods", namespace, where=controlled_by(*replicasets))
        plan = reconcile_deployment(deployment, replicasets, pods, clock())
        try:
            await execute(plan, client, recorder)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            await _count_collision(client, deployment)
        return plan.look_again

    triggers = {"deployments.apps": itself, "replicasets.apps": owner("Deployment"), "pods": _deployment_of_pod}
    return Controller("deployment", triggers, reconcile)


def _deployment_of_pod(pod: Obj) -> list[Key]:
    """The Deployment of a pod, by the name of its ReplicaSet without the hash: Recreate waits for the end of pods."""
    return [
        (namespace_of(pod), reference["name"].rpartition("-")[0])
        for reference in pod["metadata"].get("ownerReferences") or []
        if reference["kind"] == "ReplicaSet"
    ]


async def _count_collision(client: Client, deployment: Obj) -> None:
    """A foreign ReplicaSet has the name that ours would get: the next hash is another one."""

    def make(current: Obj) -> Obj:
        status = current.get("status") or {}
        return {**status, "collisionCount": status.get("collisionCount", 0) + 1}

    key = namespace_of(deployment), name_of(deployment), uid_of(deployment)
    await write_status(client, "deployments.apps", *key, make)
