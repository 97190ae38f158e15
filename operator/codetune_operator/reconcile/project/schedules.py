"""When a Project is due: times of a cron expression in a time zone. Pure.

Times are UTC outside of this module. Daylight saving time is treated as Debian's cron does: a daily time that the clock
skips comes right after the gap, one in the hour that is repeated comes once, and `*` hours or minutes follow the
elapsed time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from codetune_api.common import Failure, FailureReason
from codetune_api.project import ProjectSpec
from cronsim import CronSim, CronSimError

INVALID_SCHEDULE: FailureReason = "InvalidSchedule"
"""Reason of a failure that is none of a scan."""
LONGEST_NAP_SECONDS = 600.0
"""The clock is asked at least this often while a time is ahead: timers stand still while a machine sleeps."""
_FIELDS = 5
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)


class InvalidSchedule(ValueError):
    """A schedule or time zone that can't be carried out; `failure` names field, value and cure."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.failure = Failure(reason=INVALID_SCHEDULE, message=message, hint=hint)


@dataclass(frozen=True)
class Schedule:
    """Times at which a Project is scanned."""

    expression: str
    zone: ZoneInfo

    def next_after(self, moment: datetime) -> datetime:
        """The first time after a moment. Raises: InvalidSchedule, when none comes within 50 years."""
        for time in CronSim(self.expression, moment.astimezone(self.zone)):
            found = time.astimezone(UTC)
            # In the hour that is repeated, the library starts over with the first of the two.
            if found > moment:
                return found
        raise InvalidSchedule(f"spec.schedule {self.expression!r} names a day that never comes.", "Name another one.")

    def last_until(self, moment: datetime) -> datetime | None:
        """The last time not after a moment; None when there was none for 50 years."""
        for time in CronSim(self.expression, (moment + timedelta(seconds=1)).astimezone(self.zone), reverse=True):
            found = time.astimezone(UTC)
            if found <= moment:
                return found
        return None


def read_schedule(spec: ProjectSpec) -> Schedule | None:
    """The schedule of a Project; None when it has none. Raises: InvalidSchedule."""
    if spec.schedule is None:
        return None
    zone = _read_zone(spec.time_zone)
    if len(spec.schedule.split()) != _FIELDS:
        raise InvalidSchedule(
            f"spec.schedule {spec.schedule!r} has not 5 fields.",
            "Give minute, hour, day of month, month and day of week, e.g. `0 3 * * *`.",
        )
    try:
        CronSim(spec.schedule, _SOME_DAY)
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        raise InvalidSchedule(
            f"spec.schedule {spec.schedule!r}: its {field} names no time.",
            "Ranges run upwards, steps are at least 1, and the day must be one that a chosen month has.",
        ) from error
    return Schedule(spec.schedule, zone)


def find_due(schedule: Schedule, next_scan_at: datetime | None, now: datetime) -> datetime | None:
    """The time that a scan is due for now, or None.

    However many times were missed, one scan makes up for them: it counts for the last of them.

    Args:
        schedule: The Project's.
        next_scan_at: The time that was announced as the next one; None: none was yet.
        now: The present.
    """
    if next_scan_at is None or next_scan_at > now:
        return None
    return max(next_scan_at, schedule.last_until(now) or next_scan_at)


def nap_seconds(next_scan_at: datetime | None, now: datetime) -> float | None:
    """Seconds until the clock is to be asked again; None when no time is ahead."""
    if next_scan_at is None or next_scan_at <= now:
        return None
    return min(LONGEST_NAP_SECONDS, (next_scan_at - now).total_seconds())


def _read_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidSchedule(
            f"spec.timeZone {name!r} is no time zone of the IANA database.",
            "Use a name such as Europe/Berlin or Etc/UTC.",
        ) from error
