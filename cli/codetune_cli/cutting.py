"""Where in a text a completion is asked for: what stands before that place, and what stands behind it. Pure."""

from dataclasses import dataclass

from codetune_cli.errors import CliError


@dataclass(frozen=True)
class Cut:
    """A text in two."""

    before: str
    behind: str
    """Empty at the text's end."""


def cut(text: str, line: int | None, column: int | None) -> Cut:
    """Cut a text where an editor's cursor stands.

    Args:
        text: The whole of it.
        line: Counted from 1; None: the text's end.
        column: Counted from 1, before the character that it names; None: the line's end.

    Raises:
        CliError: The text has no such place.
    """
    if line is None:
        return Cut(text, "")
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise CliError(f"There is no line {line}: the text has {len(lines)}, counted from 1.")
    # The line break may be of two characters, neither of which is the line's.
    length = len(lines[line - 1].removesuffix("\r"))
    offset = length if column is None else column - 1
    if not 0 <= offset <= length:
        raise CliError(f"There is no column {column} in line {line}: it has {length + 1}, counted from 1.")
    start = sum(len(above) + 1 for above in lines[: line - 1])
    return Cut(text[: start + offset], text[start + offset :])
