"""The limit of requests: a token bucket. Plain state and a clock."""

from collections.abc import Callable

_ROUNDING = 1e-9
"""Whoever waits exactly as long as told is let in."""


class TokenBucket:
    """Holds as many tokens as a minute brings, and at least one; each request takes one.

    Args:
        per_minute: How many tokens a minute brings, evenly.
        clock: Seconds that only grow.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._capacity = max(1.0, per_minute)
        self._clock = clock
        self._tokens = self._capacity
        self._filled_at = clock()

    def take(self) -> float:
        """Take a token. Returns: 0.0, or when there is none, the seconds until there is one."""
        now = self._clock()
        grown = self._tokens + (now - self._filled_at) * self.per_minute / 60
        self._tokens, self._filled_at = min(self._capacity, grown), now
        if self._tokens < 1 - _ROUNDING:
            return (1 - self._tokens) * 60 / self.per_minute
        self._tokens -= 1
        return 0.0
