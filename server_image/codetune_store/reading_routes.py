"""Routes that only read: what the store is, reports of datasets, files of runs."""

import asyncio
import re
import shutil
from itertools import islice
from typing import BinaryIO

from aiohttp import web
from codetune_api.artifacts import finetune_folder
from codetune_api.storing import RunFile, RunFiles, StoreInfo

from codetune_store import __version__
from codetune_store.errors import BadRange, InvalidRequest
from codetune_store.files import StoredFiles
from codetune_store.reporting import RowFilter, read_report
from codetune_store.requests import cutting_off, read_file_parts, read_name, read_uid, stream_lines
from codetune_store.settings import StoreSettings

MAX_LISTED_FILES = 10_000
_REVISION = re.compile(r"sha256:[0-9a-f]{64}")
_PIECE = 256 * 2**10


class ReadingRoutes:
    """Handlers over one store."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._files = StoredFiles(settings.mirror)

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register them."""
        router.add_get("/v1", self.tell)
        router.add_get("/v1/projects/{project}/report", self.report)
        router.add_get("/v1/finetunes/{finetune}/{uid}/files", self.list_run)
        router.add_get("/v1/finetunes/{finetune}/{uid}/files/{path:.+}", self.download)

    async def tell(self, _: web.Request) -> web.Response:
        """What this is and how much room there is."""
        free = (await asyncio.to_thread(shutil.disk_usage, self._settings.root)).free
        told = StoreInfo(version=__version__, namespace=self._settings.namespace, free_bytes=free)
        return web.json_response(told.to_wire())

    async def report(self, request: web.Request) -> web.StreamResponse:
        """Rows of a dataset's report, as JSON Lines of `ReportRow`."""
        revision = request.query.get("revision", "")
        if not _REVISION.fullmatch(revision):
            hint = "give the dataset's, as it stands in the Project's status.revision"
            raise InvalidRequest(f"revision is {revision[:80]!r}, which is no sha256:…: {hint}.")
        wanted = RowFilter.from_query(request.query)
        name, namespace = read_name(request, "project"), self._settings.namespace
        lines = await asyncio.to_thread(read_report, self._files, namespace, name, revision, wanted)
        return await stream_lines(request, lines)

    async def list_run(self, request: web.Request) -> web.Response:
        """Files of a run."""
        listed = await asyncio.to_thread(self._list, self._run_folder(request))
        return web.json_response(listed.to_wire())

    async def download(self, request: web.Request) -> web.StreamResponse:
        """One file of a run, or the range of it that was asked for."""
        parts = [*self._run_folder(request), *read_file_parts(request.match_info["path"])]
        file = await asyncio.to_thread(self._files.open, parts)
        with file:
            size = file.seek(0, 2)
            begin, end = resolve_range(request, size)
            headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
            is_part = "Range" in request.headers
            if is_part:
                headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
            response = web.StreamResponse(status=206 if is_part else 200, headers=headers)
            response.content_length = end - begin
            await response.prepare(request)
            if request.method != "HEAD":
                with cutting_off():
                    await _copy(file, begin, end, response)
            await response.write_eof()
            return response

    def _run_folder(self, request: web.Request) -> list[str]:
        name, uid = read_name(request, "finetune"), read_uid(request, "uid")
        return finetune_folder(self._settings.namespace, name, uid).split("/")

    def _list(self, folder: list[str]) -> RunFiles:
        found = list(islice(self._files.list(folder), MAX_LISTED_FILES + 1))
        files = [RunFile(path=entry.path, bytes=entry.size) for entry in found[:MAX_LISTED_FILES]]
        return RunFiles(files=files, truncated=len(found) > MAX_LISTED_FILES)


def resolve_range(request: web.Request, size: int) -> tuple[int, int]:
    """First byte and the one after the last. Raises: BadRange."""
    try:
        asked = request.http_range
    except ValueError as error:
        raise BadRange(
            f"Range {request.headers.get('Range', '')[:80]!r} is not of the form bytes=FIRST-LAST."
        ) from error
    begin, end, _ = asked.indices(size)
    if "Range" in request.headers and begin >= end:
        raise BadRange(f"The file has {size} bytes: there are none at {request.headers['Range'][:80]!r}.")
    return begin, end


async def _copy(file: BinaryIO, begin: int, end: int, response: web.StreamResponse) -> None:
    file.seek(begin)
    while begin < end:
        piece = await asyncio.to_thread(file.read, min(_PIECE, end - begin))
        if not piece:
            raise OSError(f"the file ended at byte {begin} while it was read")
        begin += len(piece)
        await response.write(piece)
