"""A question to a model's server or a team's gateway, through the API server's service proxy; answers as they come."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from codetune_api.metadata import API_KEY_HEADER

from codetune_cli.connecting import REFUSED_CREDENTIALS, Answer, Connection, Obj, read_all, read_message
from codetune_cli.errors import CliError, Interrupted
from codetune_cli.keys import HOW
from codetune_cli.streaming import read_pieces, split_lines

COMPLETIONS = "/v1/completions"
_READ_SECONDS = 600.0
"""A server without a GPU takes its time for a long text."""
_STREAM = "text/event-stream"
_DATA = b"data:"
_DONE = b"[DONE]"
_KEPT_OUT = (
    "Its NetworkPolicy may keep the API server out: docs/cli.md says how to let it in, and how to ask without it"
)


@dataclass(frozen=True)
class Server:
    """Who is asked."""

    who: str
    """For messages, e.g. `ModelDeployment 'coder'`."""
    service: str
    port: int
    connection: Connection
    key: str | None = field(default=None, repr=False)

    def complete(self, question: Obj) -> Iterator[str]:
        """The pieces of a completion.

        Raises:
            CliError: It was refused, did not come, or broke off; what came before that has been given out.
        """
        answer = self._send({**question, "stream": True})
        try:
            yield from self._read(answer)
        except Interrupted as error:
            raise CliError(f"{str(error).rstrip('.')}. What came until then is not the whole: ask again.") from error

    def _send(self, question: Obj) -> Answer:
        namespace = self.connection.namespace
        path = f"/api/v1/namespaces/{namespace}/services/http:{self.service}:{self.port}/proxy{COMPLETIONS}"
        headers = {"Content-Type": "application/json", "Accept": _STREAM}
        if self.key:
            headers[API_KEY_HEADER] = self.key  # the API server keeps Authorization to itself
        body = json.dumps(question).encode()
        answer = self.connection.send("POST", path, body=body, headers=headers, read_seconds=_READ_SECONDS)
        if answer.status >= 400:
            raise self._refusal(answer.status, read_all(answer))
        kind = answer.headers.get("Content-Type", "")
        if not kind.startswith(_STREAM):
            answer.close()
            raise CliError(f"{self.who} answers with {kind or 'nothing'} and not as a model's server does.")
        return answer

    def _read(self, answer: Answer) -> Iterator[str]:
        """Raises: CliError, Interrupted."""
        for line in split_lines(read_pieces(answer)):
            if not line.startswith(_DATA):
                continue
            data = line.removeprefix(_DATA).strip()
            if data == _DONE:
                return
            yield _read_piece(data, self.who)
        raise Interrupted(f"The answer of {self.who} broke off before its end")

    def _refusal(self, status: int, content: bytes) -> CliError:
        """In whose words it is: those of the server, or those of the API server about it."""
        said = _parse(content)
        message = _read_error(said)
        if message:
            cure = f" {HOW}" if status == 401 else ""
            return CliError(f"{self.who} refuses (HTTP {status}): {message}{cure}")
        message = read_message(content)
        if said.get("kind") == "Status" and status == 401:
            return CliError(f"The API server refuses: {message}: {REFUSED_CREDENTIALS}.")
        if said.get("kind") == "Status" and status == 403:
            hint = f"Ask for `create` on services/proxy of http:{self.service}:{self.port} in this namespace"
            return CliError(f"You may not ask {self.who}: {message}. {hint}; the ClusterRole `edit` has it.")
        if said.get("kind") == "Status" and status == 429:
            return CliError(f"The API server has too much to do now: {message}. Ask again in a moment.")
        hint = f" {_KEPT_OUT}." if status >= 500 and "no endpoints" not in message else ""
        return CliError(f"{self.who} can't be reached (HTTP {status}): {message.rstrip('.')}.{hint}")


def _read_piece(data: bytes, who: str) -> str:
    """The text of one event. Raises: CliError."""
    event = _parse(data)
    if message := _read_error(event):
        raise CliError(f"{who} has broken the answer off: {message}")
    choices = event.get("choices")
    if not isinstance(choices, list):
        raise CliError(f"{who} answers with something else than a completion: {data[:80].decode(errors='replace')!r}.")
    # The last event may be about usage, and then has no choice.
    text = "".join(str(choice.get("text") or "") for choice in choices if isinstance(choice, dict))
    return text.encode(errors="replace").decode()  # half a character can't be written


def _read_error(said: Obj) -> str:
    """What an error in OpenAI's form says; empty where it is none."""
    error = said.get("error")
    return str(error.get("message") or "") if isinstance(error, dict) else ""


def _parse(content: bytes) -> Obj:
    try:
        said: Any = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
