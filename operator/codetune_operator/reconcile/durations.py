"""Times for status: RFC 3339 in UTC, and time left for people. Pure."""

from datetime import UTC, datetime, timedelta


def format_time(moment: datetime) -> str:
    """RFC 3339 to the second, as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """A time of an API server or a log line, with or without a fraction. Raises: ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_until(text: str, after: float, now: datetime) -> float:
    """Seconds from now to `after` seconds past a time; negative when that is over."""
    return (parse_time(text) + timedelta(seconds=after) - now).total_seconds()


def say_duration(seconds: float) -> str:
    """As fine as a person can use it, like kubectl's ages: `40s`, `3m12s`, `12m`, `1h05m`, `2d03h`."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h"
