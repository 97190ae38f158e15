"""Judges one file by its name and content: the rules in their order, the first that holds gives the reason. Pure.

`exclude` wins over everything. `include` brings back what any other rule rejected, but for what can't be read at all.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from codetune_api.project import FileRules, Holdout

from codetune_trainer.scan.decoding import Undecodable, decode, decode_anyhow, is_binary, is_blank
from codetune_trainer.scan.language_names import UNKNOWN
from codetune_trainer.scan.languages import check_types, is_selected, language_of, language_of_name
from codetune_trainer.scan.origins import find_generated, find_minified, find_vendored
from codetune_trainer.scan.patterns import Patterns
from codetune_trainer.scan.records import Found, Judged, Reason
from codetune_trainer.scan.secrets import Secret, describe, find_secrets, redact

READ_LIMIT_BYTES = 64 * 2**20
"""No file above this is ever read, not even when `include` names it."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_POINTER_BYTES = 1024

Verdict = tuple[Reason, str]
"""A rule that rejects, and what it saw."""


class Judge:
    """The rules of one Project.

    Args:
        files: `spec.files`.
        holdout: `spec.holdout`.

    Raises:
        InvalidParameters: A pattern or type is no such thing.
    """

    def __init__(self, files: FileRules, holdout: Holdout) -> None:
        check_types(files.types)
        self._files = files
        self._include = Patterns(files.include, "files.include")
        self._exclude = Patterns(files.exclude, "files.exclude")
        self._held_out = Patterns(holdout.paths, "holdout.paths")

    def wants_content(self, found: Found) -> bool:
        """Whether judging a file takes reading it."""
        if found.obstacle or self._exclude.find(found.path) is not None:
            return False
        limit = READ_LIMIT_BYTES if self._include.find(found.path) is not None else self._files.max_bytes
        return found.size <= limit

    def judge(self, source: str, found: Found, content: bytes | None) -> tuple[Judged, bytes]:
        """The verdict on a file, and its text in UTF-8 when it is accepted so far.

        Args:
            source: Name of its source.
            found: The file as it was found.
            content: Its bytes; None when it was not read.
        """
        excluded = self._exclude.find(found.path)
        if excluded is not None:
            return self._reject(source, found, None, ("Excluded", f"files.exclude has {excluded!r}")), b""
        if found.obstacle:
            return self._reject(source, found, None, ("Unreadable", found.obstacle)), b""
        if content is None:
            limit = min(READ_LIMIT_BYTES, self._files.max_bytes)
            text = f"{found.size} bytes, more than {limit}"
            return self._reject(source, found, None, ("TooLarge", text)), b""
        if len(content) <= _LFS_POINTER_BYTES and content.startswith(_LFS_POINTER):
            return self._reject(source, found, content, ("Unreadable", "a Git LFS pointer, not the file itself")), b""
        if is_blank(content):
            return self._reject(source, found, content, ("Empty", "nothing but white space" if content else "")), b""
        return self._judge_content(source, found, content)

    def _judge_content(self, source: str, found: Found, content: bytes) -> tuple[Judged, bytes]:
        file = _File(found, content, self._files)
        verdict = next(file.verdicts(), None)
        include = self._include.find(found.path)
        if verdict is not None and include is None:
            return self._reject(source, found, content, verdict, file.language), b""
        detail = ""
        if verdict is not None:
            detail = f"files.include has {include!r}, against {verdict[0]}" + (f": {verdict[1]}" if verdict[1] else "")
        elif self._files.secrets == "Redact" and file.secrets:
            detail = f"redacted: {describe(file.secrets)}"
        text = file.accepted_text()
        data = text.encode()
        judged = Judged(
            path=f"{source}/{found.path}",
            source=source,
            language=file.language,
            size=found.size,
            lines=_count_lines(text),
            reason="",
            detail=detail,
            digest=hashlib.sha256(data).digest(),
            overrode=verdict is not None,
            wanted=include is not None,
            held_out=self._held_out.find(found.path) is not None,
            text_bytes=len(data),
        )
        return judged, data

    def _reject(
        self, source: str, found: Found, content: bytes | None, verdict: Verdict, language: str | None = None
    ) -> Judged:
        name = PurePosixPath(found.path).name
        if language is None:
            language = language_of_name(name)[0] if content is None else language_of(name, content)
        lines = 0 if content is None or is_binary(content) else content.count(b"\n") + (not content.endswith(b"\n"))
        return Judged(f"{source}/{found.path}", source, language, found.size, lines, verdict[0], verdict[1])


class _File:
    """One file under judgement; each thing about it is found out at most once."""

    def __init__(self, found: Found, content: bytes, files: FileRules) -> None:
        self._path = found.path
        self._name = PurePosixPath(found.path).name
        self._size = len(content)
        self._content = content
        self._files = files
        self._text: str | None = None
        self._secrets: list[Secret] | None = None
        self.language = language_of(self._name, content)

    @property
    def text(self) -> str:
        """Its text; of bytes that are no text, what can be made of them."""
        if self._text is None:
            try:
                self._text = decode_anyhow(self._content) if is_binary(self._content) else decode(self._content)
            except Undecodable:
                self._text = decode_anyhow(self._content)
        return self._text

    @property
    def secrets(self) -> list[Secret]:
        """Keys and passwords in its text."""
        if self._secrets is None:
            self._secrets = find_secrets(self.text)
        return self._secrets

    def accepted_text(self) -> str:
        """What is trained on."""
        return redact(self.text, self.secrets) if self._files.secrets == "Redact" else self.text

    def verdicts(self) -> Iterator[Verdict]:
        """Each rule that rejects the file, in the rules' order."""
        rules: tuple[tuple[Reason, Callable[[], str | None]], ...] = (
            ("TooLarge", self._too_large),
            ("Binary", self._binary),
            ("NotText", self._not_text),
            ("UnknownLanguage", self._unknown_language),
            ("NotSelected", self._not_selected),
            ("Vendored", lambda: find_vendored(self._path) or None),
            ("Generated", lambda: find_generated(self._name, self._content) or None),
            ("Minified", lambda: find_minified(self._name, self.language, self.text) or None),
            ("LongLines", self._long_lines),
            ("Secrets", self._holds_secrets),
        )
        for reason, rule in rules:
            seen = rule()
            if seen is not None:
                yield reason, seen

    def _too_large(self) -> str | None:
        limit = self._files.max_bytes
        return f"{self._size} bytes, more than {limit}" if self._size > limit else None

    def _binary(self) -> str | None:
        return f"byte 0 at {self._content.index(0)}" if is_binary(self._content) else None

    def _not_text(self) -> str | None:
        try:
            self._text = decode(self._content)
        except Undecodable as error:
            return str(error)
        return None

    def _unknown_language(self) -> str | None:
        named = any(kind.startswith((".", "*.")) and self._selected() for kind in self._files.types)
        return "no language claims its name" if self.language == UNKNOWN and not named else None

    def _not_selected(self) -> str | None:
        if self._selected():
            return None
        return f"files.types lacks {self.language}" if self._files.types else f"{self.language} is not programming"

    def _selected(self) -> bool:
        return is_selected(self.language, self._name, self._files.types)

    def _long_lines(self) -> str | None:
        limit = self._files.max_line_length
        lengths = list(map(len, self.text.split("\n")))
        if max(lengths) <= limit:
            return None
        number = next(index for index, length in enumerate(lengths) if length > limit)
        return f"line {number + 1} has {lengths[number]} characters, more than {limit}"

    def _holds_secrets(self) -> str | None:
        return describe(self.secrets) if self._files.secrets == "Reject" and self.secrets else None


def _count_lines(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n"))
