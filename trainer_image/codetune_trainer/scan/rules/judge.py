"""Judges one file by its name and content: the rules in their order, the first that holds gives the reason. Pure.

`exclude` wins over everything. `include` brings back what any other rule rejected, but for what can't be read at all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from codetune_api.project import FileRules, Holdout

from codetune_trainer.scan.digesting import digest_text
from codetune_trainer.scan.records import Found, Judged, Reason
from codetune_trainer.scan.rules.decoding import (
    Undecodable,
    count_lines,
    decode,
    decode_anyhow,
    is_binary,
    is_blank,
    is_plain,
)
from codetune_trainer.scan.rules.language_names import UNKNOWN
from codetune_trainer.scan.rules.languages import check_types, is_selected, language_of, language_of_name
from codetune_trainer.scan.rules.licensing import FolderLicences, LicenceRule, base_name
from codetune_trainer.scan.rules.origins import find_generated, find_vendored
from codetune_trainer.scan.rules.patterns import Patterns
from codetune_trainer.scan.rules.secrets import Secret, describe, find_secrets, redact
from codetune_trainer.scan.rules.shapes import find_digits, find_long_line, find_minified

READ_LIMIT_BYTES = 64 * 2**20
"""No file above this is ever read, not even when `include` names it."""
REDACTED = "redacted: "
"""Stands before what is said of secrets that were redacted."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_POINTER_BYTES = 1024

Verdict = tuple[Reason, str]
"""A rule that rejects, and what it saw."""


@dataclass(frozen=True)
class Origin:
    """The source that a file is from, as far as rules ask for it."""

    name: str
    held_out: bool = False
    """Whether all of it is for evaluation only."""
    licences: FolderLicences = field(default_factory=FolderLicences)


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
        self._lists = _Lists(
            Patterns(files.include, "files.include"),
            Patterns(files.exclude, "files.exclude"),
            Patterns(holdout.paths, "holdout.paths"),
        )
        self._lists_by_source: dict[str, _Lists] = {}
        self._allowed = frozenset(map(base_name, files.licenses.allow))

    def wants_content(self, source: str, found: Found) -> bool:
        """Whether judging a file of the source of this name takes reading it."""
        lists = self._lists_of(source)
        if found.obstacle or found.size > READ_LIMIT_BYTES or lists.exclude.find(found.path) is not None:
            return False
        return found.size <= self._files.max_bytes or lists.include.find(found.path) is not None

    def judge(self, origin: Origin, found: Found, content: bytes | None) -> tuple[Judged, str]:
        """The verdict on a file, and its text when it is accepted so far.

        Args:
            origin: Its source.
            found: The file as it was found.
            content: Its bytes; None when it was not read.
        """
        lists = self._lists_of(origin.name)
        verdict = self._judge_unseen(lists, found, content)
        if verdict is not None:
            return self._reject(origin, found, content, verdict), ""
        assert content is not None
        licences = LicenceRule(self._allowed, origin.licences) if self._allowed else None
        file = _File(found, content, self._files, licences)
        include = lists.include.find(found.path)
        verdicts = file.find_verdicts(just_one=include is None)
        if verdicts and include is None:
            return self._reject(origin, found, content, verdicts[0], file), ""
        text = file.accepted_text()
        data = content if text is file.plain else text.encode()
        judged = Judged(
            path=f"{origin.name}/{found.path}",
            source=origin.name,
            language=file.language,
            size=found.size,
            lines=count_lines(data),
            reason="",
            detail=self._describe(file, verdicts, include),
            digests=digest_text(data),
            overrode=bool(verdicts),
            wanted=include is not None,
            held_out=self._ask_held_out(origin, lists.held_out, found.path),
            selected=file.selected,
        )
        return judged, text

    def _lists_of(self, source: str) -> "_Lists":
        lists = self._lists_by_source.get(source)
        if lists is None:
            lists = self._lists_by_source[source] = self._lists.of_source(source)
        return lists

    def _judge_unseen(self, lists: "_Lists", found: Found, content: bytes | None) -> Verdict | None:
        """What can be said without a look into the text; none of it but Excluded is anybody's to overrule."""
        excluded = lists.exclude.find(found.path)
        if excluded is not None:
            return "Excluded", f"files.exclude has {excluded!r}"
        if found.obstacle:
            return "Unreadable", found.obstacle
        if content is None:
            limit = self._files.max_bytes if lists.include.find(found.path) is None else READ_LIMIT_BYTES
            return "TooLarge", f"{found.size} bytes, more than {limit}"
        if len(content) <= _LFS_POINTER_BYTES and content.startswith(_LFS_POINTER):
            return "Unreadable", "a Git LFS pointer, not the file itself"
        if is_blank(content):
            return "Empty", "nothing but white space" if content else ""
        return None

    def _ask_held_out(self, origin: Origin, patterns: Patterns, path: str) -> str:
        if origin.held_out:
            return f"source {origin.name} is for evaluation only"
        pattern = patterns.find(path)
        return "" if pattern is None else f"holdout.paths has {pattern!r}"

    def _describe(self, file: "_File", overruled: list[Verdict], include: str | None) -> str:
        """Every rule that `include` overrode, and what was redacted: nobody has to guess what else came in."""
        told = [f"{reason}: {seen}" for reason, seen in overruled]
        if told:
            told[0] = f"files.include has {include!r}, against {told[0]}"
        if self._files.secrets == "Redact" and file.secrets:
            told.append(f"{REDACTED}{describe(file.secrets)}")
        return "; ".join(told)

    def _reject(
        self, origin: Origin, found: Found, content: bytes | None, verdict: Verdict, file: "_File | None" = None
    ) -> Judged:
        name = found.path.rpartition("/")[2]
        if file is not None:
            language = file.language
        else:
            language = language_of_name(name)[0] if content is None else language_of(name, content)
        lines = 0 if content is None or is_binary(content) else count_lines(content)
        return Judged(
            path=f"{origin.name}/{found.path}",
            source=origin.name,
            language=language,
            size=found.size,
            lines=lines,
            reason=verdict[0],
            detail=verdict[1],
            selected=is_selected(language, name, self._files.types),
        )


@dataclass(frozen=True)
class _Lists:
    """The patterns of a Project."""

    include: Patterns
    exclude: Patterns
    held_out: Patterns

    def of_source(self, name: str) -> "_Lists":
        """Those for the files of a source."""
        return _Lists(self.include.of_source(name), self.exclude.of_source(name), self.held_out.of_source(name))


class _File:
    """One file under judgement; each thing about it is found out at most once."""

    def __init__(self, found: Found, content: bytes, files: FileRules, licences: LicenceRule | None) -> None:
        self.path = found.path
        self.name = found.path.rpartition("/")[2]
        self.content = content
        self.files = files
        self.licences = licences
        self.binary = is_binary(content)
        self._text: str | None = None
        self.plain: str | None = None
        """Its text where its bytes are that text in UTF-8 as they stand."""
        self._secrets: list[Secret] | None = None
        self.language = language_of(self.name, content)
        self.selected = is_selected(self.language, self.name, files.types)

    @property
    def text(self) -> str:
        """Its text; of bytes that are no text, what can be made of them."""
        if self._text is None:
            try:
                self._text = decode_anyhow(self.content) if self.binary else decode(self.content)
            except Undecodable:
                self._text = decode_anyhow(self.content)
        return self._text

    @property
    def secrets(self) -> list[Secret]:
        """Keys and passwords in its text."""
        if self._secrets is None:
            self._secrets = find_secrets(self.text)
        return self._secrets

    def accepted_text(self) -> str:
        """What is trained on."""
        return redact(self.text, self.secrets) if self.files.secrets == "Redact" else self.text

    def find_verdicts(self, just_one: bool) -> list[Verdict]:
        """The rules that reject the file, in their order: the first one, or all of them."""
        verdicts: list[Verdict] = []
        for reason, find in _RULES.items():
            seen = find(self)
            if seen:
                verdicts.append((reason, seen))
                if just_one:
                    break
        return verdicts

    def find_no_text(self) -> str:
        """Where its bytes stop being text, "" when they are; what is binary is another rule's."""
        if self.binary:
            return ""
        try:
            self._text = decode(self.content)
        except Undecodable as error:
            return str(error)
        self.plain = self._text if is_plain(self.content) else None
        return ""


def _too_large(file: _File) -> str:
    size, limit = len(file.content), file.files.max_bytes
    return f"{size} bytes, more than {limit}" if size > limit else ""


def _binary(file: _File) -> str:
    return f"byte 0 at {file.content.index(0)}" if file.binary else ""


def _unknown_language(file: _File) -> str:
    if file.language != UNKNOWN:
        return ""
    named = file.selected and any(kind.startswith((".", "*.")) for kind in file.files.types)
    return "" if named else "no language claims its name"


def _not_selected(file: _File) -> str:
    if file.selected:
        return ""
    return f"files.types lacks {file.language}" if file.files.types else f"{file.language} is not programming"


def _held_secrets(file: _File) -> str:
    return describe(file.secrets) if file.files.secrets == "Reject" and file.secrets else ""


_RULES: Mapping[Reason, Callable[[_File], str]] = {
    "TooLarge": _too_large,
    "Binary": _binary,
    "NotText": _File.find_no_text,
    "UnknownLanguage": _unknown_language,
    "NotSelected": _not_selected,
    "Vendored": lambda file: find_vendored(file.path),
    "Generated": lambda file: find_generated(file.name, file.content),
    "Minified": lambda file: find_minified(file.name, file.language, file.text),
    "LongLines": lambda file: find_long_line(file.text, file.files.max_line_length),
    "MostlyDigits": lambda file: find_digits(file.content),
    "License": lambda file: file.licences.find_obstacle(file.path, file.content) if file.licences else "",
    "Secrets": _held_secrets,
}
"""What each rule saw that rejects the file, "" for nothing; in the order in which they are tried."""
