"""How an adapter is refused: by a reason and a sentence that says how to mend it."""


class Refused(Exception):
    """An adapter can't be served; `reason` is one of `AdapterReport.reason`, `rank` what it would need."""

    def __init__(self, reason: str, message: str, *, rank: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.rank = rank
