"""Under which licence a file stands: what its own header says, else the licence file nearest above it.

Licence files are told by identify's texts (those of choosealicense.com), headers by their SPDX tag or by the names of
the licences that are spelled out in headers.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from identify.identify import license_id

from codetune_trainer.scan.rules.language_names import UNKNOWN as NO_LANGUAGE
from codetune_trainer.scan.rules.languages import language_of_name

UNKNOWN = "Unknown"
"""A licence file whose text is none of the known ones."""
HEAD_BYTES = 4096
"""A header says its licence within these."""
LARGEST_BYTES = 128 * 1024
"""A licence file above this is none."""

_NAME = re.compile(r"(un)?licen[cs]e([.-][\w.-]*)?|copying([.-][\w.-]*)?", re.IGNORECASE)
_PROSE = frozenset({NO_LANGUAGE, "HTML", "Markdown", "Org Mode", "reStructuredText", "TeX", "Text"})
_COPYRIGHT = re.compile(r"(copyright|\(c\)) .*", re.IGNORECASE)
_TAG = re.compile(rb"SPDX-License-Identifier:[ \t]*([^\n\r]{1,200})")
_TOKEN = re.compile(r"[()]|[A-Za-z0-9.+-]+")
_SUFFIX = re.compile(r"(-only|-or-later|\+)$")
_HEADERS: tuple[tuple[bytes, str], ...] = (
    (rb"GNU Affero General Public License", "AGPL-3.0"),
    (rb"GNU (?:Lesser|Library) General Public License", "LGPL"),
    (rb"GNU General Public License", "GPL"),
    (rb"Mozilla Public License,? (?:v\. ?|Version )?2\.0", "MPL-2.0"),
    (rb"Apache License,? Version 2\.0", "Apache-2.0"),
    (rb"Boost Software License", "BSL-1.0"),
    (rb"Permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    (rb"Redistribution and use in source and binary forms", "BSD-3-Clause"),
)
_SPELLED = [(re.compile(pattern.replace(b" ", rb"[\s*#/;-]+"), re.IGNORECASE), name) for pattern, name in _HEADERS]
_SPELLED_WORDS = (b"license", b"permission is", b"redistribution")
_VERSION = re.compile(rb"version[\s*#/;-]+(\d(?:\.\d)?)", re.IGNORECASE)
_VERSION_BYTES = 300
"""How far behind the name of a GNU licence its version may stand."""


_CLAIMS = (
    *(b"copyright", b"(c) 19", b"(c) 20", "\N{COPYRIGHT SIGN}".encode(), b"spdx-license-identifier"),
    *(b"licensed", b"licenced", b"license:", b"licence:", b"all rights reserved", b"without warranty"),
)
"""What a comment in lower case has that says whose a file is and on which terms."""


def tells_licence(comment: bytes) -> bool:
    """Whether a comment says under which licence a file stands, or who has the copyright."""
    lower = comment.lower()
    return any(claim in lower for claim in _CLAIMS) or bool(header_licence(comment))


def is_licence_name(name: str) -> bool:
    """Whether a file of this name tells the licence of its folder; a program such as `license.py` does not."""
    return _NAME.fullmatch(name) is not None and language_of_name(name)[0] in _PROSE


def _strip(content: bytes) -> bytes:
    """A licence file without what says nothing about which licence it is: white space and who has the copyright."""
    lines = (" ".join(line.split()) for line in content.decode("utf-8", errors="replace").splitlines())
    # identify leaves the same out, but runs over all following empty lines again for each of them.
    return "\n".join(line for line in lines if line and not _COPYRIGHT.fullmatch(line)).encode()


def _identify(stripped: bytes) -> str:
    """SPDX identifier of a licence file, `Unknown` when it is no known text."""
    # identify takes a path alone.
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(stripped)
        file.flush()
        return license_id(file.name) or UNKNOWN


def header_licence(content: bytes) -> str:
    """SPDX expression that a file's own header states, "" when it states none."""
    head = content[:HEAD_BYTES]
    if tag := _TAG.search(head):
        expression = " ".join(_TOKEN.findall(tag[1].decode("utf-8", errors="replace")))
        return expression or UNKNOWN
    lower = head.lower()
    if not any(word in lower for word in _SPELLED_WORDS):
        return ""
    for pattern, name in _SPELLED:
        if match := pattern.search(head):
            return _with_version(name, head[match.end() : match.end() + _VERSION_BYTES])
    return ""


def _with_version(name: str, behind: bytes) -> str:
    """The GNU licences' headers give their version behind their name."""
    if name not in {"GPL", "LGPL"}:
        return name
    version = _VERSION.search(behind)
    number = version[1].decode() if version else "2.0"
    return f"{name}-{number if '.' in number else f'{number}.0'}"


def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether one may take an SPDX expression under the licences of a list: one of `OR`, all of `AND`.

    Args:
        expression: Such as `(MIT OR Apache-2.0) AND BSD-3-Clause`; what is no expression is allowed by nothing.
        allowed: Identifiers as `base_name` gives them.
    """
    try:
        value, rest = _either(_TOKEN.findall(expression), allowed)
    except ValueError:
        return False
    return value and not rest


def base_name(identifier: str) -> str:
    """An identifier without what its users don't tell apart: case, and `-only`, `-or-later` or `+` at its end."""
    return _SUFFIX.sub("", identifier.lower())


def _either(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens, allowed)
    while tokens and tokens[0].upper() == "OR":
        other, tokens = _both(tokens[1:], allowed)
        value = value or other
    return value, tokens


def _both(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens, allowed)
    while tokens and tokens[0].upper() == "AND":
        other, tokens = _one(tokens[1:], allowed)
        value = value and other
    return value, tokens


def _one(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    """Raises: ValueError when what stands there is no identifier."""
    if not tokens or tokens[0] == ")":
        raise ValueError("an identifier is missing")
    head, *tokens = tokens
    if head == "(":
        value, tokens = _either(tokens, allowed)
        if tokens[:1] != [")"]:
            raise ValueError("a parenthesis is missing")
        return value, tokens[1:]
    if tokens[:1] and tokens[0].upper() == "WITH":
        tokens = tokens[2:]  # an exception only ever allows more
    return base_name(head) in allowed, tokens


@dataclass(frozen=True)
class FolderLicences:
    """The licence files of a source: folder ("" for the outermost) → SPDX identifier and the file's path."""

    by_folder: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def above(self, path: str) -> tuple[str, str]:
        """Identifier and path of the licence file nearest above a file; ("", "") when there is none."""
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in self.by_folder:
                return self.by_folder[folder]
        return "", ""


def collect(files: Iterable[tuple[str, bytes]]) -> FolderLicences:
    """What the licence files of a source say.

    Args:
        files: Path and content of every file whose name `is_licence_name` knows, sorted by path; of several in one
            folder the first one that is known counts.
    """
    found: dict[str, tuple[str, str]] = {}
    identified: dict[bytes, str] = {}  # thousands of packages have the same few texts, and each takes a while
    for path, content in files:
        folder = path.rpartition("/")[0]
        if folder in found and found[folder][0] != UNKNOWN:
            continue
        stripped = _strip(content)
        digest = hashlib.sha256(stripped).digest()
        identifier = identified.get(digest) or identified.setdefault(digest, _identify(stripped))
        if folder not in found or identifier != UNKNOWN:
            found[folder] = (identifier, path)
    return FolderLicences(found)


@dataclass(frozen=True)
class LicenceRule:
    """`files.licenses` of one source."""

    allowed: frozenset[str]
    folders: FolderLicences

    def find_obstacle(self, path: str, content: bytes) -> str:
        """What licence forbids to take a file and where it says so, "" when none does."""
        stated, where = header_licence(content), "its header"
        if not stated:
            stated, where = self.folders.above(path)
        if not stated or is_allowed(stated, self.allowed):
            return ""
        return f"{stated} by {where}, which files.licenses.allow lacks"
