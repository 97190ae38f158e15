"""Sources that fail: what stays, what is said and where, what is tried again, and what a person hears. Clock played."""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.common import Failure
from codetune_api.contracts import ScanResult
from codetune_operator.reconcile.project.sources import describe_sources

if TYPE_CHECKING:
    from unit.operator.conftest import Story

Tell = Callable[..., "Story"]
Make = Callable[..., ScanResult]

SOURCES = [
    {"name": "app", "git": {"url": "https://git.example.org/app.git"}},
    {"name": "lib", "git": {"url": "https://git.example.org/lib.git"}},
]
AWAY = Failure(reason="SourceUnavailable", message="No route to git.example.org.", hint="Check the network.")
DENIED = Failure(reason="AuthenticationFailed", message="Source 'app': wrong password.", hint="Correct the Secret.")


def events_of(told: "Story", *reasons: str) -> list[str]:
    return [event.reason for event in told.events if event.reason in reasons]


def test_a_failing_source_is_told_while_the_project_stays_ready(story: Tell, result: Make) -> None:
    told = story(sources=SOURCES)
    told.outcomes = [result(app="", lib="RevisionNotFound")]

    told.run_until(told.now + timedelta(hours=5))

    assert (told.status.phase, told.condition("Ready")) == ("Ready", "True/Scanned")
    assert told.condition("SourcesReady") == "False/RevisionNotFound"
    assert told.condition("Stalled") == told.condition("Reconciling") == ""
    assert [(source.name, source.reason) for source in told.status.sources] == [
        ("app", ""),
        ("lib", "RevisionNotFound"),
    ]
    assert len(told.scans) == 1, "what is permanent is not tried again by itself"


def test_the_condition_says_how_many_which_why_and_what_is_done(result: Make) -> None:
    sources = result(app="", lib="SourceUnavailable").sources

    (condition,) = describe_sources("mine", sources).values()

    assert condition == (
        "False",
        "SourceUnavailable",
        "1 of 2 sources can't be read in full. lib: SourceUnavailable: No. This is tried again by itself.",
    )


@pytest.mark.parametrize("reason", ["HostKeyUnknown", "HostKeyChanged", "PathNotFound", "RevisionNotFound"])
def test_what_only_a_person_can_mend_is_told_with_the_way_to_ask_again(result: Make, reason: str) -> None:
    (condition,) = describe_sources("mine", result(app="", lib=reason).sources).values()

    assert condition[:2] == ("False", reason)
    assert "kubectl annotate project mine --overwrite codetune.dev/rescan=" in condition[2]


@pytest.mark.parametrize("reason", ["HostKeyUnknown", "HostKeyChanged", "PathNotFound"])
def test_a_git_failure_of_the_only_source_fails_the_project_until_somebody_acts(
    story: Tell, result: Make, reason: Any
) -> None:
    told = story()
    told.outcomes = [Failure(reason=reason, message="No.", hint="Put it into `known_hosts`.")]

    told.run_until(told.now + timedelta(days=1))

    assert (told.status.phase, told.condition("Ready")) == ("Failed", f"False/{reason}")
    assert told.condition("Stalled") == f"True/{reason}"
    assert [source.reason for source in told.status.sources] == [reason]
    assert "known_hosts" in told.status.sources[0].message
    assert len(told.scans) == 1


def test_a_source_that_is_away_is_tried_again_with_pauses_that_grow_to_an_hour(story: Tell, result: Make) -> None:
    told = story(sources=SOURCES)
    told.outcomes = [result(app="", lib="SourceUnavailable")]
    start = told.now

    told.run_until(start + timedelta(hours=6))

    minutes = [round((scan.began - start).total_seconds() / 60, 1) for scan in told.scans]
    pauses = [later - earlier for earlier, later in pairwise(minutes)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(1.5, abs=0.1)
    assert pauses[-1] == pytest.approx(60.5, abs=0.1)
    assert told.status.retries == len(told.scans) - 1
    assert told.condition("Ready") == "True/Scanned"


def test_a_retry_leaves_the_project_ready_while_it_runs(story: Tell, result: Make) -> None:
    told = story(sources=SOURCES)
    told.outcomes = [result(app="", lib="SourceUnavailable")]
    told.run_until(told.now + timedelta(seconds=100))

    assert (told.status.phase, len(told.scans)) == ("Scanning", 2)
    assert told.condition("Ready") == "True/Scanned"
    assert told.condition("Reconciling") == "True/NoPod"
    assert told.condition("SourcesReady") == "False/SourceUnavailable"


def test_a_source_that_comes_back_is_told_once(story: Tell, result: Make) -> None:
    told = story(sources=SOURCES)
    away, back = result(app="", lib="SourceUnavailable"), result("b", app="", lib="")
    told.outcomes = [away, away, back]

    told.run_until(told.now + timedelta(hours=6))

    assert events_of(told, "SourceFailed", "SourceRecovered") == ["SourceFailed", "SourceRecovered"]
    assert told.condition("SourcesReady") == "True/AllRead"
    assert len(told.scans) == 3
    assert [source.message for source in told.status.sources] == ["", ""]


def test_when_all_fail_the_old_dataset_stays_and_the_first_ones_reason_is_told(story: Tell, result: Make) -> None:
    told = story()
    told.outcomes = [result(), DENIED]
    told.run_until(told.now + timedelta(minutes=5))
    before = told.status

    told.rescan("1")
    told.run_until(told.now + timedelta(days=3))

    assert (told.status.phase, told.condition("Ready")) == ("Failed", "False/AuthenticationFailed")
    assert told.condition("Stalled") == told.condition("SourcesReady").replace("False", "True")
    assert len(told.scans) == 2, "wrong credentials are not tried again by themselves"
    assert (told.status.revision, told.status.files, told.status.file_types) == (
        before.revision,
        before.files,
        before.file_types,
    )


ASKED: list[Any] = [
    pytest.param(lambda told: told.edit(files={"maxBytes": 1000}), id="an edit of the spec"),
    pytest.param(lambda told: told.rescan("after the Secret was corrected"), id="the annotation"),
]


@pytest.mark.parametrize("ask", ASKED)
def test_a_source_that_fails_for_good_is_tried_again_when_a_person_asks(
    ask: Callable[["Story"], None], story: Tell, result: Make
) -> None:
    told = story(sources=SOURCES)
    told.outcomes = [result(app="", lib="AuthenticationFailed"), result(app="", lib="")]
    told.run_until(told.now + timedelta(days=2))
    assert len(told.scans) == 1

    ask(told)
    told.run_until(told.now + timedelta(minutes=5))

    assert len(told.scans) == 2
    assert told.condition("SourcesReady") == "True/AllRead"


def test_a_scheduled_time_also_tries_what_fails_for_good(story: Tell, result: Make) -> None:
    told = story(sources=SOURCES, schedule="0 3 * * *")
    told.outcomes = [result(app="", lib="AuthenticationFailed")]

    told.run_until(told.now + timedelta(days=2))

    assert len(told.scans) == 3


def test_an_edit_while_a_scan_runs_replaces_the_scan(story: Tell) -> None:
    told = story()
    told.settle()
    told.now += timedelta(seconds=10)

    told.edit(files={"types": ["Go"]})
    told.run_until(told.now + timedelta(minutes=5))

    first, second = told.scans
    assert second.began < first.ends
    assert second.config["files"]["types"] == ["Go"]
    assert (told.status.phase, told.running) == ("Ready", None)


def test_the_annotation_set_while_a_scan_runs_replaces_the_scan(story: Tell) -> None:
    told = story()
    told.settle()
    told.now += timedelta(seconds=10)

    told.rescan("now")
    told.run_until(told.now + timedelta(minutes=5))

    assert len(told.scans) == 2
    assert events_of(told, "ScanStarted", "Scanned") == ["ScanStarted", "ScanStarted", "Scanned"]


def test_an_edit_that_is_taken_back_while_its_scan_runs_leaves_the_data_as_it_was(story: Tell) -> None:
    told = story(files={})
    told.run_until(told.now + timedelta(minutes=5))
    before = told.status.revision

    told.edit(files={"types": ["Go"]})
    told.edit(files={})
    told.run_until(told.now + timedelta(minutes=5))

    assert (told.status.phase, told.status.revision, told.running) == ("Ready", before, None)
    assert len(told.scans) == 2


def test_new_rules_take_readiness_away_and_a_mere_rescan_does_not(story: Tell) -> None:
    told = story()
    told.run_until(told.now + timedelta(minutes=5))

    told.rescan("1")
    rescanning = told.condition("Ready")
    told.run_until(told.now + timedelta(minutes=5))
    told.edit(files={"types": ["Go"]})

    assert (rescanning, told.condition("Ready")) == ("True/Scanned", "False/NoPod")


def test_a_person_hears_what_a_scan_found_and_whether_it_is_new(story: Tell, result: Make) -> None:
    told = story()
    told.outcomes = [result("a"), result("a"), result("b")]
    for value in ("1", "2", "3"):
        told.rescan(value)
        told.run_until(told.now + timedelta(minutes=5))

    said = [event.message for event in told.events if event.reason == "Scanned"]
    counts = "8 of 10 files accepted: 7 to train on, 1 held out."
    assert said == [
        f"{counts} The dataset is aaaaaaaaaaaa, the first one.",
        f"{counts} The dataset is aaaaaaaaaaaa as before.",
        f"{counts} The dataset is bbbbbbbbbbbb, no longer aaaaaaaaaaaa.",
    ]


def test_a_failure_of_the_whole_scan_blames_no_source(story: Tell, result: Make) -> None:
    told = story()
    told.outcomes = [result(), AWAY.model_copy(update={"reason": "EmptyDataset"})]
    told.run_until(told.now + timedelta(minutes=2))

    told.rescan("1")
    told.run_until(told.now + timedelta(minutes=2))

    assert told.status.phase == "Failed"
    assert told.condition("SourcesReady") == "True/AllRead"
    assert [source.reason for source in told.status.sources] == [""]


def test_a_scan_that_fails_for_now_is_tried_again_until_it_succeeds(story: Tell, result: Make) -> None:
    told = story()
    told.outcomes = [AWAY, AWAY, AWAY, result()]
    start = told.now

    told.run_until(start + timedelta(hours=3))

    assert (told.status.phase, told.status.retries) == ("Ready", 3)
    assert events_of(told, "SourceUnavailable", "Scanned") == ["SourceUnavailable"] * 3 + ["Scanned"]
