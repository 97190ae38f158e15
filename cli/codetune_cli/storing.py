"""The namespace's store service, through the API server's service proxy."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from codetune_api.contracts import Contract
from codetune_api.metadata import STORE_PORT, STORE_SERVICE, STORE_TOKEN_HEADER, STORE_TOKEN_SECRET
from codetune_api.storing import MissingBlob, PackAnswer, StoreInfo, StoreRefusal, UploadProgress, UploadRequest
from codetune_api.uploads import UploadHead
from pydantic import ValidationError

from codetune_cli.connecting import Answer, Connection, read_all, read_message
from codetune_cli.errors import CliError, Interrupted, StoreRefused
from codetune_cli.resources import read_token
from codetune_cli.streaming import read_pieces, split_lines

M = TypeVar("M", bound=Contract)


@dataclass
class StoreClient:
    """Requests to the store service; each can be sent again without harm."""

    connection: Connection
    _token: str = field(default="", repr=False)

    def info(self) -> StoreInfo:
        """What it is. Raises: Interrupted while it is not there."""
        return self._model(StoreInfo, "GET", "/v1")

    def begin(self, project: str, source: str, request: UploadRequest) -> UploadProgress:
        """Open an upload session, or find it as it was left."""
        path = f"/v1/projects/{project}/uploads/{source}"
        return self._model(UploadProgress, "POST", path, body=request.model_dump_json().encode())

    def put(self, path: str, offset: int, piece: bytes) -> UploadProgress:
        """Send a piece of a manifest or content."""
        return self._model(UploadProgress, "PUT", path, body=piece, query={"offset": str(offset)})

    def post_pack(self, session: str, pack: bytes) -> PackAnswer:
        """Send small contents together."""
        return self._model(PackAnswer, "POST", f"{session}/packs", body=pack)

    def commit(self, session: str) -> UploadHead:
        """Make a version count."""
        return self._model(UploadHead, "POST", f"{session}/commit", body=b"")

    def missing(self, session: str) -> list[MissingBlob]:
        """What is still to be sent."""
        return [self._parse(MissingBlob, line) for line in self.lines(f"{session}/missing", {})]

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        """The lines of a JSON Lines answer, as they come. Raises: StoreRefused, Interrupted."""
        yield from split_lines(read_pieces(self.open("GET", path, query=query)))

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, whose answer is still to be read.

        Raises:
            StoreRefused: The store service refused.
            Interrupted: It could not be reached, or its token is just being changed.
            CliError: The API server refused.
        """
        answer = self._send(method, path, query, body, headers or {})
        if answer.status < 400:
            return answer
        content = read_all(answer)
        refused = self._refusal(answer.status, content)
        if isinstance(refused, StoreRefused) and refused.reason == "Unauthorized":
            self._token = ""  # it was made anew: ask for it once more
            answer = self._send(method, path, query, body, headers or {})
            if answer.status < 400:
                return answer
            refused = self._refusal(answer.status, read_all(answer))
            if isinstance(refused, StoreRefused) and refused.reason == "Unauthorized":
                self._token = ""
                why = f"The store service does not know the token of the Secret {STORE_TOKEN_SECRET} yet"
                raise Interrupted(f"{why}: after a change it takes up to two minutes to reach the pod.")
        raise refused

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        self._token = self._token or read_token(self.connection) or ""
        if not self._token:
            raise Interrupted("The store service has no token yet.")
        service = f"/api/v1/namespaces/{self.connection.namespace}/services/http:{STORE_SERVICE}:{STORE_PORT}/proxy"
        sent = {STORE_TOKEN_HEADER: self._token, "Content-Type": "application/octet-stream", **headers}
        return self.connection.send(method, service + path, query=query, body=body, headers=sent)

    def _refusal(self, status: int, content: bytes) -> CliError:
        """Whose word it is: the store service's, or the API server's about it."""
        try:
            said = json.loads(content)
        except ValueError:
            said = {}
        if isinstance(said, dict) and said.get("kind") != "Status":
            try:
                return StoreRefused(StoreRefusal.model_validate(said))
            except ValidationError:
                return CliError(f"The store service failed (HTTP {status}): see `kubectl logs deploy/{STORE_SERVICE}`.")
        message = read_message(content)
        if status in {404, 429} or status >= 500:
            return Interrupted(f"The store service can't be reached: {message}")
        if status == 403:
            hint = f"Ask for get, create and update on services/proxy of http:{STORE_SERVICE}:{STORE_PORT}"
            return CliError(f"You may not use the store service: {message}. {hint}; see docs/uploads.md.")
        return CliError(f"The API server refused (HTTP {status}): {message}")

    def _model(
        self,
        model: type[M],
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
    ) -> M:
        return self._parse(model, read_all(self.open(method, path, query=query, body=body)))

    def _parse(self, model: type[M], content: bytes) -> M:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise CliError(
                "The store service answers in another way than this command expects: update both."
            ) from error
