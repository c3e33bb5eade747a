"""The store behind the gateway, believed in nothing: every manifest and blob is hashed before it is handed on."""

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Final

import httpx

from umec_images.gateway.errors import BackendUnavailable, UploadRefused
from umec_images.oci.errors import BlobTooLarge, BlobUnknown, DigestMismatch, ManifestUnknown
from umec_images.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST
from umec_images.oci.reference import digest_of

__all__ = ["Backend", "StoredBlob"]

SPOOL: Final = 4 * 1024 * 1024
"""Bytes of a blob that are kept in memory while it is hashed; the rest goes to an unnamed file."""
CHUNK: Final = 256 * 1024
TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0)

StoredBlob = IO[bytes]
"""The content of a blob whose digest was right, at its beginning."""


class Backend:
    """Speaks to docker-registry. Names given to it were checked before."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._http = httpx.AsyncClient(transport=transport, base_url="http://registry", timeout=TIMEOUT)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ping(self) -> None:
        """Raise BackendUnavailable unless the store answers."""
        async with self.request("GET", "/v2/"):
            pass

    async def manifest(self, repository: str, reference: str) -> tuple[str, str, bytes]:
        """Return (digest, media type, content). Raises ManifestUnknown or DigestMismatch (code `blob-digest`)."""
        headers = {"Accept": ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))}
        async with self.request("GET", f"/v2/{repository}/manifests/{reference}", headers=headers) as response:
            if response.status_code != 200:
                # docker-registry verifies what it loads: a changed manifest is "unknown" or an internal error there.
                raise ManifestUnknown(f"{repository} holds no (undamaged) manifest {reference}")
            content = await _read(response, MAX_MANIFEST)
        digest = digest_of(content)
        stated = reference if reference.startswith("sha256:") else response.headers.get("docker-content-digest")
        if stated != digest:
            raise DigestMismatch(f"the stored manifest {stated} has the digest {digest}")
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
            if response.status_code != 200:
                return []
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
            if response.status_code != 201:
                raise UploadRefused(f"the store answered {response.status_code} to this manifest")

    async def blob_size(self, repository: str, digest: str) -> int | None:
        """Return the size of a blob, None if the repository does not hold it."""
        async with self.request("HEAD", f"/v2/{repository}/blobs/{digest}") as response:
            if response.status_code != 200:
                return None
            return int(response.headers.get("content-length", "-1"))

    async def blob(self, repository: str, digest: str, limit: int) -> StoredBlob:
        """Return a blob that was hashed to its end before anybody sees a byte of it.

        Raises BlobUnknown, BlobTooLarge or DigestMismatch (code `blob-digest`).
        """
        spool = tempfile.SpooledTemporaryFile(max_size=SPOOL)  # noqa: SIM115 - the caller closes it
        try:
            found = await self._copy(repository, digest, limit, spool)
        except BaseException:
            spool.close()
            raise
        if found != digest:
            spool.close()
            raise DigestMismatch(
                f"the stored blob {digest} has the digest {found}", advice="Somebody changed the store: push it again."
            )
        spool.seek(0)
        return spool

    async def _copy(self, repository: str, digest: str, limit: int, spool: IO[bytes]) -> str:
        hasher, size = hashlib.sha256(), 0
        async with self.request("GET", f"/v2/{repository}/blobs/{digest}") as response:
            if response.status_code != 200:
                raise BlobUnknown(f"{repository} holds no blob {digest}")
            async for chunk in response.aiter_raw(CHUNK):
                size += len(chunk)
                if size > limit:
                    raise BlobTooLarge(f"the stored blob {digest} has more than {limit} bytes")
                await asyncio.to_thread(_hash_and_keep, hasher, spool, chunk)
        return f"sha256:{hasher.hexdigest()}"

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


async def _read(response: httpx.Response, limit: int) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > limit:
            raise BlobTooLarge(f"the stored document has more than {limit} bytes")
    return bytes(content)
