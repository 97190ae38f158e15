"""The loop around the Job controller's decisions."""

from codetune_local.controllers.job import reconcile_job
from codetune_local.controllers.job_retrying import RetryDelay
from codetune_local.machinery.client import Client
from codetune_local.machinery.executing import execute
from codetune_local.machinery.looping import Controller, itself, owner
from codetune_local.machinery.objects import Key, controlled_by
from codetune_local.machinery.reading import get_or_none
from codetune_local.machinery.recording import Recorder
from codetune_local.machinery.times import Clock, utc_now


def job_controller(client: Client, retry: RetryDelay, clock: Clock = utc_now) -> Controller:
    """Runs Jobs."""
    recorder = Recorder(client, "job-controller", clock=clock)

    async def reconcile(key: Key) -> float | None:
        namespace, name = key
        job = await get_or_none(client, "jobs.batch", name, namespace)
        if job is None:
            return None
        pods = await client.list("pods", namespace, where=controlled_by(job))
        plan = reconcile_job(job, pods, clock(), retry)
        await execute(plan, client, recorder)
        return plan.look_again

    return Controller("job", {"jobs.batch": itself, "pods": owner("Job")}, reconcile)
