"""The store behind the gateway, believed in nothing: every manifest and blob is hashed before it is handed on."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any, Final

import httpx

from umec_images.gateway.errors import BackendUnavailable, ManifestDamaged, UploadRefused
from umec_images.gateway.spool import CHUNK, Room, StoredBlob
from umec_images.oci.errors import BlobTooLarge, BlobUnknown, DigestMismatch, ManifestUnknown
from umec_images.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST
from umec_images.oci.reference import digest_of

__all__ = ["Backend"]

ROOM: Final = 8 * 1024**3
"""Bytes of disk for blobs on their way out: two of the largest, or many ordinary ones at once."""
MAX_FAULT: Final = 64 * 1024
"""Bytes of the store's error document; one has about a hundred."""
TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0)


class Backend:
    """Speaks to docker-registry. Names given to it were checked before.

    What the store says that it does not hold is unknown; every other answer is no answer (BackendUnavailable), so that
    a store in trouble never looks like an empty one.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, *, room: int = ROOM) -> None:
        self._room = Room(room)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://registry", timeout=TIMEOUT)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ping(self) -> None:
        """Raise BackendUnavailable unless the store answers."""
        async with self.request("GET", "/v2/") as response:
            _expect(response, 200)

    async def manifest(self, repository: str, reference: str) -> tuple[str, str, bytes]:
        """Return (digest, media type, content).

        Raises ManifestUnknown where nobody pushed it, ManifestDamaged where the store lost or changed it.
        """
        headers = {"Accept": ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))}
        async with self.request("GET", f"/v2/{repository}/manifests/{reference}", headers=headers) as response:
            if response.status_code == 404:
                raise await _absent(response, repository, reference)
            _expect(response, 200)
            content = await _read(response, MAX_MANIFEST)
        digest = digest_of(content)
        stated = reference if reference.startswith("sha256:") else response.headers.get("docker-content-digest")
        if stated != digest:
            raise ManifestDamaged(
                f"the stored manifest {stated} has the digest {digest}", advice="Somebody changed the store."
            )
        return digest, response.headers.get("content-type", "").partition(";")[0].strip(), content

    async def tag(self, repository: str, tag: str) -> str | None:
        """Return the digest that a tag names, None if there is no such tag."""
        try:
            digest, _, _ = await self.manifest(repository, tag)
        except ManifestUnknown:
            return None
        return digest

    async def tags(self, repository: str) -> list[str]:
        """Return all tags that the store lists for a repository."""
        async with self.request("GET", f"/v2/{repository}/tags/list") as response:
            if response.status_code == 404:
                return []
            _expect(response, 200)
            content = await _read(response, MAX_MANIFEST)
        try:
            listed = json.loads(content)["tags"]
        except (ValueError, LookupError, TypeError) as error:
            raise BackendUnavailable("docker-registry lists its tags in a way that cannot be read") from error
        return [tag for tag in listed or [] if isinstance(tag, str)]

    async def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> None:
        """Store a manifest that was checked. Raises UploadRefused."""
        headers = {"Content-Type": media_type}
        path = f"/v2/{repository}/manifests/{reference}"
        async with self.request("PUT", path, headers=headers, content=content) as response:
            if 400 <= response.status_code < 500:
                raise UploadRefused(f"the store answered {response.status_code} to this manifest")
            _expect(response, 201)

    async def blob_size(self, repository: str, digest: str) -> int | None:
        """Return the size of a blob, None if the repository does not hold it."""
        async with self.request("HEAD", f"/v2/{repository}/blobs/{digest}") as response:
            if response.status_code == 404:
                return None
            _expect(response, 200)
            return _length(response)

    async def blob(self, repository: str, digest: str, limit: int) -> StoredBlob:
        """Return a blob that was hashed to its end before anybody sees a byte of it, at its beginning.

        The caller closes it: until then it takes room. Raises BlobUnknown, BlobTooLarge, RegistryBusy or DigestMismatch
        (code `blob-digest`).
        """
        size = await self.blob_size(repository, digest)
        if size is None:
            raise BlobUnknown(f"{repository} holds no blob {digest}")
        if size > limit:
            raise BlobTooLarge(f"the stored blob {digest} has more than {limit} bytes")
        blob = await self._room.take(size)
        try:
            await self._copy(repository, digest, blob)
        except BaseException:
            blob.close()
            raise
        blob.file.seek(0)
        return blob

    async def _copy(self, repository: str, digest: str, blob: StoredBlob) -> None:
        hasher, size = hashlib.sha256(), 0
        async with self.request("GET", f"/v2/{repository}/blobs/{digest}") as response:
            if response.status_code == 404:
                raise BlobUnknown(f"{repository} holds no blob {digest}")
            _expect(response, 200)
            async for chunk in response.aiter_raw(CHUNK):
                size += len(chunk)
                if size > blob.size:
                    raise DigestMismatch(f"the stored blob {digest} has more bytes than the store said")
                await asyncio.to_thread(_hash_and_keep, hasher, blob.file, chunk)
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise DigestMismatch(
                f"the stored blob {digest} has the digest sha256:{hasher.hexdigest()}",
                advice="Somebody changed the store: push it again.",
            )

    async def upload_size(self, path: str, query: str) -> int:
        """Return how many bytes of an upload the store has. Raises UploadRefused where it has no such upload.

        The store says `0-0` of no byte and of one: such an upload counts as empty.
        """
        async with self.request("GET", path, query=query) as response:
            if 400 <= response.status_code < 500:
                raise UploadRefused("the store holds no such upload")
            _expect(response, 204)
            first, _, last = response.headers.get("range", "").partition("-")
            if first != "0" or not (last.isascii() and last.isdigit()):
                raise BackendUnavailable("docker-registry does not say how much of the upload it has")
            return int(last) + 1 if int(last) else 0

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        query: str = "",
    ) -> AsyncIterator[httpx.Response]:
        """Send one request to the store. Raises BackendUnavailable."""
        url = f"{path}?{query}" if query else path
        wanted = {"Accept-Encoding": "identity", **(headers or {})}
        try:
            async with self._http.stream(method, url, headers=wanted, content=content) as response:
                yield response
        except httpx.TransportError as error:
            raise BackendUnavailable(f"docker-registry does not answer: {type(error).__name__}") from error


def _hash_and_keep(hasher: "hashlib._Hash", spool: IO[bytes], chunk: bytes) -> None:
    hasher.update(chunk)
    spool.write(chunk)


def _expect(response: httpx.Response, status: int) -> None:
    if response.status_code != status:
        raise BackendUnavailable(
            f"docker-registry answered {response.status_code}", advice="Its registry.log says why."
        )


def _length(response: httpx.Response) -> int:
    length: str = response.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise BackendUnavailable("docker-registry does not say how large a blob is")
    return int(length)


async def _absent(response: httpx.Response, repository: str, reference: str) -> Exception:
    """Return what 404 means: docker-registry names a tag that does not exist, or the revision that a tag has lost."""
    text = await _read(response, MAX_FAULT)
    if ":" not in reference and _named(text) != {"Tag"}:
        return ManifestDamaged(
            f"{repository} has the tag {reference}, and the store lost its manifest",
            advice="Somebody changed the store.",
        )
    return ManifestUnknown(f"{repository} holds no manifest {reference}")


def _named(text: bytes) -> set[str]:
    try:
        detail: Any = json.loads(text)["errors"][0]["detail"]
        return set(detail)
    except (ValueError, LookupError, TypeError):
        return set()


async def _read(response: httpx.Response, limit: int) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > limit:
            raise BlobTooLarge(f"the stored document has more than {limit} bytes")
    return bytes(content)
