"""The store service of a namespace: there while somebody needs it. Pure: no client, no clock, no environment.

A Project with an upload source needs it always. To look at reports and files of other resources it is asked for by
annotation, until a time, so that nothing runs where nobody looks.
"""

from datetime import datetime, timedelta

from codetune_api.finetune import FineTune
from codetune_api.metadata import ANNOTATION_STORE_UNTIL, STORE_SERVICE, STORE_TOKEN_SECRET
from codetune_api.project import Project

from codetune_operator.reconcile.durations import parse_time
from codetune_operator.reconcile.observed import StoreView
from codetune_operator.reconcile.plan import ChildRef, Plan
from codetune_operator.resources.store import build_store
from codetune_operator.settings import Settings

LONGEST_WISH = timedelta(days=1)
"""A wish that reaches further is cut: a forgotten annotation must not keep a pod for years."""

_CHILDREN = (
    ChildRef("apps/v1", "Deployment", STORE_SERVICE),
    ChildRef("v1", "Service", STORE_SERVICE),
    ChildRef("v1", "Secret", STORE_TOKEN_SECRET),
)


def reconcile(view: StoreView, settings: Settings, now: datetime) -> Plan:
    """What to do about a namespace's store service now."""
    everybody: tuple[Project | FineTune, ...] = (*view.projects, *view.finetunes)
    staying = [found for found in everybody if not found.metadata.deletion_timestamp]
    uploading = [found for found in staying if isinstance(found, Project) and has_upload(found)]
    wishes = {found.metadata.uid: _seconds_wanted(found, now) for found in staying}
    owners = [found for found in staying if found in uploading or wishes[found.metadata.uid] > 0]
    if not owners:
        return Plan(delete=_CHILDREN if view.deployment is not None or view.service is not None else ())
    left = [seconds for seconds in wishes.values() if seconds > 0]
    return Plan(
        apply=build_store(view.namespace, owners, settings, view.operator_key),
        requeue_after=min(left) if left else None,
    )


def has_upload(project: Project) -> bool:
    """Whether files are sent to a Project."""
    return any(source.upload is not None for source in project.spec.sources)


def _seconds_wanted(resource: Project | FineTune, now: datetime) -> float:
    """How much longer the annotation asks for the service; 0 when it does not, or says no time."""
    text = resource.metadata.annotations.get(ANNOTATION_STORE_UNTIL, "")
    try:
        until = parse_time(text)
    except ValueError:
        return 0.0
    return max(0.0, (min(until, now + LONGEST_WISH) - now).total_seconds())
