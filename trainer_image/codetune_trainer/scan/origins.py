"""Files that are in a repository but that nobody there wrote: vendored, generated, minified. Pure."""

import re
from pathlib import PurePosixPath

VENDOR_FOLDERS = frozenset(
    {
        "vendor",
        "vendors",
        "third_party",
        "third-party",
        "thirdparty",
        "3rdparty",
        "node_modules",
        "bower_components",
        "jspm_packages",
        "site-packages",
        "dist-packages",
        "Godeps",
        "Pods",
        "Carthage",
        ".venv",
        "venv",
        ".tox",
        ".nox",
        ".yarn",
        ".gradle",
        ".eggs",
        "__pypackages__",
    }
)
"""Folders that package managers and people put other people's code into."""

_VENDOR_FILES = re.compile(
    r"(jquery|bootstrap|angular|react(-dom)?|vue|d3|lodash|underscore|modernizr|prototype|mootools|dojo|ember|three)"
    r"([.-]\d[\w.-]*)?(\.bundle)?(\.slim)?(\.min)?\.(js|css)|gradlew(\.bat)?|mvnw(\.cmd)?|ltmain\.sh|libtool\.m4|"
    r"config\.(guess|sub)|aclocal\.m4"
)
_GENERATED_NAMES = re.compile(
    r".*(_pb2(_grpc)?\.pyi?|\.pb(\.gw)?\.go|\.pb\.(cc|h)|_grpc\.pb\.go|\.pb\.swift|\.g\.dart|\.freezed\.dart|\.g\.cs"
    r"|\.designer\.(cs|vb)|\.generated\.\w+|_generated\.\w+|\.gen\.(go|ts|js)|_string\.go)|zz_generated\.\w+\.go"
    r"|moc_.*\.cpp|ui_.*\.h|qrc_.*\.cpp|lex\.yy\.c|y\.tab\.[ch]|configure",
    re.IGNORECASE,
)
_LINE_BREAK = b"\n"
_COMMENT = rb"^[ \t]*(?://|/\*+|\*|#|--|;+|%|<!--|\(\*|\"\"\"|@REM|REM\b)"
_GENERATED_MARK = re.compile(
    _COMMENT
    + rb"[^\n]*(?:@generated\b|<auto-?generated|generated [^\n]*\bdo not (?:edit|modify)\b"
    + rb"|\bdo not (?:edit|modify)\b[^\n]*\bgenerated\b"
    + rb"|this (?:file|code|class|module) (?:is|was|has been) (?:automatically |auto-?)generated (?:by|from|with)\b)",
    re.IGNORECASE | re.MULTILINE,
)
GENERATED_HEAD_BYTES = 2048
"""A generator says so at the top: no further than this."""
_MINIFIED_NAME = re.compile(r".*[.-]min\.(js|mjs|cjs|css|html)", re.IGNORECASE)
_MINIFIED_LANGUAGES = frozenset({"JavaScript", "CSS", "HTML", "TypeScript"})
MINIFIED_LINE_CHARACTERS = 110
"""JavaScript, TypeScript, CSS and HTML whose lines are longer on average are taken as minified."""
_MINIFIED_LEAST_CHARACTERS = 2000


def find_vendored(path: str) -> str:
    """What shows that a file is somebody else's, "" when nothing does.

    Args:
        path: Its path inside the source.
    """
    *folders, name = PurePosixPath(path).parts
    for folder in folders:
        if folder in VENDOR_FOLDERS:
            return f"below {folder}/"
    return f"{name} is a well-known library or tool" if _VENDOR_FILES.fullmatch(name) else ""


def find_generated(name: str, content: bytes) -> str:
    """What shows that a program wrote a file, "" when nothing does."""
    if _GENERATED_NAMES.fullmatch(name):
        return f"a generator's file name: {name}"
    head = content[:GENERATED_HEAD_BYTES]
    match = _GENERATED_MARK.search(head) if b"generated" in head.lower() else None
    if match is None:
        return ""
    return f"line {content.count(_LINE_BREAK, 0, match.start()) + 1} says so"


def find_minified(name: str, language: str, text: str) -> str:
    """What shows that a file is minified, "" when nothing does."""
    if _MINIFIED_NAME.fullmatch(name):
        return f"a minifier's file name: {name}"
    if language not in _MINIFIED_LANGUAGES or len(text) < _MINIFIED_LEAST_CHARACTERS:
        return ""
    average = len(text) // (text.count("\n") + 1)
    return f"{average} characters a line on average" if average > MINIFIED_LINE_CHARACTERS else ""
