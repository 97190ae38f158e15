"""What Projects tell besides what every resource does. Pure."""

from codetune_operator.metrics.families import RESOURCE, Family
from codetune_operator.metrics.series import Obj, Series, Values, find, measure, moment

_DECISIONS = {"trained": "trained", "held_out": "heldOut", "rejected": "rejected"}
"""Label → field of status.files; together they are all files."""


def _read_files(obj: Obj) -> Values:
    files = find(obj, "status", "files")
    return [((decision,), float(files.get(field, 0))) for decision, field in _DECISIONS.items()] if files else []


def _read_failing(obj: Obj) -> Values:
    """None before the first scan has told of any source."""
    sources = find(obj, "status", "sources") or ()
    return [((), float(sum(1 for source in sources if source.get("reason"))))] if sources else []


PROJECTS = (
    Series(
        Family(
            "codetune_project_files",
            "gauge",
            (*RESOURCE, "decision"),
            "Files of the last scan: trained, held_out or rejected; their sum is all files.",
        ),
        _read_files,
    ),
    measure(
        "codetune_project_accepted_bytes",
        *("status", "files", "bytes"),
        help="Size of the files that are trained on or held out.",
    ),
    moment(
        "codetune_project_last_scan_timestamp_seconds",
        *("status", "scannedAt"),
        help="When the last scan that ended well did, in seconds since 1970.",
    ),
    Series(
        Family(
            "codetune_project_failing_sources",
            "gauge",
            RESOURCE,
            "Sources that the last scan could not fetch, or not in full.",
        ),
        _read_failing,
    ),
)
