"""What a person is told when a command can't be carried out.

CliError          the message says what is wrong and what to do
├── ApiRefusal    the API server refused; carries its HTTP status
├── StoreRefused  the store service refused; carries its reason
└── Interrupted   the connection broke, or nobody answers now: trying again helps
"""

from codetune_api.storing import StoreRefusal


class CliError(Exception):
    """A command can't be carried out."""


class ApiRefusal(CliError):
    """The API server refused.

    Args:
        status: HTTP status.
        message: What it said.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StoreRefused(CliError):
    """The store service refused."""

    def __init__(self, refusal: StoreRefusal) -> None:
        super().__init__(refusal.message)
        self.reason = refusal.reason
        self.offset = refusal.offset


class Interrupted(CliError):
    """The connection broke, or nobody answers now."""
