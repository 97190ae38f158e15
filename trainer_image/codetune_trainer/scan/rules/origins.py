"""Files that are in a repository but that nobody there wrote: vendored, generated. Pure."""

import re
from functools import lru_cache

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
_GENERATED_ENDINGS = (
    *("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi", ".pb.go", ".pb.gw.go", ".pb.cc", ".pb.h", ".pb.swift"),
    *(".g.dart", ".freezed.dart", ".g.cs", ".designer.cs", ".designer.vb", ".gen.go", ".gen.ts", ".gen.js"),
    "_string.go",
)
_GENERATED_NAMES = re.compile(
    r".*[._]generated\.\w+|zz_generated\.\w+\.go|moc_.*\.cpp|ui_.*\.h|qrc_.*\.cpp|lex\.yy\.c|y\.tab\.[ch]|configure"
)
_WORD_OF_MARKS, _LINE_BREAK = b"generated", b"\n"
_COMMENT = rb"[ \t]*(?://|/\*+|\*|#|--|;+|%|<!--|\(\*|\"\"\"|@rem|rem\b)"
_GENERATED_MARK = re.compile(
    _COMMENT
    + rb"[^\n]*(?:@generated\b|<auto-?generated|generated [^\n]*\bdo not (?:edit|modify)\b"
    + rb"|\bdo not (?:edit|modify)\b[^\n]*\bgenerated\b"
    + rb"|this (?:file|code|class|module) (?:is|was|has been) (?:automatically |auto-?)generated (?:by|from|with)\b)",
)
GENERATED_HEAD_BYTES = 2048
"""A generator says so at the top: no further than this."""


def find_vendored(path: str) -> str:
    """What shows that a file is somebody else's, "" when nothing does.

    Args:
        path: Its path inside the source.
    """
    folders, _, name = path.rpartition("/")
    if folder := _vendor_folder(folders):
        return f"below {folder}/"
    return f"{name} is a well-known library or tool" if _VENDOR_FILES.fullmatch(name) else ""


@lru_cache(maxsize=1024)
def _vendor_folder(folders: str) -> str:
    return next((folder for folder in folders.split("/") if folder in VENDOR_FOLDERS), "")


def find_generated(name: str, content: bytes) -> str:
    """What shows that a program wrote a file, "" when nothing does."""
    lower = name.lower()
    if lower.endswith(_GENERATED_ENDINGS) or _GENERATED_NAMES.fullmatch(lower):
        return f"a generator's file name: {name}"
    head = content[:GENERATED_HEAD_BYTES].lower()
    # By line: only few have the word, and the pattern is slow to find out that a line has not.
    place = head.find(_WORD_OF_MARKS)
    while place >= 0:
        start, end = head.rfind(b"\n", 0, place) + 1, head.find(b"\n", place)
        if _GENERATED_MARK.match(head, start):
            return f"line {head.count(_LINE_BREAK, 0, start) + 1} says so"
        place = head.find(_WORD_OF_MARKS, end) if end >= 0 else -1
    return ""
