"""How an adapter is refused: by a reason and a sentence that says how to mend it."""


class Refused(Exception):
    """An adapter can't be served; `reason` is one of `AdapterReport.reason`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
