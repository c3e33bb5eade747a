"""A registry client that checks every byte: digests, sizes, media types; for OCI 1.1 and registries before it.

    RegistryClient(base_url, http, authorize)     authorize(method, url) -> headers for that one request

Every answer is capped. A manifest has the digest by which it was asked for, a blob too; a tag is only a hint.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, urljoin

import httpx

from umec_images.oci.errors import (
    BlobTooLarge,
    BlobUnknown,
    DigestMismatch,
    ManifestUnknown,
    RegistryRefused,
    RegistryUnavailable,
)
from umec_images.oci.manifest import (
    BUNDLE,
    EMPTY,
    EMPTY_CONTENT,
    INDEX,
    INDEX_TYPES,
    MANIFEST,
    MANIFEST_TYPES,
    MAX_MANIFEST,
    Descriptor,
    encode,
    parse_index,
    parse_manifest,
)
from umec_images.oci.reference import check_digest, check_repository, check_tag, digest_of

__all__ = ["REFUSAL_HEADER", "Authorize", "RegistryClient", "anonymous"]

MAX_BUNDLE: Final = 16 * 1024 * 1024
"""Bytes of a bundle that `attach` sends: statements with a large SBOM exist."""
MAX_EMBEDDED: Final = 32 * 1024
"""Bytes of an attachment that its manifest carries, too: a signed statement has some 10 KB, a large SBOM has more."""
MAX_ERROR: Final = 64 * 1024
"""Bytes of an error document that are read."""
CHUNK: Final = 1 << 20
REFUSAL_HEADER: Final = "Umec-Refusal"
"""Carries our stable code beside the error document of the specification."""

Authorize = Callable[[str, str], Awaitable[Mapping[str, str]]]
"""(method, absolute URL without query) -> headers that authorise this one request."""
Heard = Callable[[int], None]
"""Hears of a long transfer how many bytes have passed."""


async def anonymous(_method: str, _url: str) -> Mapping[str, str]:
    """Authorise nothing: for registries that let everybody read."""
    return {}


class RegistryClient:
    """Reads and writes one registry at `base_url` (`https://HOST:PORT`)."""

    def __init__(self, base_url: str, http: httpx.AsyncClient, authorize: Authorize = anonymous) -> None:
        self._base = base_url.rstrip("/")
        self._http = http
        self._authorize = authorize

    async def manifest(self, repository: str, reference: str) -> tuple[str, str, bytes]:
        """Return (digest, media type, bytes) of the manifest or index that `reference` (tag or digest) names.

        Raises ManifestUnknown; DigestMismatch when a digest was asked for and the bytes have another.
        """
        digest = check_digest(reference) if reference.startswith("sha256:") else None
        tag = check_tag(reference) if digest is None else None
        accept = {"Accept": ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))}
        path = f"/v2/{check_repository(repository)}/manifests/{digest or tag}"
        async with self._request("GET", path, headers=accept) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                raise ManifestUnknown(f"{repository} holds no manifest {reference}")
            await _expect(response, 200)
            content = await _read(response, MAX_MANIFEST)
        found = digest_of(content)
        if digest not in (None, found):
            raise DigestMismatch(f"the manifest {digest} came with the digest {found}")
        return found, response.headers.get("content-type", "").partition(";")[0].strip(), content

    async def blob(self, repository: str, digest: str, max_size: int) -> bytes:
        """Return a blob of at most `max_size` bytes. Raises BlobUnknown, BlobTooLarge or DigestMismatch."""
        parts = [chunk async for chunk in self._blob(repository, digest, max_size)]
        return b"".join(parts)

    async def blob_to_file(
        self, repository: str, digest: str, path: Path, max_size: int, heard: Heard | None = None
    ) -> None:
        """Write a blob of at most `max_size` bytes to `path`, which exists only once the digest was right.

        Raises BlobUnknown, BlobTooLarge or DigestMismatch.
        """
        draft, done = path.with_name(f".{path.name}.part"), 0
        try:
            with draft.open("wb") as file:
                async for chunk in self._blob(repository, digest, max_size):
                    done += await asyncio.to_thread(file.write, chunk)
                    _tell(heard, done)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Say whether the repository holds a blob already."""
        async with self._request("HEAD", _blob_path(repository, digest)) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                return False
            await _expect(response, 200)
            return True

    async def push_blob(self, repository: str, content: bytes | Path, heard: Heard | None = None) -> str:
        """Upload bytes or a file unless the repository has them; return the digest."""
        digest = await asyncio.to_thread(_digest, content)
        if await self.has_blob(repository, digest):
            return digest
        start = f"/v2/{check_repository(repository)}/blobs/uploads/"
        async with self._request("POST", start) as response:
            await _expect(response, 202)
            location = urljoin(f"{self._base}{start}", response.headers["location"])
        if not location.startswith(f"{self._base}/"):
            raise RegistryRefused("the registry sends uploads to another host", status=response.status_code)
        headers = {"Content-Length": str(_size(content)), "Content-Type": "application/octet-stream"}
        target = f"{location}{'&' if '?' in location else '?'}digest={quote(digest)}"
        async with self._request("PUT", target, headers=headers, content=_stream(content, heard)) as response:
            await _expect(response, 201)
        return digest

    async def push_manifest(self, repository: str, reference: str | None, content: bytes, media_type: str) -> str:
        """Upload a manifest under a tag, or under its digest where `reference` is None; return the digest."""
        digest, _ = await self._push_manifest(repository, reference, content, media_type)
        return digest

    async def referrers(self, repository: str, digest: str, artifact_type: str | None = None) -> list[Descriptor]:
        """Return what refers to `digest`, by the referrers API or the fallback tag; [] if nothing does."""
        path = f"/v2/{check_repository(repository)}/referrers/{check_digest(digest)}"
        async with self._request("GET", path, headers={"Accept": INDEX}) as response:
            if response.status_code != httpx.codes.NOT_FOUND:
                await _expect(response, 200)
                found = parse_index(await _read(response, MAX_MANIFEST)).manifests
            else:
                found = await self._fallback(repository, digest)
        return [each for each in found if artifact_type in (None, each.artifact_type)]

    async def attach(self, repository: str, subject: str, content: bytes, artifact_type: str = BUNDLE) -> str:
        """Attach `content` (a Sigstore bundle unless said otherwise) to the manifest `subject`; return its digest.

        Registries without a referrers API get the fallback tag updated; only a serialising registry keeps all of many
        concurrent attachments then.
        """
        if len(content) > MAX_BUNDLE:
            raise BlobTooLarge(f"an attachment has at most {MAX_BUNDLE} bytes")
        found, media_type, subject_content = await self.manifest(repository, check_digest(subject))
        target = Descriptor(media_type, found, len(subject_content))
        config = await self.push_blob(repository, EMPTY_CONTENT)
        layer = await self.push_blob(repository, content)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": Descriptor(EMPTY, config, len(EMPTY_CONTENT)).to_json(),
            "layers": [Descriptor(artifact_type, layer, len(content), data=_worth_embedding(content)).to_json()],
            "subject": target.to_json(),
        }
        raw = encode(manifest)
        digest, indexed = await self._push_manifest(repository, None, raw, MANIFEST)
        if not indexed:
            await self._index_fallback(repository, subject, Descriptor(MANIFEST, digest, len(raw), artifact_type))
        return digest

    async def _push_manifest(
        self, repository: str, reference: str | None, content: bytes, media_type: str
    ) -> tuple[str, bool]:
        digest = digest_of(content)
        name = digest if reference is None else reference
        path = f"/v2/{check_repository(repository)}/manifests/{name}"
        headers = {"Content-Type": media_type}
        async with self._request("PUT", path, headers=headers, content=content) as response:
            await _expect(response, 201)
            if response.headers.get("docker-content-digest", digest) != digest:
                raise DigestMismatch("the registry stored another manifest than was sent")
            return digest, "oci-subject" in response.headers

    async def _fallback(self, repository: str, digest: str) -> tuple[Descriptor, ...]:
        try:
            _, media_type, content = await self.manifest(repository, digest.replace(":", "-"))
        except ManifestUnknown:
            return ()
        described = []
        for each in parse_index(content, media_type=media_type).manifests:
            # Writers of the fallback tag label entries differently: the referrer's own manifest says what it is.
            _, kind, raw = await self.manifest(repository, each.digest)
            manifest = parse_manifest(raw, media_type=kind)
            if manifest.subject is not None and manifest.subject.digest == digest:
                described.append(Descriptor(kind, each.digest, len(raw), manifest.kind, manifest.annotations))
        return tuple(described)

    async def _index_fallback(self, repository: str, subject: str, entry: Descriptor) -> None:
        known = [each for each in await self._fallback(repository, subject) if each.digest != entry.digest]
        manifests = [each.to_json() for each in (*known, entry)]
        index = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        await self._push_manifest(repository, subject.replace(":", "-"), index, INDEX)

    async def _blob(self, repository: str, digest: str, max_size: int) -> AsyncIterator[bytes]:
        hasher, size = hashlib.sha256(), 0
        async with self._request("GET", _blob_path(repository, digest)) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                raise BlobUnknown(f"{repository} holds no blob {digest}")
            await _expect(response, 200)
            async for chunk in response.aiter_raw(CHUNK):
                size += len(chunk)
                if size > max_size:
                    raise BlobTooLarge(f"the blob {digest} has more than {max_size} bytes")
                hasher.update(chunk)
                yield chunk
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise DigestMismatch(f"the blob {digest} came with the digest sha256:{hasher.hexdigest()}")

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        url = path if path.startswith(f"{self._base}/") else f"{self._base}{path}"
        granted = await self._authorize(method, url.partition("?")[0])
        wanted = {"Accept-Encoding": "identity", **(headers or {}), **granted}
        try:
            async with self._http.stream(method, url, headers=wanted, content=content) as response:
                yield response
        except httpx.TransportError as error:
            raise RegistryUnavailable(f"the registry does not answer: {type(error).__name__}") from error


def _worth_embedding(content: bytes) -> bytes | None:
    return content if len(content) <= MAX_EMBEDDED else None


def _blob_path(repository: str, digest: str) -> str:
    return f"/v2/{check_repository(repository)}/blobs/{check_digest(digest)}"


def _digest(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return digest_of(content)
    with content.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _tell(heard: Heard | None, done: int) -> None:
    if heard is not None:
        heard(done)


async def _stream(content: bytes | Path, heard: Heard | None) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        _tell(heard, len(content))
        yield content
        return
    with content.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            _tell(heard, file.tell())
            yield chunk


async def _read(response: httpx.Response, limit: int) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > limit:
            raise BlobTooLarge(f"the registry sends more than {limit} bytes")
    return bytes(content)


async def _expect(response: httpx.Response, status: int) -> None:
    if response.status_code == status:
        return
    refusal, message = response.headers.get(REFUSAL_HEADER), f"the registry answered {response.status_code}"
    try:
        error = json.loads(await _read(response, MAX_ERROR))["errors"][0]
        message = str(error.get("message", message))[:500]
        refusal = str(error["detail"]["code"])[:100]
    except (ValueError, LookupError, TypeError, AttributeError, BlobTooLarge):
        pass  # an error document of another shape: the status alone says it
    raise RegistryRefused(message, status=response.status_code, refusal=refusal)
