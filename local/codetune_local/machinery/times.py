"""Times as Kubernetes writes them. Everything inside is an aware datetime in UTC."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """metav1.Time: whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """metav1.MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Read a metav1.Time or MicroTime; digits past the microsecond are dropped. Raises: ValueError."""
    body = text.removesuffix("Z")
    if "." in body:
        whole, _, fraction = body.partition(".")
        body = f"{whole}.{fraction[:6]:0<6}"
    return datetime.fromisoformat(body + "+00:00") if text.endswith("Z") else datetime.fromisoformat(text)
