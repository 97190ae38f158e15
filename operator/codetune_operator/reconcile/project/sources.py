"""What became of each source of a Project: the condition SourcesReady, retries, and what a person hears of it. Pure."""

from collections.abc import Sequence
from datetime import datetime

from codetune_api.common import Failure
from codetune_api.project import Project, ProjectStatus, SourceStatus

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.durations import parse_time, seconds_until
from codetune_operator.reconcile.plan import EventSpec
from codetune_operator.reconcile.project.bounding import MESSAGE_BYTES, clip

CONDITION = "SourcesReady"
TRANSIENT_REASONS = frozenset(
    {
        *("SourceUnavailable", "Evicted", "InternalError", "CrashLoop", "StartError", "DiskFull", "DeadlineExceeded"),
        *("StoreDenied", "StoreUnavailable"),
    }
)
"""Failures that may be over at the next attempt, without an edit of the Project."""
SHORTEST_RETRY_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 3600.0
_NOT_OF_A_SOURCE = frozenset(
    {
        "CrashLoop",
        "DeadlineExceeded",
        "DiskFull",
        "EmptyDataset",
        "Evicted",
        "ImagePull",
        "InternalError",
        "InvalidParameters",
        "OutOfMemory",
        "StartError",
        "StoreDamaged",
        "StoreDenied",
        "StoreUnavailable",
        "Unschedulable",
    }
)
"""Failures of a scan that tell nothing about any source."""
_OF_A_MODEL = frozenset({"GatedModel", "ModelNotFound", "UnsupportedModel"})
"""Failures of a scan that are about the model of `files.quality`."""
_SHOWN = 5


def describe_sources(project: str, sources: Sequence[SourceStatus]) -> conditions.Wanted:
    """The condition SourcesReady: how many sources failed, which, why, and the cure; nothing before the first scan.

    Args:
        project: Name of the Project.
        sources: `status.sources`.
    """
    failing = [source for source in sources if source.reason]
    if not sources:
        return {}
    if not failing:
        number = len(sources)
        return {CONDITION: ("True", "AllRead", "The source was read." if number == 1 else f"All {number} were read.")}
    told = [f"{source.name}: {source.message}" for source in failing[:_SHOWN]]
    more = [f"{len(failing) - _SHOWN} more: see status.sources"] if len(failing) > _SHOWN else []
    again = "This is tried again by itself." if any(map(_is_transient, failing)) else say_how_to_ask(project)
    message = f"{len(failing)} of {len(sources)} sources can't be read in full. {' '.join([*told, *more])} {again}"
    return {CONDITION: ("False", failing[0].reason, message)}


def say_how_to_ask(project: str) -> str:
    """What to do when the cure lies outside of the Project, where nobody sees it: the operator reads no Secrets."""
    return (
        "An edit of the Project starts another scan; after a change elsewhere (a Secret, the repository) ask for one: "
        f"kubectl annotate project {project} --overwrite codetune.dev/rescan=$(date +%s)"
    )


def is_of_a_source(failure: Failure) -> bool:
    """Whether a failure of a scan is about its sources."""
    return failure.reason not in _NOT_OF_A_SOURCE


def blame(project: Project, failure: Failure | None) -> list[SourceStatus]:
    """A scan's failure at the sources that it names; what each source had before stays."""
    before = {source.name: source for source in project.status.sources}
    if failure is None or not is_of_a_source(failure) or _is_of_the_model(project, failure):
        return list(project.status.sources)
    said = failure.message
    names = [source.name for source in project.spec.sources]
    blamed = names if len(names) == 1 else [name for name in names if repr(name) in said]
    told = {"reason": failure.reason, "message": clip(f"{said} {failure.hint}".strip(), MESSAGE_BYTES)}
    return [
        before.get(name, SourceStatus(name=name)).model_copy(
            update=told if name in blamed else {"reason": "", "message": ""}
        )
        for name in names
    ]


def _is_of_the_model(project: Project, failure: Failure) -> bool:
    """Whether it was the model of `files.quality` that could not be had; then the failure names it."""
    quality = project.spec.files.quality
    if quality is None:
        return False
    return failure.reason in _OF_A_MODEL or quality.base_model.partition("://")[2].split("@")[0] in failure.message


def seconds_to_source_retry(status: ProjectStatus, now: datetime) -> float | None:
    """Seconds until sources that failed are tried again, though the others gave a dataset; None: not by itself."""
    condition = conditions.find(status.conditions, CONDITION)
    if condition is None or status.scanned_at is None or not any(map(_is_transient, status.sources)):
        return None
    return seconds_to_retry(condition.last_transition_time, status.scanned_at, now)


def seconds_to_retry(since: str, ended: str, now: datetime) -> float:
    """Seconds until what failed is tried again: as long as the trouble lasts already, at least 1 min, at most 1 h.

    So the pause doubles with each attempt, and nothing has to be counted.

    Args:
        since: When the trouble began.
        ended: When the last attempt ended.
        now: The present.
    """
    lasting = (parse_time(ended) - parse_time(since)).total_seconds()
    return seconds_until(ended, min(max(lasting, SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS), now)


def build_source_events(before: ProjectStatus, after: ProjectStatus) -> tuple[EventSpec, ...]:
    """Which sources began to fail, and which can be read again."""
    failed, failing = _reasons(before), _reasons(after)
    events = []
    if any(failed.get(name) != reason for name, reason in failing.items()):
        condition = conditions.find(after.conditions, CONDITION)
        events.append(EventSpec("Warning", "SourceFailed", condition.message if condition else ""))
    healed = [source.name for source in after.sources if source.name in failed and source.name not in failing]
    if healed:
        events.append(EventSpec("Normal", "SourceRecovered", f"Can be read again: {', '.join(healed)}."))
    return tuple(events)


def _reasons(status: ProjectStatus) -> dict[str, str]:
    return {source.name: source.reason for source in status.sources if source.reason}


def _is_transient(source: SourceStatus) -> bool:
    return source.reason in TRANSIENT_REASONS
