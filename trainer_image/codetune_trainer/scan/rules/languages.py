"""Which language a file is written in, by Pygments' lexer list; docs/notes/language-detection.md says why Pygments.

The name decides; content is looked at only where several languages share an ending, or for a `#!` line. Names are
GitHub Linguist's.
"""

import difflib
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, lru_cache

from pygments.lexers import get_all_lexers

from codetune_trainer.errors import InvalidParameters
from codetune_trainer.scan.rules.language_names import (
    INTERPRETERS,
    LINGUIST_NAMES,
    MORE_PATTERNS,
    NOT_PROGRAMMING,
    PREFERRED,
    UNKNOWN,
)

_SHEBANG = re.compile(rb"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+)*)?(?:\S*/)?([A-Za-z-]+)")
_SHEBANG_BYTES = 256
"""What Linux reads of a `#!` line."""
_SHEBANG_STARTS = (b"#!", BOM_UTF8 + b"#!")
_LOOK_BYTES = 64 * 1024
_PLAIN_ENDING = re.compile(r"\*(\.[^*?\[\]]+)")


def _rule(pattern: str) -> re.Pattern[bytes]:
    # A line's beginning is searched for as the line break before it, which is much faster than `^`; and `^\s*` would
    # run over all following empty lines again for each of them: blanks of one line only.
    return re.compile(pattern.replace(r"^\s*", r"^[ \t]*").replace("^", r"\n").encode())


_OBJECTIVE_C = _rule(r"^\s*(@(interface|implementation|protocol|class|end|import|property)\b|#import\b)")
_CPP = _rule(
    r"^\s*(template\s*<|namespace\b|class\s+\w+|using\s+\w|(public|private|protected)\s*:|constexpr\b|virtual\b"
    r"|#\s*include\s*<(algorithm|array|atomic|cstddef|cstdint|cstdio|cstdlib|cstring|functional|iostream|map|memory|"
    r"mutex|optional|set|string|string_view|tuple|type_traits|unordered_map|utility|variant|vector)>)"
)
_GLSL = _rule(r"^\s*(#version|uniform\b|precision\b|void main\()")
_STD = _rule(r"std::(?<!\wstd::)")
_BY_CONTENT: Mapping[str, tuple[tuple[re.Pattern[bytes], str], ...]] = {
    "*.h": ((_OBJECTIVE_C, "Objective-C"), (_STD, "C++"), (_CPP, "C++")),
    "*.m": ((_OBJECTIVE_C, "Objective-C"),),
    "*.inc": ((_rule(r"<\?(php|=)"), "PHP"),),
    "*.pl": ((_rule(r"^(:-|[a-z]\w*(\(.*\))?\s*:-)"), "Prolog"),),
    "*.pro": ((_rule(r"(?i)^\s*(pro|function)\s+\w+\s*,"), "IDL"), (_rule(r"^\s*(TEMPLATE|QT|SOURCES)\b"), "QMake")),
    "*.ts": ((_rule(r"\A\s*(<\?xml|<!DOCTYPE TS|<TS\b)"), "XML"),),
    "*.v": ((_rule(r"^\s*(Proof\.|Qed\.|(From .* )?Require (Import|Export)|Theorem|Lemma|Inductive)"), "Rocq Prover"),),
    "*.fs": ((_GLSL, "GLSL"), (_rule(r"^: \S+"), "Forth")),
    "*.shader": ((_GLSL, "GLSL"),),
    "*.trigger": ((_rule(r"\A\s*#!"), "Shell"),),
    "*.cue": ((_rule(r"^\s*(FILE|PERFORMER|REM|TITLE|TRACK) "), "Cue Sheet"),),
    "*.l": (
        (_rule(r"\(def(un|macro)\s"), "Common Lisp"),
        (_rule(r"^%[%{]"), "Lex"),
        (_rule(r"^\.[A-Za-z]{2}\s"), "Groff"),
        (_rule(r"^\((de|class|rel|code|data|must)\s"), "PicoLisp"),
    ),
    "*.cls": (
        (_rule(r"^ *VERSION [0-9]\.[0-9] CLASS"), "VBA"),
        (_rule(r"^\s*\\(NeedsTeXFormat|ProvidesClass)\{"), "TeX"),
        (_rule(r"^Class\s"), "ObjectScript"),
        (_rule(r"(?i)^\s*(end\s+(class|interface)\.|(class|interface)\s+[a-z_][a-z0-9_#$%&-]*:)"), "OpenEdge ABL"),
    ),
}
"""Endings that languages share: the first rule found in the content decides, else the pattern's own language."""


@dataclass(frozen=True)
class _Claims:
    """Who claims which file names."""

    names: Mapping[str, str]
    endings: Mapping[str, str]
    globs: tuple[tuple[str, str], ...]


@cache
def _claims() -> _Claims:
    claimed: dict[str, list[str]] = {}
    for name, _, patterns, _ in get_all_lexers(plugins=False):
        for pattern in patterns:
            claimed.setdefault(pattern, []).append(LINGUIST_NAMES.get(name, name))
    winners = {pattern: PREFERRED.get(pattern, min(names)) for pattern, names in claimed.items()}
    winners["*.inc"] = UNKNOWN  # PHP, Pascal, assembler, …: only its content tells
    winners |= MORE_PATTERNS
    names = {pattern: winner for pattern, winner in winners.items() if not re.search(r"[*?\[]", pattern)}
    endings = {match[1]: winner for pattern, winner in winners.items() if (match := _PLAIN_ENDING.fullmatch(pattern))}
    globs = sorted(
        (pattern, winner)
        for pattern, winner in winners.items()
        if pattern not in names and not _PLAIN_ENDING.fullmatch(pattern)
    )
    return _Claims(names, endings, tuple(globs))


def known_languages() -> Mapping[str, str]:
    """Every language that a file can get, by its lower-case name."""
    claims = _claims()
    found = {*claims.names.values(), *claims.endings.values(), *INTERPRETERS.values()}
    found |= {language for _, language in claims.globs}
    found |= {language for rules in _BY_CONTENT.values() for _, language in rules}
    return {language.lower(): language for language in sorted(found - {UNKNOWN})}


def extension(name: str) -> str:
    """The ending by which people speak of a file's type, e.g. `.py`; its whole name when it has none."""
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else name


def language_of_name(name: str) -> tuple[str, str]:
    """The language that a file's name alone gives, and the pattern that gave it ("" for none).

    Args:
        name: The last part of its path.
    """
    return _by_name(name) if "." not in name or name.startswith(".") else _by_ending(name)


def language_of(name: str, content: bytes) -> str:
    """The language of a file, `Unknown` when there is none.

    Args:
        name: The last part of its path.
        content: Its bytes; only the first 64 KiB are looked at.
    """
    language, pattern = language_of_name(name)
    if pattern in _BY_CONTENT:
        head = b"\n" + content[:_LOOK_BYTES]  # the rules look for the line break before what they want
        for rule, other in _BY_CONTENT[pattern]:
            if rule.search(head):
                return other
    if language != UNKNOWN or not content.startswith(_SHEBANG_STARTS):
        return language
    return _by_interpreter(content[: len(BOM_UTF8) + _SHEBANG_BYTES].removeprefix(BOM_UTF8))


def is_programming(language: str) -> bool:
    """Whether a language is one that people write programs in, as opposed to data, markup or prose."""
    return language not in NOT_PROGRAMMING


def check_types(types: list[str]) -> None:
    """Refuse a language in `files.types` that can never match. Raises: InvalidParameters with the nearest name."""
    known = known_languages()
    for asked in types:
        if asked.startswith((".", "*.")) or asked.lower() in known:
            continue
        near = difflib.get_close_matches(asked.lower(), known, n=1)
        guess = f"Did you mean {known[near[0]]!r}? " if near else ""
        hint = f"{guess}Write a language as GitHub does (`Python`, `C++`), or a file extension with its dot (`.py`)."
        raise InvalidParameters(f"files.types has {asked!r}, which is no language that Codetune knows.", hint)


def is_selected(language: str, name: str, types: list[str]) -> bool:
    """Whether `files.types`, in whatever case, lets a file through; an empty list lets every programming language."""
    if not types:
        return is_programming(language)
    language, name = language.lower(), name.lower()
    return any(
        asked == language or (asked.startswith((".", "*.")) and name.endswith(asked.lstrip("*")))
        for asked in map(str.lower, types)
    )


def _by_ending(name: str) -> tuple[str, str]:
    names = _claims().names
    if name in names:
        return names[name], name
    return _by_plain_ending(name[name.index(".") :]) or _by_glob(name)


@lru_cache(maxsize=4096)
def _by_plain_ending(endings: str) -> tuple[str, str] | None:
    """By everything from the first dot of a name on."""
    claims = _claims()
    parts = endings.split(".")
    for start in range(1, len(parts)):  # the longest ending first: `.d.ts` before `.ts`
        for ending in dict.fromkeys(("." + ".".join(parts[start:]), "." + ".".join(parts[start:]).lower())):
            if ending in claims.endings:
                return claims.endings[ending], f"*{ending}"
    return None


@lru_cache(maxsize=4096)
def _by_name(name: str) -> tuple[str, str]:
    names = _claims().names
    return (names[name], name) if name in names else _by_ending(name) if "." in name else _by_glob(name)


def _by_glob(name: str) -> tuple[str, str]:
    for pattern, language in _claims().globs:
        if fnmatchcase(name, pattern):
            return language, pattern
    return UNKNOWN, ""


def _by_interpreter(head: bytes) -> str:
    match = _SHEBANG.match(head.split(b"\n", 1)[0])
    return INTERPRETERS.get(match[1].decode().rstrip("-"), UNKNOWN) if match else UNKNOWN
