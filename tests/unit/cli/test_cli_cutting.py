"""Where in a text a completion is asked for, and where its API key comes from."""

from pathlib import Path

import pytest
from codetune_cli.cutting import cut
from codetune_cli.errors import CliError
from codetune_cli.keys import read_key

TEXT = "def a():\n    return 1\n\nlast"

PLACES: dict[str, tuple[str, str, int | None, int | None]] = {
    "the end by default": (TEXT, TEXT, None, None),
    "the end of a line": ("def a():\n    return 1", TEXT, 2, None),
    "the first column": ("def a():\n", TEXT, 2, 1),
    "a column": ("def a():\n    return", TEXT, 2, 11),
    "the column behind the last character": ("def a():\n    return 1", TEXT, 2, 13),
    "an empty line": ("def a():\n    return 1\n", TEXT, 3, 1),
    "the line behind the last line break": ("a\n", "a\n", 2, 1),
    "a text with nothing in it": ("", "", 1, 1),
    "a line break of two characters": ("a = 1", "a = 1\r\nb\r\n", 1, None),
    "letters that take several bytes": ("größe = ü", "größe = ü1", 1, 10),
    "what is a line break to Python alone": ("a\x0cb\u2028c", "a\x0cb\u2028c", 1, None),
}


@pytest.mark.parametrize("row", PLACES.values(), ids=PLACES.keys())
def test_a_text_is_cut_where_an_editors_cursor_stands(row: tuple[str, str, int | None, int | None]) -> None:
    before, text, line, column = row
    found = cut(text, line, column)
    assert (found.before, found.before + found.behind) == (before, text)


@pytest.mark.parametrize(
    ("message", "line", "column"),
    [
        pytest.param("There is no line 5: the text has 4, counted from 1.", 5, None, id="a line too far"),
        pytest.param("There is no line 0", 0, None, id="lines from 0"),
        pytest.param("There is no line -1", -1, None, id="lines from the end"),
        pytest.param("There is no column 14 in line 2: it has 13, counted from 1.", 2, 14, id="a column too far"),
        pytest.param("There is no column 0 in line 1", 1, 0, id="columns from 0"),
    ],
)
def test_a_place_that_is_not_there_is_told(message: str, line: int, column: int | None) -> None:
    with pytest.raises(CliError, match=message):
        cut(TEXT, line, column)


KEYS: dict[str, tuple[str | None, str | None, dict[str, str]]] = {
    "nowhere": (None, None, {}),
    "an empty variable": (None, None, {"CODETUNE_API_KEY": " "}),
    "the variable": ("sk-1", None, {"CODETUNE_API_KEY": " sk-1\n"}),
    "the file": ("sk-2", "sk-2", {}),
    "the file's first line that has something": ("sk-2", "\n  \n sk-2 \nsk-3\n", {}),
    "the file before the variable": ("sk-2", "sk-2\n", {"CODETUNE_API_KEY": "sk-1"}),
}


@pytest.mark.parametrize("row", KEYS.values(), ids=KEYS.keys())
def test_a_key_comes_from_a_file_or_the_environment(
    row: tuple[str | None, str | None, dict[str, str]], tmp_path: Path
) -> None:
    expected, content, environment = row
    file = tmp_path / "key" if content is not None else None
    if file is not None and content is not None:
        file.write_text(content)
    assert read_key(file, environment) == expected


BAD_KEYS: dict[str, tuple[str, bytes | None]] = {
    "no such file": ("can't be read from .*: No such file", None),
    "nothing in it": ("There is no API key in", b"\n \n"),
    "no text": ("it is no text", b"\xff\xfe"),
    "letters that a header can't carry": ("is no API key", "sk-größe".encode()),
    "several on a line": ("is no API key", b"secret-1 secret-2"),
    "a control character": ("is no API key", b"secret-1\x1b"),
}


@pytest.mark.parametrize("row", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_what_is_no_key_is_told_and_not_repeated(row: tuple[str, bytes | None], tmp_path: Path) -> None:
    message, content = row
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(CliError, match=message) as raised:
        read_key(tmp_path / "key", {})
    assert "secret" not in str(raised.value)
    assert "größe" not in str(raised.value)
