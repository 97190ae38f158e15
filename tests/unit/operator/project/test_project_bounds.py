"""Whatever a scan says, the Project stays far below what an API server takes, and nothing is left out uncounted."""

import json

import pytest
from codetune_api.contracts import ScanResult
from codetune_api.project import FileCounts, FileType, Rejection, SourceStatus
from codetune_operator.reconcile.project.bounding import (
    MESSAGE_BYTES,
    OTHER_TYPES,
    bound_rejections,
    bound_result,
    bound_types,
    clip,
    say_types,
    say_unmatched,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LIMIT = 512 * 1024
"""A third of what an API server takes; spec, conditions and field ownership have their room beside it."""
NASTY = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["x" * 5000, "<" * 5000, "\x00" * 900, "\n" * 3000, "😀" * 3000, '"' * 3000, "Python"]
)
COUNTS = st.integers(0, 2**40)
TYPES = st.builds(
    FileType,
    type=NASTY,
    extensions=st.lists(NASTY, max_size=14),
    files=COUNTS,
    accepted=COUNTS,
    rejected=COUNTS,
    bytes=COUNTS,
    selected=st.booleans(),
)
REJECTIONS = st.builds(Rejection, reason=NASTY, files=COUNTS, examples=st.lists(NASTY, max_size=3))
SOURCES = st.builds(SourceStatus, name=st.sampled_from(["a", "b", "c"]), commit=NASTY, reason=NASTY, message=NASTY)
NAMES = ["a", "b", *(f"source-{number}" for number in range(62))]


def api_server_bytes(value: object) -> int:
    """Size as an API server stores it: Go's JSON encoder writes these letters as six bytes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode()) + 5 * sum(text.count(letter) for letter in "<>&\u2028\u2029")


@given(
    st.lists(TYPES, max_size=12), st.lists(REJECTIONS, max_size=8), st.lists(SOURCES, max_size=6), st.integers(1, 60)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_status_is_bounded_and_its_counts_are_those_of_the_scan(
    types: list[FileType], rejections: list[Rejection], sources: list[SourceStatus], times: int
) -> None:
    many = [row.model_copy(update={"type": f"{row.type}{number}"}) for number in range(times) for row in types]
    told = ScanResult(
        revision="sha256:" + "0" * 64,
        uri="x",
        sources=sources,
        file_types=many,
        files=FileCounts(),
        rejections=rejections * times,
    )

    bounded = bound_result(told, NAMES)

    assert api_server_bytes(bounded.to_wire()) < LIMIT
    assert sum(row.files for row in bounded.file_types) == sum(row.files for row in many)
    assert sum(row.accepted for row in bounded.file_types) == sum(row.accepted for row in many)
    for names in ([row.type for row in bounded.file_types], [row.reason for row in bounded.rejections]):
        assert len(names) == len(set(names)), "keys of a list map are unique"
    assert [source.name for source in bounded.sources] == NAMES
    assert bound_result(bounded, NAMES).file_types[:1] == bounded.file_types[:1]


def test_hundreds_of_ordinary_types_are_all_shown() -> None:
    types = [FileType(type=f"Language {number}", extensions=[f".l{number}"], files=number) for number in range(250)]

    assert bound_types(types) == types


def test_types_beyond_the_room_are_summed_up_in_one_row() -> None:
    types = [FileType(type=f"T{number}", files=1, accepted=1, bytes=2, selected=False) for number in range(1000)]

    *shown, rest = bound_types(types)

    assert len(shown) == 255
    assert rest == FileType(type=OTHER_TYPES, files=745, accepted=745, bytes=1490, selected=False)


def test_a_file_type_can_not_pose_as_the_others() -> None:
    types = [FileType(type=OTHER_TYPES, files=1), FileType(type="Go", files=2)]

    assert [row.type for row in bound_types(types)] == ["Go", OTHER_TYPES]


def test_examples_go_before_reasons_do() -> None:
    rows = [Rejection(reason=f"R{number}", files=1, examples=["p" * 9000] * 3) for number in range(64)]

    bounded = bound_rejections(rows)

    assert [row.reason for row in bounded] == [row.reason for row in rows]
    assert len(bounded[0].examples) == 3
    assert bounded[-1].examples == []


CLIPS = [
    pytest.param("short", "short", 10, id="as it is"),
    pytest.param("abcdefg…", "abcdefghijklmn", 10, id="cut"),
    pytest.param("a�b", "a\nb", 10, id="nothing unprintable"),
    pytest.param("äää…", "äääääääääää", 10, id="counted in bytes"),
    pytest.param("<…", "<<<<", 10, id="as an API server writes it"),
]


@pytest.mark.parametrize(("expected", "text", "limit"), CLIPS)
def test_a_text_is_clipped(expected: str, text: str, limit: int) -> None:
    assert clip(text, limit) == expected


@given(NASTY)
def test_a_message_fits_its_room(text: str) -> None:
    assert api_server_bytes(clip(text, MESSAGE_BYTES)) <= MESSAGE_BYTES + 2


def test_people_read_the_main_types_at_a_glance() -> None:
    types = [FileType(type=name, accepted=number) for name, number in zip("ABCDEF", (5, 900, 0, 30, 7, 1), strict=True)]

    assert say_types(types) == "B 900, D 30, E 7, 2 more"
    assert say_types([]) == ""


UNMATCHED = [
    pytest.param("", ["Python"], [], id="nothing"),
    pytest.param("No file is of these types in files.types: .pyx.", ["Python"], [".pyx"], id="an extension"),
    pytest.param("No file is of these types in files.types: A, B, C, D, E, 1 more.", [], list("ABCDEF"), id="many"),
    pytest.param("", [], [OTHER_TYPES], id="those without room have no name"),
]


@pytest.mark.parametrize(("expected", "there", "lacking"), UNMATCHED)
def test_people_read_which_types_no_file_is_of(expected: str, there: list[str], lacking: list[str]) -> None:
    types = [*(FileType(type=name, files=1) for name in there), *(FileType(type=name) for name in lacking)]

    assert say_unmatched(types) == expected
