"""Patterns decide as git does: generated patterns and paths, with `git check-ignore --no-index` as the judge.

Skipped on purpose: `?` and classes on letters beyond ASCII, where git counts bytes and we count letters; patterns that
end in `/**/` or name nothing. `!` alone and POSIX classes are refused; git ignores the one and knows the others.
"""

import os
import subprocess
from collections.abc import Callable, Sequence

import pytest
from codetune_trainer.errors import InvalidParameters
from codetune_trainer.scan.rules.patterns import Patterns
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

Ask = Callable[[Sequence[str], Sequence[str]], list[bool]]

WORDS = ["a", "b", "ab", "a.py", "b.py", "a b", "b ", "-x", "!a", "#a", "[a]", "a\\b", "A", "a\nb", "*"]
GLOBS = [
    "a",
    "b",
    "ab",
    ".py",
    "*",
    "?",
    "[ab]",
    "[!a]",
    "[^b]",
    "[a-z]",
    "[-a]",
    "\\*",
    "\\a",
    "\\!",
    "\\#",
    "\\ ",
    "\\\\",
]
GLOBS += [" ", "!", "#", "-", "]"]
SEGMENT = st.lists(st.sampled_from(GLOBS), min_size=1, max_size=4).map("".join) | st.sampled_from([*WORDS[:8], "**"])
PATHS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map("/".join), max_size=8, unique=True)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """One line of a .gitignore."""
    segments = draw(st.lists(SEGMENT, min_size=1, max_size=4))
    ending = "/" if segments[-1] != "**" and draw(st.booleans()) else ""
    start = draw(st.sampled_from(["", "", "!", "/", "!/"]))
    return start + "/".join(segments) + ending + draw(st.sampled_from(["", "", " ", "  "]))


@pytest.fixture(scope="module")
def ask_git(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Whether git ignores each path by these patterns."""
    repository = tmp_path_factory.mktemp("repository")
    environment = {"PATH": os.environ["PATH"], "HOME": str(repository), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "--quiet", str(repository)], env=environment, check=True)
    command = [
        "git",
        "-C",
        str(repository),
        "check-ignore",
        "--no-index",
        "--verbose",
        "--non-matching",
        "-z",
        "--stdin",
    ]

    def ask(lines: Sequence[str], paths: Sequence[str]) -> list[bool]:
        (repository / ".git" / "info" / "exclude").write_text("".join(f"{line}\n" for line in lines))
        asked = "".join(f"{path}\0" for path in paths).encode()
        said = subprocess.run(command, input=asked, env=environment, capture_output=True, check=False).stdout
        fields = said.decode().split("\0")[:-1]  # source, line, pattern, path of each
        assert fields[3::4] == list(paths)
        return [bool(pattern) and not pattern.startswith("!") for pattern in fields[2::4]]

    return ask


@given(lines=st.lists(patterns(), min_size=1, max_size=4), paths=PATHS)
@example(lines=["**/a/**/b"], paths=["a/b", "a/x/b", "x/a/b", "x/a/y/z/b", "ab", "a"])
@example(lines=["a/**"], paths=["a", "a/b", "b/a/b", "a/b/c"])
@example(lines=["*", "!a.py"], paths=["a.py", "b.py", "a/a.py"])
@example(lines=["a/", "!a.py"], paths=["a/a.py", "a.py"])
@example(lines=["!*", "/a", "b "], paths=["a", "b/a", "b", "b "])
@example(lines=["\u00e9", "*\u00fc"], paths=["\u00e9", "a/\u00e9", "x\u00fc", "\u00fc/a"])
@example(lines=["[!a]", "a[^b]"], paths=["a", "b", "aa", "ab"])
@example(lines=["b\\ "], paths=["b", "b "])
@example(lines=["\\!a", "\\#a", "[[]a]"], paths=["!a", "#a", "[a]", "a"])
@example(lines=["ab", "/a/**"], paths=["a\nb/ab", "a\nb/a\nb", "a/a\nb"])
@settings(max_examples=150)
def test_a_path_is_matched_as_git_matches_it(ask_git: Ask, lines: list[str], paths: list[str]) -> None:
    assume(all(line.strip("!/ ") for line in lines))
    try:
        ours = Patterns(lines, "files.exclude")
    except InvalidParameters:
        assume(False)
    found = [ours.find(path) for path in paths]
    assert [line is not None for line in found] == ask_git(lines, paths)
    assert {line for line in found if line is not None} <= {line for line in lines if not line.startswith("!")}


def test_a_list_as_long_as_spec_takes_is_matched(ask_git: Ask) -> None:
    lines = [f"**/{'ab' * 4}{number}*/**/[a-f]*{'cd' * 4}?{number}.py" for number in range(255)]
    lines.append("*" + "a?" * 511)
    patterns, deep = Patterns(lines, "files.exclude"), "x/" * 200 + "abababab7y/z/e-cdcdcdcd-7.py"
    assert patterns.find(deep) == lines[7]
    assert [patterns.find(path) is not None for path in (deep, "a" * 4000)] == ask_git(lines, [deep, "a" * 4000])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        pytest.param("no pattern", "!", id="nothing-taken-back"),
        pytest.param("no pattern", "a\\", id="backslash-at-the-end"),
        pytest.param("no pattern", "[[:alpha:]].py", id="posix-class"),
        pytest.param("line break", "a/\nb/", id="two-in-one"),
    ],
)
def test_what_is_no_pattern_is_said_before_anything_is_read(words: str, line: str) -> None:
    with pytest.raises(InvalidParameters, match=words) as failure:
        Patterns(["a", line], "files.exclude")
    assert repr(line) in failure.value.message
    assert "(?" not in failure.value.message, "what the pattern becomes is nobody's business"
    assert failure.value.hint
    assert ("[[:" in line) == ("POSIX" in failure.value.hint)
