"""`/v2/…`: the distribution API (OCI 1.1) in front of the store. Everything needs a token; nothing is deleted here.

    GET  /v2/                                  who am I
    GET  /v2/NAME/manifests/REF  PUT           GET /v2/NAME/referrers/DIGEST     GET /v2/NAME/tags/list
    GET  /v2/NAME/blobs/DIGEST   POST /v2/NAME/blobs/uploads/   PATCH, PUT, GET /v2/NAME/blobs/uploads/ID

Names and digests are checked before they become part of a request to the store.
"""

import asyncio
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from umec_core.errors import Kind, UmecError
from umec_core.principal import Principal
from umec_core.problems import PROBLEMS
from umec_images.authority.journal import Journal
from umec_images.gateway.access import PULL, PUSH, Door, allow
from umec_images.gateway.backend import Backend
from umec_images.gateway.content import Contents
from umec_images.gateway.errors import (
    BackendUnavailable,
    DigestStated,
    Unsupported,
    UploadRefused,
    UploadTooLarge,
    oci_error,
)
from umec_images.gateway.spool import BlobResponse
from umec_images.oci.client import REFUSAL_HEADER
from umec_images.oci.errors import BlobUnknown, DigestMismatch, ManifestInvalid
from umec_images.oci.manifest import INDEX, MAX_MANIFEST, encode
from umec_images.oci.reference import check_digest, check_tag

__all__ = ["gateway_app"]

_UPLOAD: Final = re.compile(r"[0-9a-f-]{36}\Z", re.ASCII)
_API: Final = {"Docker-Distribution-Api-Version": "registry/2.0"}

_Handler = Callable[[Request, Principal], Awaitable[Response]]


def gateway_app(
    backend: Backend, contents: Contents, gatekeeper: Door, *, journal: Journal, max_blob: int, own: bool = False
) -> Starlette:
    """Return the application; `max_blob` is the size in bytes of the largest blob that it takes or gives.

    `own` says that only this service itself uses it.
    """
    api = _Gateway(backend, contents, gatekeeper, journal, max_blob, own, weakref.WeakValueDictionary())
    name = "/v2/{tenant}/{repository}"
    routes = [
        api.route("/v2/", {"GET": api.whoami, "HEAD": api.whoami}),
        api.route(f"{name}/tags/list", {"GET": api.tags}),
        api.route(
            f"{name}/manifests/{{reference}}",
            {"GET": api.get_manifest, "HEAD": api.get_manifest, "PUT": api.put_manifest},
        ),
        api.route(f"{name}/referrers/{{digest}}", {"GET": api.referrers}),
        api.route(f"{name}/blobs/uploads/", {"POST": api.start_upload}),
        api.route(
            f"{name}/blobs/uploads/{{upload}}",
            {"PATCH": api.continue_upload, "PUT": api.finish_upload, "GET": api.upload_status},
        ),
        api.route(f"{name}/blobs/{{digest}}", {"GET": api.get_blob, "HEAD": api.head_blob}),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: api.unknown})
    app.router.redirect_slashes = False  # to where the client's own Host header says
    return app


@dataclass(frozen=True, slots=True)
class _Gateway:
    backend: Backend
    contents: Contents
    gatekeeper: Door
    journal: Journal
    max_blob: int
    own: bool
    turns: weakref.WeakValueDictionary[str, asyncio.Lock]

    def route(self, path: str, handlers: dict[str, _Handler]) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                principal = await self.gatekeeper.enter(request)
                handler = handlers.get(request.method)
                if handler is None:
                    raise Unsupported(f"{request.method} is not supported here")
                try:
                    return await handler(request, principal)
                except UmecError as error:
                    await self.record(request, principal, error)
                    raise
            except UmecError as error:
                return self.refuse(error)

        # The methods are told apart inside, so that a stranger learns nothing but 401.
        return Route(path, endpoint, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])

    async def record(self, request: Request, principal: Principal, error: UmecError) -> None:
        """Write down a refused push, and any content that is not what it was when it was pushed."""
        if isinstance(error, DigestMismatch):
            action = "content-read"
        elif request.method == "PUT" and "reference" in request.path_params:
            action = "manifest-pushed"
        else:
            return
        await self.journal.refused(principal.client_id, action, request.scope["path"], error)

    def refuse(self, error: UmecError) -> Response:
        headers = {**_API, REFUSAL_HEADER: error.code}  # an answer to HEAD has no body to say it in
        if error.kind in {Kind.UNAUTHENTICATED, Kind.FORBIDDEN}:
            headers["WWW-Authenticate"] = self.gatekeeper.challenge()
        status = 405 if isinstance(error, Unsupported) else PROBLEMS[error.kind].status
        return JSONResponse(oci_error(error), status_code=status, headers=headers)

    async def unknown(self, _request: Request, _error: Exception) -> Response:
        """Answer for every path that is none of the API's."""
        return JSONResponse(oci_error(Unsupported("there is no such path")), status_code=404, headers=_API)

    async def whoami(self, _request: Request, _principal: Principal) -> Response:
        return JSONResponse({}, headers=_API)

    async def tags(self, request: Request, principal: Principal) -> Response:
        name = _repository(request, principal, PULL)
        return JSONResponse({"name": name, "tags": await self.contents.tags(name)}, headers=_API)

    async def get_manifest(self, request: Request, principal: Principal) -> Response:
        name, reference = _repository(request, principal, PULL), _reference(request)
        digest, media_type, content = await self.backend.manifest(name, reference)
        headers = {**_API, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        return Response(content, media_type=media_type, headers=headers)

    async def put_manifest(self, request: Request, principal: Principal) -> Response:
        name, reference = _repository(request, principal, PUSH), _reference(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        pushed = await self.contents.push(name, reference, await _manifest_body(request), media_type, own=self.own)
        facts = {"reference": reference, "subject": pushed.subject}
        await self.journal.done(principal.client_id, "manifest-pushed", f"{name}@{pushed.digest}", facts)
        headers = {**_API, "Docker-Content-Digest": pushed.digest, "Location": f"/v2/{name}/manifests/{pushed.digest}"}
        if pushed.subject is not None:
            headers["OCI-Subject"] = pushed.subject
        return Response(status_code=201, headers=headers)

    async def referrers(self, request: Request, principal: Principal) -> Response:
        name, digest = _repository(request, principal, PULL), check_digest(request.path_params["digest"])
        wanted = request.query_params.get("artifactType")
        found = (await self.contents.referrers(name, digest)).manifests
        manifests = [each.to_json() for each in found if wanted in (None, each.artifact_type)]
        headers = _API if wanted is None else {**_API, "OCI-Filters-Applied": "artifactType"}
        content = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        return Response(content, media_type=INDEX, headers=headers)

    async def head_blob(self, request: Request, principal: Principal) -> Response:
        name, digest = _repository(request, principal, PULL), check_digest(request.path_params["digest"])
        size = await self.backend.blob_size(name, digest)
        if size is None:
            raise BlobUnknown(f"{name} holds no blob {digest}")
        return Response(headers={**_API, "Content-Length": str(size), "Docker-Content-Digest": digest})

    async def get_blob(self, request: Request, principal: Principal) -> Response:
        name, digest = _repository(request, principal, PULL), check_digest(request.path_params["digest"])
        blob = await self.backend.blob(name, digest, self.max_blob)
        return BlobResponse(blob, {**_API, "Docker-Content-Digest": digest})

    async def start_upload(self, request: Request, principal: Principal) -> Response:
        name, query = _repository(request, principal, PUSH), {}
        if "mount" in request.query_params and "from" in request.query_params:
            source = allow(principal, request.query_params["from"], PULL)
            query = {"mount": check_digest(request.query_params["mount"]), "from": source}
        elif "digest" in request.query_params:
            query = {"digest": check_digest(request.query_params["digest"])}
        return await self._upload(request, f"/v2/{name}/blobs/uploads/", urlencode(query), self.max_blob)

    async def continue_upload(self, request: Request, principal: Principal) -> Response:
        path = _upload_path(request, _repository(request, principal, PUSH))
        return await self._continue(request, path, _state(request), _state(request))

    async def finish_upload(self, request: Request, principal: Principal) -> Response:
        path = _upload_path(request, _repository(request, principal, PUSH))
        stated = urlencode({"digest": check_digest(request.query_params.get("digest", ""))})
        return await self._continue(request, path, _state(request), f"{_state(request)}&{stated}")

    async def upload_status(self, request: Request, principal: Principal) -> Response:
        path = _upload_path(request, _repository(request, principal, PUSH))
        return await self._upload(request, path, _state(request), 0)

    async def _continue(self, request: Request, path: str, state: str, query: str) -> Response:
        """Send more of an upload, of which the store has a part: together they are no larger than a blob may be.

        One at a time: the store counts what it has when a request ends.
        """
        async with self.turns.setdefault(path, asyncio.Lock()):
            left = self.max_blob - await self.backend.upload_size(path, state)
            return await self._upload(request, path, query, left)

    async def _upload(self, request: Request, path: str, query: str, limit: int) -> Response:
        kept = ("content-length", "content-type", "content-range")
        headers = {name: request.headers[name] for name in kept if name in request.headers}
        body = None if request.method == "GET" else _capped(request, limit)
        async with self.backend.request(request.method, path, headers=headers, content=body, query=query) as stored:
            text = (await stored.aread())[:4096]
            if stored.status_code not in (201, 202, 204):
                raise _upload_error(stored.status_code, text)
            back = ("docker-upload-uuid", "docker-content-digest", "range")
            answer = {name: stored.headers[name] for name in back if name in stored.headers}
            answer["Location"] = _location(stored.headers.get("location", path))
            return Response(status_code=stored.status_code, headers={**_API, **answer})


def _repository(request: Request, principal: Principal, scope: str) -> str:
    return allow(principal, f"{request.path_params['tenant']}/{request.path_params['repository']}", scope)


def _reference(request: Request) -> str:
    reference: str = request.path_params["reference"]
    return check_digest(reference) if ":" in reference else check_tag(reference)


def _upload_path(request: Request, repository: str) -> str:
    upload: str = request.path_params["upload"]
    if _UPLOAD.match(upload) is None:
        raise UploadRefused("this names no upload")
    return f"/v2/{repository}/blobs/uploads/{upload}"


def _state(request: Request) -> str:
    """Return the store's own state of the upload, which it authenticates (HMAC)."""
    return urlencode({"_state": request.query_params.get("_state", "")})


def _location(location: str) -> str:
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _upload_error(status: int, text: bytes) -> UmecError:
    if b"DIGEST_INVALID" in text:
        return DigestStated("the content does not have the digest that was stated")
    if status >= 500:
        return BackendUnavailable(f"docker-registry answered {status} to this upload")
    return UploadRefused(f"the store answered {status} to this upload")


async def _manifest_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_MANIFEST:
            raise ManifestInvalid(f"a manifest has at most {MAX_MANIFEST} bytes")
    return bytes(body)


async def _capped(request: Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise UploadTooLarge(f"a blob has at most {limit} bytes")
        yield chunk
