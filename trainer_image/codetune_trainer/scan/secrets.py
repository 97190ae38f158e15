"""Finds keys and passwords in text by a short table of precise patterns. Pure; a value found is never shown.

A pattern is in the table when its issuer documents the form, so that a hit is nearly always a real secret. Passwords
have no form: for them a quoted value must be assigned to a telling name and look random.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_RULES = {
    "private-key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
    r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    "aws-access-key": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    "github-token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{82})\b",
    "gitlab-token": r"\bglpat-[A-Za-z0-9_-]{20,}\b",
    "slack-token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}\b",
    "slack-webhook": r"https://hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20,}",
    "google-api-key": r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",
    "google-oauth-secret": r"\bGOCSPX-[A-Za-z0-9_-]{28}(?![A-Za-z0-9_-])",
    "stripe-key": r"\b[rs]k_live_[A-Za-z0-9]{20,}\b",
    "openai-key": r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,}T3BlbkFJ[A-Za-z0-9_-]{20,}",
    "anthropic-key": r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,}",
    "huggingface-token": r"\bhf_[A-Za-z]{34}\b",
    "npm-token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "pypi-token": r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}",
    "sendgrid-key": r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
    "azure-storage-key": r"\bAccountKey=[A-Za-z0-9+/]{86}==",
}
_KNOWN = re.compile("|".join(f"(?P<{name.replace('-', '_')}>{pattern})" for name, pattern in _RULES.items()))
# One cheap look that most files don't pass; every rule of _RULES has one of these words.
_HINT = re.compile(
    r"PRIVATE KEY|AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|hooks\.slack|AIza|GOCSPX-|k_live_"
    r"|T3BlbkFJ|sk-ant-|hf_[A-Za-z]{34}|npm_|pypi-AgE|SG\.|AccountKey="
)
_ASSIGNED = re.compile(
    r"(?i)(?:password|passwd|secret|token|api_?key|access_?key|auth_?key|credential|private_?key)[\w-]{0,32}"
    r"[\"'\]]{0,2}\s{0,8}(?::=|=>|[:=])\s{0,8}(?P<quote>[\"'])(?P<value>[^\s\"'\\]{12,256})(?P=quote)"
)
_ASSIGNED_HINT = re.compile(r"(?i)passw|secret|token|key|credential")
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
    for rule, start, end in sorted(_spans(text), key=lambda span: (span[1], -span[2])):
        if found and start < found[-1].end:
            continue
        found.append(Secret(rule, text.count("\n", 0, start) + 1, start, end))
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
    if _HINT.search(text):
        for match in _KNOWN.finditer(text):
            yield str(match.lastgroup).replace("_", "-"), match.start(), match.end()
    if _ASSIGNED_HINT.search(text):
        for match in _ASSIGNED.finditer(text):
            if _looks_random(match["value"]):
                yield GENERIC, match.start("value"), match.end("value")


def _looks_random(value: str) -> bool:
    mixed = any(letter.isdigit() for letter in value) and any(letter.isalpha() for letter in value)
    if not mixed or _PLACEHOLDER.search(value):
        return False
    return _entropy(value) >= ENTROPY_BITS


def _entropy(value: str) -> float:
    """Shannon entropy in bits a character."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())
