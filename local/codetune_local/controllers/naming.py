"""Names of children: a readable prefix and five characters that make it unique. Pure but for the random source."""

import hashlib
import json
import secrets
from typing import Any

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and nothing that looks like something else, as Kubernetes names have it."""
MAX_PREFIX = 58
"""A pod's name is also its host name: 63 characters, less the suffix."""


def random_suffix() -> str:
    """Five characters."""
    return "".join(secrets.choice(ALPHABET) for _ in range(5))


def child_name(prefix: str, suffix: str) -> str:
    """`prefix-suffix`, the prefix cut so that it stays a host name."""
    return f"{prefix[: MAX_PREFIX - 1].rstrip('-.')}-{suffix}"


def hash_template(template: Any, collisions: int = 0) -> str:
    """A short name for the content of a pod template: the same content, the same name."""
    text = json.dumps([template, collisions], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, index = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[index])
    return "".join(letters)
