"""Looks at one resource: snapshot, plan, execution; and what a person is told when that is refused."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from codetune_api.common import Failure, FailureReason
from pydantic import ValidationError

from codetune_operator.cluster.kinds import FINETUNE, MODELDEPLOYMENT, PROJECT, TEAM, Kind
from codetune_operator.cluster.peeking import is_ending
from codetune_operator.errors import (
    ForbiddenError,
    LeftoverError,
    MissingError,
    NamespaceTerminatingError,
    OccupiedError,
    OperatorError,
    PermanentError,
)
from codetune_operator.handlers.executing import Executor
from codetune_operator.handlers.keys import STORE, Key
from codetune_operator.handlers.observing import Observer, deployment_slot, finetune_slot, project_slot
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.reconcile import conditions, finetune, modeldeployment, project, store, team
from codetune_operator.reconcile.plan import EventSpec, Plan
from codetune_operator.reconcile.refusals import refuse, tell_refusal
from codetune_operator.settings import Settings, describe_mistakes

Obj = dict[str, Any]

REFUSED_SECONDS = 300.0
"""When something is tried again that the API server refuses for good."""
OCCUPIED_SECONDS = 60.0
"""When it is looked again whether an object is still in the way."""
LEFTOVER_SECONDS = 5.0
TERMINATING_SECONDS = 5.0
_KINDS: dict[str, Kind] = {kind.name: kind for kind in (PROJECT, FINETUNE, MODELDEPLOYMENT, TEAM)}


@dataclass(frozen=True)
class Reconciler:
    """Brings resources to what was asked for; `look` is what the work queue calls."""

    settings: Settings
    store: Store
    observer: Observer
    executor: Executor
    logs: LogTracker

    async def look(self, key: Key) -> float | None:
        """Look at a resource. Returns: seconds after which to look again, or None. Raises: OperatorError."""
        if key.kind == STORE:
            return await self._reconcile_store(key)
        raw = self.store.get(_KINDS[key.kind], key.namespace, key.name)
        if raw is None:
            self.logs.forget(key)
            return None
        try:
            return await self._reconcile(key, raw)
        except ValidationError as error:
            await self._refuse(raw, error)
            return None
        except MissingError:
            # It went away while we looked; its DELETED event comes.
            return None
        except PermanentError as error:
            if await self._tells_of_the_end(error, key.namespace):
                return self._note_terminating(key.namespace)
            # Something may have been written before the refusal, so what was observed first is old.
            latest = self.store.get(_KINDS[key.kind], key.namespace, key.name) or raw
            return await self._tell_refusal(latest, error)

    async def _reconcile(self, key: Key, raw: Obj) -> float | None:
        now = datetime.now(UTC)
        if key.kind == PROJECT.name:
            return await self._reconcile_project(key, raw, now)
        if key.kind == FINETUNE.name:
            return await self._reconcile_finetune(key, raw, now)
        if key.kind == TEAM.name:
            return await self._execute(raw, team.reconcile(self.observer.view_team(raw), self.settings, now))
        view = await self.observer.view_modeldeployment(raw)
        plan = modeldeployment.reconcile(view, self.settings, now)
        slot = deployment_slot(view.modeldeployment)
        self.logs.forget(key, keep=slot)
        self.logs.update(key, slot, plan.follow, view.report)
        news = await self.executor.execute(raw, plan, view.pods)
        return 0.0 if news else plan.requeue_after

    async def _reconcile_project(self, key: Key, raw: Obj, now: datetime) -> float | None:
        view = self.observer.view_project(raw)
        plan = project.reconcile(view, self.settings, now)
        slot = project_slot(view.project)
        self.logs.forget(key, keep=slot)
        self.logs.update(key, slot, plan.follow, view.report)
        return await self._execute(raw, plan)

    async def _reconcile_finetune(self, key: Key, raw: Obj, now: datetime) -> float | None:
        view = self.observer.view_finetune(raw)
        plan = finetune.reconcile(view, self.settings, now)
        slot = finetune_slot(view.finetune)
        self.logs.forget(key, keep=slot)
        self.logs.update(key, slot, plan.follow, view.report)
        return await self._execute(raw, plan)

    async def _reconcile_store(self, key: Key) -> float | None:
        view = self.observer.view_store(key.namespace)
        plan = store.reconcile(view, self.settings, datetime.now(UTC))
        try:
            await self.executor.execute({"metadata": {"namespace": key.namespace, "name": key.name}}, plan)
        except PermanentError as error:
            if await self._tells_of_the_end(error, key.namespace):
                return self._note_terminating(key.namespace)
            # No resource has a status for it, so those who need it are told.
            event = EventSpec("Warning", "StoreServiceRefused", f"The store service can't be made: {error}")
            for raw in self.store.select(PROJECT, key.namespace):
                await self.executor.record(raw, event)
            return OCCUPIED_SECONDS if isinstance(error, OccupiedError) else REFUSED_SECONDS
        return plan.requeue_after

    async def _execute(self, raw: Obj, plan: Plan) -> float | None:
        await self.executor.execute(raw, plan)
        if plan.apply:
            self.observer.terminating.discard(raw["metadata"]["namespace"])
        return plan.requeue_after

    async def _refuse(self, raw: Obj, error: ValidationError) -> None:
        """A resource that can't be read: an older or newer version of its CRD let it in."""
        if raw["metadata"].get("deletionTimestamp"):
            # What can't be read can't be purged either; it must not be kept for ever.
            await self.executor.execute(raw, Plan(finalizer="Remove"))
            return
        mistakes = "; ".join(describe_mistakes(error))
        failure = refuse("InvalidSpec", f"This resource can't be read: {mistakes}.", "Correct it and apply it again.")
        await self._tell_failure(raw, failure)

    async def _tells_of_the_end(self, error: PermanentError, namespace: str) -> bool:
        """Whether something is refused because its namespace goes away; a Role in it may be gone before all else."""
        if isinstance(error, NamespaceTerminatingError):
            return True
        try:
            return isinstance(error, ForbiddenError) and await is_ending(self.executor.cluster, namespace=namespace)
        except OperatorError:
            return False

    def _note_terminating(self, namespace: str) -> float:
        """At once again when this is news: a resource that is being deleted can then let go."""
        known = namespace in self.observer.terminating
        self.observer.terminating.add(namespace)
        return TERMINATING_SECONDS if known else 0.0

    async def _tell_refusal(self, raw: Obj, error: PermanentError) -> float:
        """Say on a resource what was refused. Returns: seconds after which to try again."""
        if isinstance(error, LeftoverError):
            await self._tell(raw, conditions.reconciling("NameTaken", str(error)))
            return LEFTOVER_SECONDS
        if isinstance(error, OccupiedError):
            cure = f"Delete it, or give this {raw['kind']} another name; it goes on by itself then."
            await self._tell_failure(raw, refuse("NameTaken", str(error), cure))
            return OCCUPIED_SECONDS
        again = f"Mend what is named; it is tried again within {REFUSED_SECONDS / 60:.0f} minutes, and after an edit."
        reason: FailureReason = "Forbidden" if isinstance(error, ForbiddenError) else "Refused"
        await self._tell_failure(raw, refuse(reason, f"The API server refused: {str(error).rstrip('.')}.", again))
        return REFUSED_SECONDS

    async def _tell_failure(self, raw: Obj, failure: Failure) -> None:
        await self._tell(raw, conditions.stalled(failure.reason, f"{failure.message} {failure.hint}"), failure)

    async def _tell(self, raw: Obj, wanted: conditions.Wanted, failure: Failure | None = None) -> None:
        """Say on a resource why nothing is done about it."""
        generation = raw["metadata"]["generation"]
        told = tell_refusal(raw.get("status") or {}, wanted, failure, generation, datetime.now(UTC))
        try:
            await self.executor.write_status(raw, told)
        except MissingError:
            # Nobody is left to be told.
            return
