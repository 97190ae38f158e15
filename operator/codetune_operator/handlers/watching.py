"""The watches: kopf calls these for every change, and they put it into the store and wake who is concerned.

kopf keeps no bookkeeping on the resources: these are plain event handlers, and no change, timer or daemon handlers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import kopf
from codetune_api.metadata import ARTIFACTS_CLAIM, FIELD_MANAGER, LABEL_MANAGED_BY

from codetune_operator.cluster.kinds import (
    CLAIM,
    DEPLOYMENT,
    FINETUNE,
    JOB,
    MODELDEPLOYMENT,
    NODE,
    POD,
    POLICIES,
    PROJECT,
    SERVICE,
    TEAM,
    Kind,
)
from codetune_operator.handlers.asking import ServingReports
from codetune_operator.handlers.executing import Executor
from codetune_operator.handlers.keys import Key, key_of
from codetune_operator.handlers.queueing import WorkQueue
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.handlers.waking import RECONCILED, concerned, node_offer

Obj = dict[str, Any]

CHILDREN = (JOB, DEPLOYMENT, SERVICE, *POLICIES, POD)
"""Children that are watched; they carry our label."""
LABEL_SELECTORS: Mapping[Kind, str] = dict.fromkeys(CHILDREN, f"{LABEL_MANAGED_BY}={FIELD_MANAGER}")
FIELD_SELECTORS: Mapping[Kind, str] = {CLAIM: f"metadata.name={ARTIFACTS_CLAIM}"}
"""What the API server is asked for of a kind, by labels and by fields: a cluster has many Pods that are not ours. The
claim goes by its name, because an administrator may have made it."""


@dataclass(frozen=True)
class Watcher:
    """Takes in what the watches report."""

    store: Store
    queue: WorkQueue
    executor: Executor
    logs: LogTracker
    serving: ServingReports

    def take_in(self, obj: Obj, *, gone: bool = False) -> None:
        """An object was made, changed, or is gone."""
        before = self._known(obj)
        news = self.store.remove(obj) if gone else self.store.put(obj)
        if not news:
            # An old version, or what the operator wrote itself: who is concerned was woken then.
            return
        if gone:
            self._forget(obj)
        if obj["kind"] == NODE.name and not gone and before is not None and node_offer(before) == node_offer(obj):
            return
        self.wake(obj)

    def wake(self, obj: Obj) -> None:
        """Have everyone look again who looks at this object."""
        for key in concerned(obj, self.store):
            self.queue.enqueue(key)

    def _known(self, obj: Obj) -> Obj | None:
        metadata = obj["metadata"]
        return next(
            (
                self.store.get(kind, metadata.get("namespace", ""), metadata["name"])
                for kind in (*RECONCILED, *CHILDREN, CLAIM, NODE)
                if kind.name == obj["kind"]
            ),
            None,
        )

    def _forget(self, obj: Obj) -> None:
        self.executor.forget(obj)
        if obj["kind"] == POD.name:
            self.serving.forget(obj["metadata"]["namespace"], obj["metadata"]["name"])
        elif any(kind.name == obj["kind"] for kind in RECONCILED):
            key: Key = key_of(obj)
            self.logs.forget(key)
            self.queue.forget(key)


def select(settings: kopf.OperatorSettings) -> None:
    """Have the API server send kopf only what matters: filters of kopf's handlers drop the rest when it has come."""
    for kind, selector in LABEL_SELECTORS.items():
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
    for kind, selector in FIELD_SELECTORS.items():
        settings.watching.field_selectors[kind.group, kind.version, kind.plural] = selector


def register(registry: kopf.OperatorRegistry, watcher: Callable[[], Watcher], *, nodes: bool) -> None:
    """Have kopf watch everything that matters; `select` says which objects of a kind.

    Args:
        registry: kopf's registry.
        watcher: Who takes it in, once the operator has started.
        nodes: Whether the operator may see nodes.
    """
    for kind in (*RECONCILED, *CHILDREN, CLAIM, *([NODE] if nodes else [])):
        _register(registry, watcher, kind)


def _register(registry: kopf.OperatorRegistry, watcher: Callable[[], Watcher], kind: Kind) -> None:
    # A coroutine, so that it runs in the event loop: kopf calls plain functions in threads.
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        obj: Obj = {"apiVersion": kind.api_version, "kind": kind.name, **event["object"]}
        watcher().take_in(obj, gone=event["type"] == "DELETED")

    identity = f"watch-{kind.plural}"
    kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=identity)(on_event)


WATCHED = (*CHILDREN, CLAIM, NODE, PROJECT, FINETUNE, MODELDEPLOYMENT, TEAM)
"""In the order in which they are listed at the start: owners last, so that their status is no older than their
children, and a child that their status knows of is never taken for missing."""
