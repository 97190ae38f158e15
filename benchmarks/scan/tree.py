"""Lays out the tree that scans are measured on: real source files of this Python, and copies of them in other words.

What lies in `site-packages` and the standard library is copied as it stands, under folders that no rule takes for
vendored code. Until there are enough files, whole rounds of copies follow in which every longer word has another
ending, so that no copy is an exact or a near duplicate of its original.
"""

import re
import site
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ENDINGS = frozenset({".py", ".pyi", ".h", ".hpp", ".cuh", ".c", ".cpp", ".js", ".css", ".html", ".md", ".json", ".txt"})
"""Of source code, and of what lies beside it in repositories."""
_LARGEST = 1 << 19
_WORD = re.compile(rb"\b[A-Za-z_]{5,}\b")
_FILES_IN_A_FOLDER = 200


def build_tree(target: Path, files: int) -> tuple[int, int]:
    """Write a tree of at least so many files, unless it is there already; returns its files and bytes."""
    done = target / ".complete"
    if not done.is_file():
        target.mkdir(parents=True, exist_ok=True)
        written = [0, 0]
        for number, (name, content) in enumerate(_contents(files)):
            folder = target / f"part{number // _FILES_IN_A_FOLDER:04d}"
            folder.mkdir(exist_ok=True)
            (folder / f"{number % _FILES_IN_A_FOLDER:03d}_{name}").write_bytes(content)
            written = [written[0] + 1, written[1] + len(content)]
        done.write_text(" ".join(map(str, written)))
    count, size = map(int, done.read_text().split())
    return count, size


def _contents(files: int) -> Iterator[tuple[str, bytes]]:
    paths = [path for root in _roots() for path in sorted(root.rglob("*")) if _is_wanted(path)]
    for number in range(files):
        path, round_ = paths[number % len(paths)], number // len(paths)
        content = path.read_bytes()
        yield path.name, _reword(content, round_) if round_ else content


def _roots() -> list[Path]:
    return [*map(Path, site.getsitepackages()), Path(sysconfig.get_path("stdlib"))]


def _is_wanted(path: Path) -> bool:
    return path.suffix in ENDINGS and path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST


def _reword(content: bytes, round_: int) -> bytes:
    ending = b"_%d" % round_
    return _WORD.sub(lambda word: word[0] + ending, content)
