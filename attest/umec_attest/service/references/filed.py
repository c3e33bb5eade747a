"""Reads reference sets that are filed: each is verified once by a process, against the signers that are pinned now.

The newest version of an image is what counts, and beside it those that it, and all between, give a grace.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from umec_attest.errors import AttestError, ReferenceInvalid
from umec_attest.reference import FiledSet, ReferenceSet, Versions, check_valid_at, read_reference_set, versions_of
from umec_attest.service.errors import ReferenceMissing
from umec_attest.service.tables import ReferenceRow
from umec_core.store import Store

__all__ = ["OLDER", "FiledReference", "FiledReferences", "FiledVersions", "Identity"]

T = TypeVar("T")

OLDER: Final = 3
"""Older versions of an image that are looked at; one that so many newer ones followed does not count any more."""

_OTHER: Final = aliased(ReferenceRow)
_NEWEST: Final = select(ReferenceRow.image, ReferenceRow.version, ReferenceRow.sha256, ReferenceRow.shortened).where(
    ReferenceRow.image.in_(bindparam("images", expanding=True)),
    ReferenceRow.version
    == select(func.max(_OTHER.version)).where(_OTHER.image == ReferenceRow.image).scalar_subquery(),
)
_ENVELOPE: Final = select(ReferenceRow.envelope).where(
    ReferenceRow.image == bindparam("image"), ReferenceRow.version == bindparam("version")
)
_OLDER: Final = (
    select(ReferenceRow.version, ReferenceRow.sha256, ReferenceRow.shortened, ReferenceRow.envelope)
    .where(ReferenceRow.image == bindparam("image"), ReferenceRow.version < bindparam("version"))
    .order_by(ReferenceRow.version.desc())
    .limit(OLDER)
)


class Identity(NamedTuple):
    """Version and SHA-256 (hex) of a set, and when an operator ends its grace: what says which versions count."""

    version: int
    sha256: str
    shortened: datetime | None


@dataclass(frozen=True, slots=True)
class FiledReference:
    """The newest set of an image, as it is filed: what this process knows of it, or the envelope to read."""

    image: str
    identity: Identity
    content: "_Known | bytes"


@dataclass(frozen=True, slots=True)
class FiledVersions:
    """The newest set of an image, as it is filed, and the versions that may count beside it."""

    filed: FiledReference
    versions: Versions


@dataclass(frozen=True, slots=True)
class _Known:
    """What reading a filed envelope gave: a set (whose time may be over), or why it is none, which stays so."""

    version: int
    sha256: str
    found: ReferenceSet | AttestError
    begun: bool = False
    """It was valid once: a time before that is one of a clock that was set back."""


class FiledReferences:
    """Finds and reads what is filed."""

    def __init__(self, store: Store, *, signers: Sequence[EllipticCurvePublicKey]) -> None:
        self._store = store
        self._signers = tuple(signers)
        self._known: dict[str, _Known] = {}
        self._before: dict[str, tuple[_Known, ...]] = {}
        self._versions: dict[str, tuple[Identity, Versions]] = {}
        self._reading = asyncio.Lock()

    @staticmethod
    def identities(connection: Connection, images: Collection[str]) -> dict[str, Identity]:
        """Return the identity of the newest set of each of these images that has one."""
        if not images:
            return {}
        rows = connection.execute(_NEWEST, {"images": sorted(images)})
        return {image: Identity(version, sha256, shortened) for image, version, sha256, shortened in rows}

    async def filed(self, image: str, identity: Identity, session: AsyncSession | None = None) -> FiledReference:
        """Return a set that is filed, by its identity, for `verified`; read in the transaction of a `session`."""
        content: _Known | bytes | None = self._known_as(image, identity)
        if content is None:
            asked = {"image": image, "version": identity.version}  # no set is ever replaced or deleted
            content = await self._ask(lambda connection: connection.scalars(_ENVELOPE, asked).one(), session)
        return FiledReference(image, identity, content)

    def verified(self, filed: FiledReference, now: datetime) -> ReferenceSet:
        """Return a filed set, verified by this process against the signers that are pinned now.

        An envelope is read once, for whoever waits for it and whatever comes out: strangers can ask for challenges.
        Raises `ReferenceExpired`, `ReferenceNotYetValid`, `ReferenceInvalid`, `ReferenceSignature`.
        """
        known, found = self._read_once(filed)
        check_valid_at(found, max(now, found.issued) if known.begun else now)
        if not known.begun:
            self._known[filed.image] = replace(known, begun=True)
        return found

    async def newest(self, image: str, session: AsyncSession | None = None) -> ReferenceSet | None:
        """Return the newest set of an image, also where its time is over; None if there is none.

        It is read in the transaction of a `session`. Raises `ReferenceInvalid`, `ReferenceSignature`.
        """
        identities = await self._ask(lambda connection: self.identities(connection, [image]), session)
        identity = identities.get(image)
        return None if identity is None else self._read_once(await self.filed(image, identity, session))[1]

    async def versions(self, image: str, filed: FiledReference | None, now: datetime) -> FiledVersions:
        """Return the versions of an image that may count beside a filed one, which is the newest (None: there is none).

        Older ones are read only where it gives a grace. Raises `ReferenceMissing`, and what `verified` raises.
        """
        if filed is None:
            raise ReferenceMissing(
                f"there is no reference set for the image {image}",
                advice="predict its values, sign them, and send them to /attest/v1/reference-sets",
            )
        newest = self.verified(filed, now)
        versions = Versions(newest) if newest.grace is None else await self.with_replaced(filed, newest)
        return FiledVersions(filed, versions)

    async def with_replaced(self, filed: FiledReference, newest: ReferenceSet) -> Versions:
        """Return a filed set, verified, with the older ones, whether or not they count; they are read once."""
        known = self._all_known(filed)
        if known is not None:
            return known
        async with self._reading:  # envelopes have megabytes, and all nodes of the image may ask at one moment
            known = self._all_known(filed)
            if known is None:
                older = await self.before(filed.image, filed.identity.version)
                known = versions_of([FiledSet(newest, filed.identity.shortened), *older])
                self._versions[filed.image] = filed.identity, known
        return known

    async def before(self, image: str, version: int) -> list[FiledSet]:
        """Return what is filed before a version, the newest first, up to the first that is not to be read.

        A set that this process has read is not read again, whichever version replaces which.
        """
        asked = {"image": image, "version": version}
        rows = await self._store.read_plain(lambda connection: connection.execute(_OLDER, asked).all())
        read = {(each.version, each.sha256): each for each in self._before.get(image, ())}
        newest = self._known.get(image)
        if newest is not None:
            read[newest.version, newest.sha256] = newest
        known = [
            read.get((number, sha256)) or self._found(image, number, sha256, envelope)
            for number, sha256, _, envelope in rows
        ]
        self._before[image] = tuple(known)
        found: list[FiledSet] = []
        for each, row in zip(known, rows, strict=True):
            if isinstance(each.found, AttestError):
                break  # what it says of those before it is not known, so they do not count
            found.append(FiledSet(each.found, row.shortened))
        return found

    async def _ask(self, query: Callable[[Connection], T], session: AsyncSession | None) -> T:
        if session is None:
            return await self._store.read_plain(query)
        return await (await session.connection()).run_sync(query)

    def _read_once(self, filed: FiledReference) -> tuple[_Known, ReferenceSet]:
        known = filed.content
        if isinstance(known, bytes):
            known = self._known_as(filed.image, filed.identity) or self._keep(filed, known)
        if isinstance(known.found, AttestError):
            raise type(known.found)(known.found.detail, advice=known.found.advice)
        return known, known.found

    def _all_known(self, filed: FiledReference) -> Versions | None:
        known = self._versions.get(filed.image)
        return known[1] if known is not None and known[0] == filed.identity else None

    def _known_as(self, image: str, identity: Identity) -> _Known | None:
        known = self._known.get(image)
        return known if known is not None and (known.version, known.sha256) == identity[:2] else None

    def _keep(self, filed: FiledReference, envelope: bytes) -> _Known:
        version, sha256, _ = filed.identity
        known = self._known[filed.image] = self._found(filed.image, version, sha256, envelope)
        return known

    def _found(self, image: str, version: int, sha256: str, envelope: bytes) -> _Known:
        try:
            return _Known(version, sha256, self._read(image, version, sha256, envelope))
        except AttestError as error:
            return _Known(version, sha256, error.with_traceback(None))

    def _read(self, image: str, version: int, sha256: str, envelope: bytes) -> ReferenceSet:
        found = read_reference_set(envelope, signers=self._signers)
        if (found.name, found.version, found.sha256) != (image, version, sha256):
            raise ReferenceInvalid(f"what is filed as {image} version {version} is another set")
        return found
