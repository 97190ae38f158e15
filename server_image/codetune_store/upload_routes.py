"""Routes that take uploads: begin with a manifest, send what is missing, commit."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from aiohttp import web
from codetune_api.artifacts import upload_folder
from codetune_api.contracts import Contract
from codetune_api.storing import PackAnswer, UploadRequest
from pydantic import ValidationError

from codetune_store import committing, contents, sessions
from codetune_store.errors import InvalidRequest, NotFound
from codetune_store.requests import read_digest, read_name, read_offset, stream_lines
from codetune_store.sessions import Upload
from codetune_store.settings import StoreSettings

logger = logging.getLogger(__name__)

MAX_BODIES = 16
"""Request bodies that are held in memory at the same time; more requests wait."""
_ROOT = "/v1/projects/{project}/uploads/{source}"

T = TypeVar("T")


class UploadRoutes:
    """Handlers over one store. Disk work runs in threads, with one lock a file that grows or is replaced."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._bodies = asyncio.Semaphore(MAX_BODIES)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register them."""
        router.add_get(_ROOT, self.tell)
        router.add_post(_ROOT, self.begin)
        router.add_put(_ROOT + "/{session}/manifest", self.put_manifest)
        router.add_get(_ROOT + "/{session}/missing", self.list_missing)
        router.add_put(_ROOT + "/{session}/blobs/{digest}", self.put_content)
        router.add_post(_ROOT + "/{session}/packs", self.post_pack)
        router.add_post(_ROOT + "/{session}/commit", self.commit)

    async def tell(self, request: web.Request) -> web.Response:
        """The version that counts."""
        upload = self._upload(request)
        head = await asyncio.to_thread(committing.read_head, upload)
        if head is None:
            raise NotFound("Nothing was uploaded yet: send files with `kubectl codetune upload PROJECT PATH`.")
        return _answer(head)

    async def begin(self, request: web.Request) -> web.Response:
        """Open a session, or find it as it was left."""
        upload = self._upload(request)
        try:
            wanted = UploadRequest.model_validate_json(await request.read())
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"]) or "the body"
            raise InvalidRequest(f"{place}: {fault['msg']}.") from error
        async with self._lock(str(upload.folder)):
            return _answer(await asyncio.to_thread(sessions.begin, upload, wanted))

    async def put_manifest(self, request: web.Request) -> web.Response:
        """A piece of the manifest."""
        upload, name, offset = self._upload(request), read_digest(request, "session"), read_offset(request)

        def write(piece: bytes) -> Contract:
            return sessions.write_manifest(sessions.find(upload, name), offset, piece)

        return _answer(await self._take(request, str(upload.folder), write))

    async def list_missing(self, request: web.Request) -> web.StreamResponse:
        """What is still to be sent, as JSON Lines of `MissingBlob`."""
        upload, name = self._upload(request), read_digest(request, "session")
        missing = await asyncio.to_thread(lambda: contents.list_missing(sessions.find(upload, name)))
        return await stream_lines(request, (blob.model_dump_json().encode() + b"\n" for blob in missing))

    async def put_content(self, request: web.Request) -> web.Response:
        """A piece of one content."""
        upload, name, offset = self._upload(request), read_digest(request, "session"), read_offset(request)
        digest = read_digest(request, "digest")

        def write(piece: bytes) -> Contract:
            return contents.write_content(sessions.find(upload, name), digest, offset, piece)

        return _answer(await self._take(request, f"{upload.folder}/{digest}", write))

    async def post_pack(self, request: web.Request) -> web.Response:
        """Many small contents at once."""
        upload, name = self._upload(request), read_digest(request, "session")

        def write(pack: bytes) -> Contract:
            return PackAnswer(stored=contents.write_pack(sessions.find(upload, name), pack))

        return _answer(await self._take(request, "", write))

    async def commit(self, request: web.Request) -> web.Response:
        """Make a version count."""
        upload, name = self._upload(request), read_digest(request, "session")
        async with self._lock(str(upload.folder)):
            head = await asyncio.to_thread(committing.commit, upload, name)
        where = f"{request.match_info['project']}/{request.match_info['source']}"
        logger.info("%s is at %s: %d files, %d bytes", where, head.revision, head.files, head.bytes)
        return _answer(head)

    async def _take(self, request: web.Request, lock: str, write: Callable[[bytes], T]) -> T:
        """Read a body whole, then write it: what a cut connection began to send is nothing."""
        async with self._bodies:
            body = await request.read()
            if not lock:
                return await asyncio.to_thread(write, body)
            async with self._lock(lock):
                return await asyncio.to_thread(write, body)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _upload(self, request: web.Request) -> Upload:
        """The folder of the upload source that the path names. Raises: InvalidRequest, NotFound."""
        if self._settings.mirror.is_remote:
            raise InvalidRequest("Uploads are taken only where the store is a claim, and here it is a bucket.")
        project, source = read_name(request, "project"), read_name(request, "source")
        root = self._settings.root
        upload = Upload(root / upload_folder(self._settings.namespace, project, source))
        if upload.folder.resolve() != upload.folder:
            raise NotFound(
                "The folder of this upload source is a link or lies behind one; uploads go to plain folders."
            )
        return upload


def _answer(told: Contract) -> web.Response:
    return web.json_response(told.to_wire())
