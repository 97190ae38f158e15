"""Finds keys and passwords in text by a short table of precise patterns. Pure; a value found is never shown.

A pattern is in the table when its issuer documents the form, so that a hit is nearly always a real secret. Passwords
have no form: for them a quoted value must be assigned to a telling name and look random.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

# Rule → literals of which one is in every hit (looking for these is what makes the search fast), and its pattern.
_RULES = {
    "private-key": (
        ("PRIVATE KEY",),
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
        r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    ),
    "aws-access-key": (("AKIA", "ASIA", "ABIA", "ACCA"), r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    "github-token": (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{82})\b",
    ),
    "gitlab-token": (("glpat-",), r"\bglpat-[A-Za-z0-9_-]{20,}\b"),
    "slack-token": (("xox",), r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}\b"),
    "slack-webhook": (
        ("hooks.slack.com",),
        r"https://hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20,}",
    ),
    "google-api-key": (("AIza",), r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    "google-oauth-secret": (("GOCSPX-",), r"\bGOCSPX-[A-Za-z0-9_-]{28}(?![A-Za-z0-9_-])"),
    "stripe-key": (("k_live_",), r"\b[rs]k_live_[A-Za-z0-9]{20,}\b"),
    "openai-key": (("T3BlbkFJ",), r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,200}?T3BlbkFJ[A-Za-z0-9_-]{20,}"),
    "anthropic-key": (("sk-ant-",), r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,}"),
    "huggingface-token": (("hf_",), r"\bhf_[A-Za-z]{34}\b"),
    "npm-token": (("npm_",), r"\bnpm_[A-Za-z0-9]{36}\b"),
    "pypi-token": (("pypi-AgE",), r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    "sendgrid-key": (("SG.",), r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"),
    "azure-storage-key": (("AccountKey=",), r"\bAccountKey=[A-Za-z0-9+/]{86}=="),
}
_COMPILED = [(rule, literals, re.compile(pattern)) for rule, (literals, pattern) in _RULES.items()]
_TELLING_WORDS = ("passw", "secret", "token", "credential", "key")
_KEY_WORDS = tuple(f"{word}{joint}" for word in ("api", "access", "auth", "private") for joint in ("", "_", "-"))
"""What must stand before `key` for it to be telling: `api_key` is, `key` alone is in every dictionary."""
_ASSIGNED = re.compile(
    r"[\w-]{0,40}[\"'\]]{0,2}\s{0,8}(?::=|=>|[:=])\s{0,8}(?P<quote>[\"'])(?P<value>[^\s\"'\\]{12,256})(?P=quote)"
)
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_PLACEHOLDER = re.compile(
    r"(?i)example|change.?me|placeholder|dummy|sample|your[-_]|xxxx|\*\*\*|<|>|\$\{|\{\{|%\(|test|fake|redacted|todo"
    r"|\.\.\.|0123456789|abcdef|://|/"
)
ENTROPY_BITS = 3.5
"""Bits a character above which an assigned value counts as random, if it also mixes letters and digits."""
GENERIC = "assigned-secret"
"""Name of the rule for values that only their variable's name gives away."""
REPLACEMENT = "REDACTED"


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is; not what it is."""

    rule: str
    line: int
    """Counted from 1."""
    start: int
    """In characters from the start of the text."""
    end: int


def find_secrets(text: str) -> list[Secret]:
    """Every secret of a text, in order, none overlapping another."""
    found: list[Secret] = []
    line, counted = 1, 0  # counted on from hit to hit: a long file may be full of them
    for rule, start, end in sorted(_spans(text), key=lambda span: (span[1], -span[2])):
        if found and start < found[-1].end:
            continue
        line, counted = line + text.count("\n", counted, start), start
        found.append(Secret(rule, line, start, end))
    return found


def redact(text: str, secrets: list[Secret]) -> str:
    """The text with each secret replaced; lines stay where they are."""
    parts: list[str] = []
    position = 0
    for secret in secrets:
        lost_lines = "\n" * text.count("\n", secret.start, secret.end)
        parts += [text[position : secret.start], REPLACEMENT, lost_lines]
        position = secret.end
    return "".join([*parts, text[position:]])


def describe(secrets: list[Secret]) -> str:
    """Rules and lines, at most three of them."""
    shown = ", ".join(f"{secret.rule} in line {secret.line}" for secret in secrets[:3])
    more = len(secrets) - 3
    return f"{shown} and {more} more" if more > 0 else shown


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    for rule, literals, pattern in _COMPILED:
        if any(literal in text for literal in literals):
            for match in pattern.finditer(text):
                yield rule, match.start(), match.end()
    for position in _telling_words(text):
        assigned = _ASSIGNED.match(text, position)
        if assigned and _looks_random(assigned["value"]):
            yield GENERIC, assigned.start("value"), assigned.end("value")


def _telling_words(text: str) -> Iterator[int]:
    """Where a word stands that could name a secret."""
    lower = text.lower()
    if len(lower) != len(text):  # a letter whose small form is two: positions would not be the text's
        lower = text.translate(_ASCII_LOWER)
    for word in _TELLING_WORDS:
        position = lower.find(word)
        while position >= 0:
            if word != "key" or lower.endswith(_KEY_WORDS, max(0, position - 8), position):
                yield position
            position = lower.find(word, position + len(word))


def _looks_random(value: str) -> bool:
    mixed = any(letter.isdigit() for letter in value) and any(letter.isalpha() for letter in value)
    if not mixed or _PLACEHOLDER.search(value):
        return False
    return _entropy(value) >= ENTROPY_BITS


def _entropy(value: str) -> float:
    """Shannon entropy in bits a character."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())
