"""Schedules: which times a cron expression means, and which of them a Project is scanned at. The clock is played.

The Story (conftest.py) has the real reconciler look whenever it asked to be woken, over simulated days.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from codetune_api.common import Failure
from codetune_api.project import ProjectSpec
from codetune_operator.reconcile.project.schedules import InvalidSchedule, Schedule, read_schedule
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from unit.operator.conftest import Story

Tell = Callable[..., "Story"]
BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def make_spec(schedule: str, zone: str = "Etc/UTC") -> ProjectSpec:
    source = {"name": "a", "git": {"url": "https://example.org/a.git"}}
    return ProjectSpec.from_wire({"sources": [source], "schedule": schedule, "timeZone": zone})


NEXT = [
    pytest.param("2026-11-24T03:00", "0 3 * * *", "Etc/UTC", "2026-11-23T10:00", id="tomorrow"),
    pytest.param("2026-11-24T02:00", "0 3 * * *", "Europe/Berlin", "2026-11-23T10:00", id="in its time zone"),
    pytest.param("2026-11-23T21:30", "0 3 * * *", "Asia/Kolkata", "2026-11-23T10:00", id="half an hour off"),
    pytest.param("2026-11-24T03:00", "0 3 * * *", "Etc/UTC", "2026-11-23T03:00", id="never the moment itself"),
    pytest.param("2026-11-30T00:00", "0 0 * * 1", "Etc/UTC", "2026-11-23T10:00", id="a day of the week"),
    pytest.param("2026-11-29T00:00", "0 0 * * 7", "Etc/UTC", "2026-11-23T10:00", id="Sunday is 7 too"),
    pytest.param("2026-11-24T00:00", "0 0 * * tue-FRI", "Etc/UTC", "2026-11-23T10:00", id="names"),
    pytest.param("2028-02-29T00:00", "0 0 29 2 *", "Etc/UTC", "2026-11-23T10:00", id="leap day"),
    pytest.param("2026-11-23T10:45", "*/15 * * * *", "Etc/UTC", "2026-11-23T10:31:07", id="steps"),
    # 29 March 2026: 02:00 is 03:00 in Berlin.
    pytest.param("2026-03-29T01:00", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", id="skipped by the clock"),
    pytest.param("2026-03-30T00:30", "30 2 * * *", "Europe/Berlin", "2026-03-29T01:00", id="the day after a gap"),
    pytest.param("2026-03-29T01:00", "0 * * * *", "Europe/Berlin", "2026-03-29T00:00", id="hourly over a gap"),
    # 25 October 2026: 03:00 is 02:00 in Berlin.
    pytest.param("2026-10-25T00:30", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", id="first of two hours"),
    pytest.param("2026-10-26T01:30", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:30", id="and not the second"),
    pytest.param("2026-10-26T01:30", "30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", id="asked in the second"),
    pytest.param("2026-10-25T01:00", "0 * * * *", "Europe/Berlin", "2026-10-25T00:00", id="hourly, both hours"),
]


@pytest.mark.parametrize(("expected", "expression", "zone", "moment"), NEXT)
def test_the_next_time_is(expected: str, expression: str, zone: str, moment: str) -> None:
    schedule = read_schedule(make_spec(expression, zone))

    assert schedule is not None
    assert schedule.next_after(utc(moment)) == utc(expected)


EXPRESSIONS = ["* * * * *", "*/7 * * * *", "30 2 * * *", "0 */3 * * *", "15 1-3 * * *", "0 0 1 * 1", "59 23 31 12 *"]
ZONES = ["Etc/UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
MOMENTS = st.integers(int(utc("2026-01-01T00:00").timestamp()), int(utc("2027-12-31T00:00").timestamp()))


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), MOMENTS)
def test_times_go_forward_and_none_lies_between_the_last_and_the_next(expression: str, zone: str, second: int) -> None:
    schedule, moment = Schedule(expression, ZoneInfo(zone)), datetime.fromtimestamp(second, UTC)

    ahead, behind = schedule.next_after(moment), schedule.last_until(moment)

    assert ahead > moment
    assert behind is not None
    assert behind <= moment
    assert ahead.utcoffset() == timedelta(0)
    assert schedule.next_after(behind) >= ahead


REFUSED = [
    pytest.param("names a day|names no time", "0 0 31 2 *", "Etc/UTC", id="a day that never comes"),
    pytest.param("its minute names no time", "5-1 * * * *", "Etc/UTC", id="a range backwards"),
    pytest.param("its hour names no time", "0 25 * * *", "Etc/UTC", id="out of range"),
    pytest.param("has not 5 fields", "0 0 3 * * *", "Etc/UTC", id="with seconds"),
    pytest.param("has not 5 fields", "@daily", "Etc/UTC", id="a macro"),
    pytest.param("spec.timeZone 'Europe/Berlim' is no time zone", "0 3 * * *", "Europe/Berlim", id="unknown zone"),
    pytest.param("is no time zone", "0 3 * * *", "Europe", id="half a zone"),
]


@pytest.mark.parametrize(("said", "expression", "zone"), REFUSED)
def test_a_schedule_that_can_t_be_carried_out_says_which_field_and_how_to_mend_it(
    said: str, expression: str, zone: str, story: Tell
) -> None:
    with pytest.raises(InvalidSchedule, match=said):
        read_schedule(make_spec(expression, zone))

    told = story(schedule=expression, timeZone=zone)
    told.settle()

    assert (told.status.phase, told.condition("Ready")) == ("Failed", "False/InvalidSchedule")
    assert told.condition("Stalled") == "True/InvalidSchedule"
    assert told.status.failure is not None
    assert told.status.failure.reason == "InvalidSchedule"
    assert re.search(said, told.status.failure.message)
    assert told.status.failure.hint
    assert [event.reason for event in told.events] == ["InvalidSchedule"]
    assert told.scans == []


def test_a_project_without_a_schedule_is_scanned_once(story: Tell) -> None:
    told = story()

    told.run_until(told.now + timedelta(days=30))

    assert len(told.scans) == 1
    assert told.status.next_scan_at is None


def test_a_nightly_project_is_scanned_every_night_without_drift(story: Tell) -> None:
    told = story(schedule="0 3 * * *")

    told.run_until(told.now + timedelta(days=10))

    first, *nights = [scan.began for scan in told.scans]
    assert first == utc("2026-11-23T10:00")
    assert nights == [utc("2026-11-24T03:00") + timedelta(days=day) for day in range(10)]
    assert told.status.last_scheduled_at == "2026-12-03T03:00:00Z"
    assert told.status.next_scan_at == "2026-12-04T03:00:00Z"


def test_the_operator_does_not_look_more_often_than_every_ten_minutes_while_it_waits(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.run_until(utc("2026-11-23T11:00"))
    before = told.looks

    told.run_until(utc("2026-11-24T02:00"))

    assert told.looks - before <= 2 * 15 * 6


CHANGES = [
    pytest.param(
        ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"], "2026-03-27T12:00", id="the hour is skipped"
    ),
    pytest.param(
        ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"], "2026-10-23T12:00", id="the hour comes twice"
    ),
]


@pytest.mark.parametrize(("expected", "start"), CHANGES)
def test_summer_time_begins_and_ends_with_one_scan_a_night(expected: list[str], start: str, story: Tell) -> None:
    told = story(now=utc(start), schedule="30 2 * * *", timeZone="Europe/Berlin")

    told.run_until(utc(start) + timedelta(days=3))

    assert [scan.began for scan in told.scans[1:]] == [utc(moment) for moment in expected]


def test_times_that_were_missed_while_the_operator_was_down_are_made_up_for_by_one_scan(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.run_until(utc("2026-11-23T11:00"))

    told.now = utc("2026-12-01T09:00")  # nobody looked for eight nights
    told.run_until(utc("2026-12-02T02:00"))

    assert [scan.began for scan in told.scans[1:]] == [utc("2026-12-01T09:00")]
    assert told.status.last_scheduled_at == "2026-12-01T03:00:00Z"
    assert told.status.next_scan_at == "2026-12-02T03:00:00Z"


def test_a_restart_right_after_a_scan_was_started_starts_no_other(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.run_until(utc("2026-11-24T03:00:10"))
    assert len(told.scans) == 2

    told.settle()  # a new operator has nothing but what is in the cluster
    told.now = utc("2026-11-24T03:00:20")
    told.settle()

    assert len(told.scans) == 2


def test_a_scan_that_takes_longer_than_its_schedule_is_not_replaced_but_followed_by_one(story: Tell) -> None:
    told = story(schedule="*/10 * * * *")
    told.scan_seconds = 25 * 60

    told.run_until(utc("2026-11-23T12:00"))

    assert all(scan.ends - scan.began == timedelta(minutes=25) for scan in told.scans)
    assert [scan.began for scan in told.scans] == [
        utc(f"2026-11-23T{time}") for time in ("10:00", "10:25", "10:50", "11:15", "11:40")
    ]


def test_a_new_schedule_counts_from_when_it_was_set(story: Tell) -> None:
    told = story()
    told.run_until(utc("2026-11-25T10:00"))

    told.edit(schedule="0 3 * * *")
    told.run_until(utc("2026-11-26T02:59"))
    early = len(told.scans)
    told.run_until(utc("2026-11-26T03:01"))

    assert (early, len(told.scans)) == (1, 2)


def test_an_edited_schedule_is_no_reason_to_scan(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.run_until(utc("2026-11-23T11:00"))

    told.edit(schedule="0 5 * * *", timeZone="Europe/Berlin")

    assert told.status.next_scan_at == "2026-11-24T04:00:00Z"
    assert len(told.scans) == 1
    assert told.condition("Ready") == "True/Scanned"


def test_times_that_pass_while_a_project_is_suspended_are_left_out(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.run_until(utc("2026-11-23T11:00"))
    told.edit(suspend=True)
    assert told.status.next_scan_at is None

    told.run_until(utc("2026-11-30T10:00"))
    told.edit(suspend=False)
    told.run_until(utc("2026-11-30T12:00"))

    assert len(told.scans) == 1
    assert told.status.next_scan_at == "2026-12-01T03:00:00Z"


def test_a_schedule_that_is_mended_goes_on_where_the_project_was(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.run_until(utc("2026-11-23T11:00"))

    before = told.status
    told.edit(timeZone="Mars/Olympus")
    refused = told.status
    told.edit(timeZone="Europe/Berlin")

    assert (refused.phase, refused.revision, refused.config_digest) == ("Failed", before.revision, before.config_digest)
    assert (told.status.phase, told.status.failure, len(told.scans)) == ("Ready", None, 1)


def test_a_schedule_that_is_mended_while_a_project_is_suspended_asks_for_no_scan(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.run_until(utc("2026-11-23T11:00"))

    told.edit(suspend=True, timeZone="Mars/Olympus")
    told.edit(timeZone="Etc/UTC")
    suspended = told.status
    told.edit(suspend=False)

    assert (suspended.phase, suspended.failure) == ("Suspended", None)
    assert (told.status.phase, len(told.scans)) == ("Ready", 1)


def test_a_scan_that_failed_is_told_again_once_the_schedule_is_mended(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.outcomes = [Failure(reason="RevisionNotFound", message="Source 'app' has no branch x.", hint="Correct it.")]
    told.run_until(utc("2026-11-23T11:00"))

    told.edit(schedule="0 0 31 2 *")
    refused = told.status.failure
    told.edit(schedule="0 3 * * *")

    assert refused is not None
    assert refused.reason == "InvalidSchedule"
    assert told.status.failure == told.outcomes[0]
    assert told.condition("Stalled") == "True/RevisionNotFound"
    assert len(told.scans) == 1


def test_a_schedule_that_breaks_while_a_scan_runs_does_not_stop_the_scan(story: Tell) -> None:
    told = story(schedule="0 3 * * *")
    told.settle()
    told.edit(schedule="5-1 3 * * *")
    told.now += timedelta(minutes=1)
    told.settle()

    told.edit(schedule="0 3 * * *")

    assert (told.status.phase, len(told.scans)) == ("Ready", 1)
