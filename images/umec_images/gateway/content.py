"""What the gateway decides about manifests: complete, immutable by tag, and listed with what they refer to."""

import asyncio
import weakref
from dataclasses import replace
from typing import Final

from umec_images.errors import AttachmentsTooMany
from umec_images.gateway.backend import Backend
from umec_images.gateway.errors import DigestStated, MemberMissing, ReferrersFull, TagImmutable, TagReserved
from umec_images.oci.errors import ManifestInvalid, ManifestUnknown
from umec_images.oci.manifest import (
    INDEX,
    MAX_DESCRIPTORS,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    encode,
    parse_index,
    parse_manifest_or_index,
)
from umec_images.oci.reference import check_digest, check_tag, digest_of
from umec_images.promotion.evidence import ATTACHMENTS, MAX_ATTACHMENTS

__all__ = ["OWN_PLACES", "Contents", "PushedManifest"]

OWN_PLACES: Final = 8
"""Places in each list of referrers that are kept for the summaries of this service, one for each stage: whatever those
who push attach to an image, it can be promoted and stays startable."""
_OWN_ENTRY: Final = 1024
"""Bytes of an entry of our own, which has no annotations: about 250, where its manifest is not embedded."""
MAX_CARRIED: Final = 1024 * 1024
"""Bytes of manifests that a list of referrers carries, which spares whoever reads it a request for each. With their
statements in them, those of an image with all attestations have a tenth of it; what comes later is only named."""
_FALLBACK_LENGTH: Final = len("sha256-") + 64


class PushedManifest:
    """A manifest that was stored: its digest, and the subject that it now refers to."""

    __slots__ = ("digest", "subject")

    def __init__(self, digest: str, subject: str | None) -> None:
        self.digest = digest
        self.subject = subject


class Contents:
    """Manifests, tags and referrers of the store behind `backend`.

    What reads and then writes (tags, referrer lists) is serialised for each name, in this one process.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._turns: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()

    async def push(
        self, repository: str, reference: str, content: bytes, media_type: str, *, own: bool = False
    ) -> PushedManifest:
        """Store a manifest under its digest or a new tag; `own` says that this service itself made it.

        1. It parses as its media type says. 2. Its digest is the one stated. 3. Everything it names is there.
        4. A tag that exists does not move. 5. What it refers to lists it.
        Raises ManifestInvalid, DigestStated, MemberMissing, TagImmutable, TagReserved, ReferrersFull or
        AttachmentsTooMany; and ManifestDamaged or BackendUnavailable where the store does not say what a tag or a list
        of referrers is now.
        """
        parsed = parse_manifest_or_index(content, media_type=media_type)  # 1
        digest = digest_of(content)
        await self._check_members(repository, parsed)  # 3
        if reference.startswith("sha256:"):
            if check_digest(reference) != digest:  # 2
                raise DigestStated(f"the content has the digest {digest}")
            await self._backend.put_manifest(repository, digest, content, media_type)
        else:
            await self._tag(repository, _client_tag(reference), digest, content, media_type)  # 4
        if parsed.subject is None:
            return PushedManifest(digest, None)
        entry = Descriptor(media_type, digest, len(content), parsed.kind, parsed.annotations, content)
        await self._refer(repository, parsed.subject.digest, entry, 0 if own else OWN_PLACES)  # 5
        return PushedManifest(digest, parsed.subject.digest)

    async def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository, without those that keep referrers; [] for one that does not exist."""
        return sorted(tag for tag in await self._backend.tags(repository) if not _is_reserved(tag))

    async def referrers(self, repository: str, subject: str) -> Index:
        """Return what refers to a digest: an empty list where nothing does, and never where the list is damaged."""
        try:
            _, media_type, content = await self._backend.manifest(repository, _fallback_tag(subject))
        except ManifestUnknown:
            return parse_index(_index([]))
        return parse_index(content, media_type=media_type)

    async def _check_members(self, repository: str, parsed: Manifest | Index) -> None:
        if isinstance(parsed, Index):
            for each in parsed.manifests:
                await self._check_manifest(repository, each)
            return
        for each in (parsed.config, *parsed.layers):
            size = await self._backend.blob_size(repository, each.digest)
            if size is None:
                raise MemberMissing(f"the repository holds no blob {each.digest}", advice="Push the blobs first.")
            if size != each.size:
                raise ManifestInvalid(f"the blob {each.digest} has {size} bytes, the manifest says {each.size}")

    async def _check_manifest(self, repository: str, each: Descriptor) -> None:
        try:
            _, media_type, content = await self._backend.manifest(repository, each.digest)
        except ManifestUnknown as error:
            raise MemberMissing(f"the index names {each.digest}, which the repository does not hold") from error
        if (media_type, len(content)) != (each.media_type, each.size):
            raise ManifestInvalid(f"the manifest {each.digest} has another type or size than the index says")

    async def _tag(self, repository: str, tag: str, digest: str, content: bytes, media_type: str) -> None:
        async with self._turn(repository, tag):
            present = await self._backend.tag(repository, tag)
            if present == digest:
                return
            if present is not None:
                raise TagImmutable(f"{tag} names {present} already", advice="Push under another tag.")
            await self._backend.put_manifest(repository, tag, content, media_type)

    async def _refer(self, repository: str, subject: str, entry: Descriptor, kept: int) -> None:
        """List a referrer, and leave `kept` places."""
        tag = _fallback_tag(subject)
        async with self._turn(repository, tag):
            known = (await self.referrers(repository, subject)).manifests
            if any(each.digest == entry.digest for each in known):
                return
            attached = sum(each.artifact_type in ATTACHMENTS for each in known)
            if entry.artifact_type in ATTACHMENTS and attached >= MAX_ATTACHMENTS - kept:
                raise AttachmentsTooMany(f"{subject} has {attached} bundles and summaries, and takes no more")
            limit = MAX_MANIFEST - kept * _OWN_ENTRY
            index = _index([*known, entry])
            if len(index) > limit or sum(len(each.data or b"") for each in (*known, entry)) > MAX_CARRIED:
                index = _index([*known, replace(entry, data=None)])
            if len(known) >= MAX_DESCRIPTORS - kept or len(index) > limit:
                raise ReferrersFull(f"{subject} has {len(known)} referrers, and the list is full")
            await self._backend.put_manifest(repository, tag, index, INDEX)

    def _turn(self, repository: str, name: str) -> asyncio.Lock:
        return self._turns.setdefault((repository, name), asyncio.Lock())


def _index(manifests: list[Descriptor]) -> bytes:
    return encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [each.to_json() for each in manifests]})


def _fallback_tag(digest: str) -> str:
    return check_digest(digest).replace(":", "-")


def _client_tag(tag: str) -> str:
    if _is_reserved(check_tag(tag)):
        raise TagReserved(
            "this tag keeps the list of referrers, which the registry writes",
            advice="Push the referrer's manifest with its subject: it is listed by itself.",
        )
    return tag


def _is_reserved(tag: str) -> bool:
    return tag.startswith("sha256-") and len(tag) == _FALLBACK_LENGTH
