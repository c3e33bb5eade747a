"""What is attached to a digest in a registry, and what of it proves something."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from umec_core.errors import UmecError
from umec_images.errors import AttachmentsTooMany, DigestMismatch, IdentityRefused, ImageUnsigned, SignatureInvalid
from umec_images.oci.errors import DigestMismatch as RegistryDigestMismatch
from umec_images.oci.errors import ManifestInvalid
from umec_images.oci.manifest import BUNDLE, Descriptor, parse_manifest, parse_manifest_or_index
from umec_images.oci.version import Version, version_of
from umec_images.statements import PROVENANCE, parse_provenance
from umec_images.verify import AnyIdentity, BundleVerifier, Identity, SignerIdentity
from umec_images.verify.bundle import MAX_BUNDLE
from umec_images.verify.identity import Expected

__all__ = [
    "ATTACHMENTS",
    "ENVELOPE",
    "MAX_ATTACHMENTS",
    "Attached",
    "Attachment",
    "Builders",
    "Proof",
    "Registry",
    "Said",
    "fetch_attached",
    "prove",
    "trusted_builders",
    "verify_attachment",
]

ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
"""Artifact type of a summary: a DSSE envelope under the promotion key."""
ATTACHMENTS: Final = frozenset({BUNDLE, ENVELOPE})
"""Artifact types of what is read of a digest."""
SBOMS: Final = frozenset({"https://spdx.dev/Document", "https://cyclonedx.org/bom"})
MAX_ATTACHMENTS: Final = 64
"""Bundles and summaries of one digest that are fetched and verified; an image with five statements and two stages has
seven, and each costs milliseconds. The gateway takes no more, and keeps some of them for the summaries."""

Builders = Callable[[str], Expected]
"""Tenant -> whose signatures count for its images. A tenant for whom nobody may build is a refusal."""


class Registry(Protocol):
    """What is needed of a registry: `umec_images.oci.client.RegistryClient` has it."""

    async def manifest(self, repository: str, reference: str) -> tuple[str, str, bytes]:
        """Return (digest, media type, bytes)."""
        ...

    async def blob(self, repository: str, digest: str, max_size: int) -> bytes:
        """Return the bytes that have a digest."""
        ...

    async def referrers(self, repository: str, digest: str, artifact_type: str | None = None) -> list[Descriptor]:
        """Return what refers to a digest."""
        ...

    async def attach(self, repository: str, subject: str, content: bytes, artifact_type: str = BUNDLE) -> str:
        """Attach content to a digest; return the digest of the new referrer."""
        ...


@dataclass(frozen=True, slots=True)
class Attachment:
    """Bytes attached to a digest, and their own digest (SHA-256, hex)."""

    content: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Attached:
    """What is attached to a manifest that really has the digest by which it was asked for. It proves nothing yet."""

    repository: str
    digest: str
    version: Version | None
    """As the manifest states it."""
    bundles: tuple[Attachment, ...]
    envelopes: tuple[Attachment, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """What an expected builder said in one bundle: a statement of this kind; made by `verify_attachment` only."""

    kind: str
    signer: SignerIdentity
    signed_at: datetime
    bundle_id: str
    sha256: str
    """Of the bundle, hex."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Who built an image, and what else trusted builders said about it; made by `prove` only."""

    signer: SignerIdentity
    """Whose provenance is the earliest."""
    signed_at: datetime
    builders: frozenset[str]
    """Subjects of all trusted builders who say that they made it: none of them approves it."""
    bundles: tuple[str, ...]
    """SHA-256 (hex) of the bundles that verified, the provenance first."""
    sboms: int


def trusted_builders(issuer: str, clients: Mapping[str, Sequence[str]]) -> Builders:
    """Return the builders of a site whose own authorization server is `issuer`: client ids by tenant."""
    identities = {
        tenant: AnyIdentity(tuple(Identity(f"{issuer}/identity/v1/clients/{client}", issuer) for client in ids))
        for tenant, ids in clients.items()
        if ids
    }

    def builders(tenant: str) -> Expected:
        expected = identities.get(tenant)
        if expected is None:
            raise IdentityRefused(f"nobody is trusted to build images for the tenant {tenant}")
        return expected

    return builders


async def fetch_attached(registry: Registry, repository: str, digest: str) -> Attached:
    """Return what is attached to `digest` (`sha256:<hex>`).

    Raises DigestMismatch where bytes have another digest, AttachmentsTooMany where more is attached, ManifestInvalid,
    and what the registry client raises (a manifest that is not there, a registry that does not answer).
    """
    try:
        (media_type, raw), found = await asyncio.gather(
            _content(registry, repository, digest), registry.referrers(repository, digest)
        )
        version = version_of(parse_manifest_or_index(raw, media_type=media_type).annotations)
        wanted = [each for each in found if each.artifact_type in ATTACHMENTS]
        if len(wanted) > MAX_ATTACHMENTS:
            raise AttachmentsTooMany(
                f"{len(wanted)} bundles and summaries are attached, at most {MAX_ATTACHMENTS} are read",
                advice="The gateway lets nobody attach so many: somebody wrote into the store.",
            )
        fetched = await asyncio.gather(*(_attachment(registry, repository, digest, each) for each in wanted))
    except RegistryDigestMismatch as error:
        raise DigestMismatch(error.detail) from error
    kept = [each for each in fetched if each is not None]
    return Attached(
        repository,
        digest,
        version,
        bundles=tuple(attachment for kind, attachment in kept if kind == BUNDLE),
        envelopes=tuple(attachment for kind, attachment in kept if kind == ENVELOPE),
    )


def prove(attached: Attached, verifier: BundleVerifier, expected: Expected, now: datetime) -> Proof:
    """Return who built an image: a trusted builder's provenance about its digest.

    What does not verify is passed over (whoever may push may attach), unless nothing does: then ImageUnsigned,
    SignatureInvalid or IdentityRefused says why.
    """
    said: dict[str, Said] = {}
    refusals: list[UmecError] = []
    for bundle in attached.bundles:
        try:
            statement = verify_attachment(bundle, attached.digest, verifier, expected, now)
            said.setdefault(statement.bundle_id, statement)
        except UmecError as refusal:
            refusals.append(refusal)
    built = [each for each in said.values() if each.kind == PROVENANCE]
    if not built:
        raise _why(attached, refusals)
    first = min(built, key=lambda each: (each.signed_at, each.bundle_id))
    others = [each for each in said.values() if each.kind != PROVENANCE]
    return Proof(
        signer=first.signer,
        signed_at=first.signed_at,
        builders=frozenset(each.signer.subject for each in built),
        bundles=tuple(each.sha256 for each in (*built, *others)),
        sboms=sum(each.kind in SBOMS for each in others),
    )


def verify_attachment(
    bundle: Attachment, digest: str, verifier: BundleVerifier, expected: Expected, now: datetime
) -> Said:
    """Return what an expected identity said about a digest in one bundle, provenance only in its own name.

    Raises SignatureInvalid, IdentityRefused, StatementInvalid or DigestMismatch.
    """
    found = verifier.verify_statement(bundle.content, digest=digest, identity=expected, now=now)
    if found.signer is None:
        raise SignatureInvalid("a managed key is no identity of a builder")
    kind = found.statement.predicate_type
    if kind == PROVENANCE:
        named = parse_provenance(found.statement).builder
        if named != found.signer.subject:  # a builder does not speak for another
            raise IdentityRefused(f"the provenance names the builder {named}, who has not signed it")
    return Said(kind, found.signer, found.signed_at, found.bundle_id, bundle.sha256)


def _why(attached: Attached, refusals: Sequence[UmecError]) -> UmecError:
    """Return the refusal that says most: a good signature by a stranger, else a bad one, else no provenance."""
    for kind in (IdentityRefused, DigestMismatch, SignatureInvalid):
        for refusal in refusals:
            if isinstance(refusal, kind):
                return refusal
    return ImageUnsigned(
        f"no provenance is attached to {attached.digest}", advice="`umec image sign` signs it and attaches a bundle"
    )


async def _attachment(
    registry: Registry, repository: str, subject: str, descriptor: Descriptor
) -> tuple[str, Attachment] | None:
    """Return kind and content of a referrer; None if its own manifest says that it is something else.

    What came along in a descriptor is not asked for again.
    """
    media_type, raw = descriptor.media_type, descriptor.data
    if raw is None:
        media_type, raw = await _content(registry, repository, descriptor.digest)
    try:
        manifest = parse_manifest(raw, media_type=media_type)
    except ManifestInvalid:
        return None
    about = manifest.subject
    if about is None or about.digest != subject or len(manifest.layers) != 1 or manifest.kind not in ATTACHMENTS:
        return None
    layer = manifest.layers[0]
    if layer.media_type != manifest.kind or layer.size > MAX_BUNDLE:
        return None
    content = layer.data
    if content is None:
        content = await registry.blob(repository, layer.digest, layer.size)
    return manifest.kind, Attachment(content, _checked(content, layer.digest))


async def _content(registry: Registry, repository: str, digest: str) -> tuple[str, bytes]:
    _, media_type, raw = await registry.manifest(repository, digest)
    _checked(raw, digest)
    return media_type, raw


def _checked(content: bytes, digest: str) -> str:
    """Return the hex digest of content that has the digest it was asked for by: no registry is trusted with that."""
    found = hashlib.sha256(content).hexdigest()
    if digest != f"sha256:{found}":
        raise DigestMismatch(f"{digest} came with the digest sha256:{found}")
    return found
