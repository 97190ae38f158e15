"""Finds keys and passwords in text by a short table of precise patterns. Pure; a value found is never shown.

A pattern is in the table when its issuer documents the form, so that a hit is nearly always a real secret. Passwords
have no form: for them a value must be assigned to a telling name and look random, or stand in a URL.
"""

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import unquote

import re2

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
    "json-web-token": (
        ("eyJ",),
        r"eyJ(?<![A-Za-z0-9_-]eyJ)[A-Za-z0-9_-]{8,2048}+\.[A-Za-z0-9_-]{8,8192}+\.[A-Za-z0-9_-]{16,2048}+(?![.=])",
    ),
    "azure-storage-key": (("AccountKey=",), r"\bAccountKey=[A-Za-z0-9+/]{86}=="),
}
_COMPILED = [(rule, literals, re.compile(pattern)) for rule, (literals, pattern) in _RULES.items()]
_ANY_LITERAL = re2.compile("|".join(re2.escape(literal) for literals, _ in _RULES.values() for literal in literals))
"""Found by RE2 in one pass over the text, where a search for each would take some thirty. Few files have any."""
_TELLING_WORDS = ("passw", "secret", "token", "credential", "key")
_KEY_WORDS = tuple(f"{word}{joint}" for word in ("api", "access", "auth", "private") for joint in ("", "_", "-"))
"""What must stand before `key` for it to be telling: `api_key` is, `key` alone is in every dictionary."""
# Possessive (`++`, `{…}+`) wherever what follows can't begin with what is repeated: no step is ever taken back.
_ASSIGNED = re.compile(
    r"[\w-]{0,40}+[\"'\]]{0,2}+\s{0,8}+(?::=|=>|[:=]|:[\w.&|<>\[\] ]{1,60}+=)\s{0,8}+"  # with a type: `password: str =`
    r"(?P<quote>[\"'])(?P<value>[^\s\"'\\]{12,256}+)(?P=quote)"
)
_BARE = re.compile(
    r"\w{0,40}+(?P<joint>=|[ \t]{1,8}+)(?P<quote>[\"']?)(?P<value>[^\s\"'\\`$;&|<>(){}]{12,256}+)(?P=quote)"
    r"(?![^\s;&|)])"
)
"""A value without quotes, as shells and Dockerfiles have them."""
_EXPORT, _ENV = "export ", "ENV "
_BEFORE_BARE = re.compile(r"(?<!\w)(?:export|ENV)(?:(?:[ \t]|\\\r?\n)+\w+=\S*)*(?:[ \t]|\\\r?\n)+\w*")
"""What stands before the telling word there: other variables of the same statement, at most."""
_BEFORE_BARE_CHARACTERS = 240
_AUTHORITY = "://"
_IN_URL = re.compile(
    r"://(?P<user>[^\s/:@\"'`\\?#<>{}()\[\]|*]{0,64}+):(?P<value>[^\s/:@\"'`\\?#<>{}()\[\]|*]{6,128}+)@(?=[\w\[])"
)
_COMMON_PASSWORD = re.compile(
    r"(?i)(?:[a-z]{1,8}[-_. ]?)?(?:pass(?:wd|word|phrase|code)?|pwd?|secret|token|key|admin|root|guest|user(?:name)?)"
    r"[-_.]?[0-9]{0,4}[!.]?"
)
"""Passwords in URLs that only show where one goes."""
_LETTERS_IN_DISGUISE = str.maketrans("@0$", "aos")
"""`p@ssw0rd`."""
_JWT_OF_DOCUMENTATION = ".eyJzdWIiOiIxMjM0NTY3ODkwI"
"""Every copy of jwt.io's own token has this: `{"sub":"1234567890"`."""
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_PLACEHOLDER = re.compile(
    r"(?i:example|change.?me|placeholder|dummy|sample|your[-_]|xxxx|\*\*\*|<|>|\$\{|\{\{|%\(|fake|redacted|todo"
    r"|\.\.\.|0123456789|abcdef|://)"
    r"|(?<![A-Za-z])(?:test|TEST|Test)(?![a-z])|(?<=[a-z])Test(?![a-z])"  # a word of its own, also in testKey, myTest
)
_SCRAMBLED_SHARE = 1 / 3
"""Small letters, capitals and digits next to one of another kind, for each character of a value with slashes, above
which it is no path: of random base64 they are 0.57 with a deviation of 0.08 in 40 characters, of paths below 0.2."""
ENTROPY_BITS = 3.5
"""Bits a character above which an assigned value counts as random, if it also mixes letters and digits."""
GENERIC = "assigned-secret"
"""Name of the rule for values that only their variable's name gives away."""
IN_URL = "url-password"
JWT = "json-web-token"
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
    if _ANY_LITERAL.search(text):
        yield from _known_spans(text)
    yield from _assigned_spans(text)
    yield from _url_spans(text)


def _known_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """What has a documented form."""
    for rule, literals, pattern in _COMPILED:
        if any(literal in text for literal in literals):
            for match in pattern.finditer(text):
                if rule != JWT or _is_token_of_somebody(match[0]):
                    yield rule, match.start(), match.end()


def _assigned_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """What is assigned to names that tell of a secret."""
    for position in _telling_words(text):
        match = _ASSIGNED.match(text, position) or _match_bare(text, position)
        if match and _looks_random(match["value"]):
            yield GENERIC, match.start("value"), match.end("value")


def _match_bare(text: str, position: int) -> re.Match[str] | None:
    match = _BARE.match(text, position)
    if match is None:
        return None
    start = max(0, position - _BEFORE_BARE_CHARACTERS)
    exported, env = text.rfind(_EXPORT, start, position), text.rfind(_ENV, start, position)
    if match["joint"] != "=":
        exported = -1  # `ENV NAME value`
    return match if max(exported, env) >= 0 and _BEFORE_BARE.fullmatch(text, max(exported, env), position) else None


def _url_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Passwords in URLs."""
    position = text.find(_AUTHORITY)
    while position >= 0:
        match = _IN_URL.match(text, position)
        if match and _is_password(match["user"], match["value"]):
            yield IN_URL, match.start("value"), match.end("value")
        position = text.find(_AUTHORITY, position + len(_AUTHORITY))


def _is_password(user: str, value: str) -> bool:
    """Whether a URL's password is one: letters and something else, and none that everybody writes there."""
    password = unquote(value)
    if value == user or value.isalpha() or not any(map(str.isalpha, value)) or value[0] in "$%":
        return False
    written = (password, password.translate(_LETTERS_IN_DISGUISE))
    return not any(_PLACEHOLDER.search(form) or _COMMON_PASSWORD.fullmatch(form) for form in written)


def _is_token_of_somebody(token: str) -> bool:
    """Whether what has the form of a JSON web token begins with the header of one."""
    header = token.partition(".")[0]
    try:
        told = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(told, dict) and isinstance(told.get("alg"), str) and _JWT_OF_DOCUMENTATION not in token


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
    if not mixed or _PLACEHOLDER.search(value) or ("/" in value and not _is_scrambled(value)):
        return False
    return _entropy(value) >= ENTROPY_BITS


def _is_scrambled(value: str) -> bool:
    """Whether capitals, small letters and digits stand as mixed as no words do."""
    kinds = [1 if letter.islower() else 2 if letter.isupper() else 3 if letter.isdigit() else 0 for letter in value]
    changes = sum(one != other for one, other in pairwise(kinds) if one and other)
    return {1, 2, 3} <= {*kinds} and changes >= _SCRAMBLED_SHARE * len(value)


def _entropy(value: str) -> float:
    """Shannon entropy in bits a character."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())
