"""Keeps signed reference sets; the newest version of an image is the one that counts, and none is ever replaced."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from umec_attest.errors import AttestError, ReferenceInvalid, ReferenceRollback
from umec_attest.ima import IMA_PCR
from umec_attest.reference import ReferenceSet, check_valid_at, read_reference_set, verify_reference_set
from umec_attest.service.errors import ReferenceConflict, ReferenceMissing, ReferencePcrs
from umec_attest.service.evidence.rules import RoundRules
from umec_attest.service.refusals import Refusals
from umec_attest.service.tables import ReferenceRow
from umec_attest.service.wire import instant
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.store import Store

__all__ = ["FiledReference", "ReferenceService"]

_OTHER: Final = aliased(ReferenceRow)
_NEWEST: Final = select(ReferenceRow.image, ReferenceRow.version, ReferenceRow.sha256).where(
    ReferenceRow.image.in_(bindparam("images", expanding=True)),
    ReferenceRow.version
    == select(func.max(_OTHER.version)).where(_OTHER.image == ReferenceRow.image).scalar_subquery(),
)
_ENVELOPE: Final = select(ReferenceRow.envelope).where(
    ReferenceRow.image == bindparam("image"), ReferenceRow.version == bindparam("version")
)


@dataclass(frozen=True, slots=True)
class FiledReference:
    """The newest set of an image, as it is filed: what this process knows of it, or the envelope to read."""

    image: str
    version: int
    sha256: str
    content: "_Known | bytes"


@dataclass(frozen=True, slots=True)
class _Known:
    """What reading a filed envelope gave: a set (whose time may be over), or why it is none, which stays so."""

    version: int
    sha256: str
    found: ReferenceSet | AttestError
    begun: bool = False
    """It was valid once: a time before that is one of a clock that was set back."""


class ReferenceService:
    """Takes, shows and finds reference sets."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        refusals: Refusals,
        *,
        rules: RoundRules,
        signers: Sequence[EllipticCurvePublicKey],
        clock: Clock,
    ) -> None:
        self._store = store
        self._audit = audit
        self._refusals = refusals
        self._rules = rules
        self._signers = tuple(signers)
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def install(self, envelope: bytes, *, actor: str) -> dict[str, Any]:
        """Take a reference set that a pinned signer signed, that fits what is asked for, and is newer than all before.

        Errors: those of `verify_reference_set`, `ReferencePcrs`, `ReferenceConflict`.
        """
        now = self._clock()
        try:
            reference = verify_reference_set(envelope, signers=self._signers, now=now, minimum_version=0)
            _check_pcrs(reference, set(self._rules.asked(reference)))
            await self._store.write(lambda session: self._install(session, reference, envelope, actor, now))
        except UmecError as error:
            await self._refusals.operator("reference.install", "reference-sets", error, now, actor=actor)
            raise
        return {
            "image": reference.name,
            "version": reference.version,
            "sha256": reference.sha256,
            "expires": instant(reference.expires),
        }

    async def _install(
        self, session: AsyncSession, reference: ReferenceSet, envelope: bytes, actor: str, now: datetime
    ) -> None:
        newest = await self._newest(session, reference.name)
        if newest is not None and reference.version < newest.version:
            raise ReferenceRollback(f"version {reference.version}, but version {newest.version} is in use already")
        if newest is not None and reference.version == newest.version:
            if newest.sha256 == reference.sha256:
                return
            raise ReferenceConflict(f"another set of {reference.name} has the version {reference.version}")
        row = ReferenceRow(
            image=reference.name,
            version=reference.version,
            envelope=envelope,
            sha256=reference.sha256,
            expires_at=reference.expires,
            installed_at=now,
        )
        session.add(row)
        await session.flush()
        await self._audit.append(
            session,
            actor=actor,
            action="reference.install",
            subject=reference.name,
            outcome="done",
            facts={"version": reference.version, "sha256": reference.sha256},
            now=now,
        )

    async def list(self) -> list[dict[str, Any]]:
        """Return all sets, without their content."""
        query = select(ReferenceRow).order_by(ReferenceRow.image, ReferenceRow.version)
        async with self._store.read() as session:
            rows = list(await session.scalars(query))
        return [
            {
                "image": row.image,
                "version": row.version,
                "sha256": row.sha256,
                "expires": instant(row.expires_at),
                "installed_at": instant(row.installed_at),
            }
            for row in rows
        ]

    @staticmethod
    def identities(connection: Connection, images: Collection[str]) -> dict[str, tuple[int, str]]:
        """Return version and SHA-256 (hex) of the newest set of each of these images that has one."""
        if not images:
            return {}
        rows = connection.execute(_NEWEST, {"images": sorted(images)})
        return {image: (version, sha256) for image, version, sha256 in rows}

    async def filed(self, image: str, version: int, sha256: str) -> FiledReference:
        """Return a set that is filed, by its identity, for `verified`."""
        content: _Known | bytes | None = self._known_as(image, version, sha256)
        if content is None:
            asked = {"image": image, "version": version}  # no set is ever replaced or deleted
            content = await self._store.read_plain(lambda connection: connection.scalars(_ENVELOPE, asked).one())
        return FiledReference(image, version, sha256, content)

    def verified(self, image: str, filed: FiledReference | None, now: datetime) -> ReferenceSet:
        """Return a filed set, verified by this process against the signers that are pinned now.

        An envelope is read once, for whoever waits for it and whatever comes out: strangers can ask for challenges.
        Raises `ReferenceMissing`, `ReferenceExpired`, `ReferenceNotYetValid`, `ReferenceInvalid`, `ReferenceSignature`.
        """
        if filed is None:
            raise ReferenceMissing(
                f"there is no reference set for the image {image}",
                advice="predict its values, sign them, and send them to /attest/v1/reference-sets",
            )
        known = filed.content
        if isinstance(known, bytes):
            known = self._known_as(image, filed.version, filed.sha256) or self._read(filed, known)
        if isinstance(known.found, AttestError):
            raise type(known.found)(known.found.detail, advice=known.found.advice)
        check_valid_at(known.found, max(now, known.found.issued) if known.begun else now)
        if not known.begun:
            self._known[image] = replace(known, begun=True)
        return known.found

    def _known_as(self, image: str, version: int, sha256: str) -> _Known | None:
        known = self._known.get(image)
        return known if known is not None and (known.version, known.sha256) == (version, sha256) else None

    def _read(self, filed: FiledReference, envelope: bytes) -> _Known:
        found: ReferenceSet | AttestError
        try:
            found = read_reference_set(envelope, signers=self._signers)
            if (found.name, found.version, found.sha256) != (filed.image, filed.version, filed.sha256):
                raise ReferenceInvalid(f"what is filed as {filed.image} version {filed.version} is another set")
        except AttestError as error:
            found = error.with_traceback(None)
        known = self._known[filed.image] = _Known(filed.version, filed.sha256, found)
        return known

    @staticmethod
    async def _newest(session: AsyncSession, image: str) -> ReferenceRow | None:
        query = select(ReferenceRow).where(ReferenceRow.image == image).order_by(ReferenceRow.version.desc()).limit(1)
        return await session.scalar(query)


def _check_pcrs(reference: ReferenceSet, asked: set[int]) -> None:
    """Refuse a set by which no quote could be good: every node would fall, and needed a new boot to come back."""
    banks = [reference.pcrs, *(model.pcrs for model in reference.models.values())]
    expected = {(algorithm, pcr) for bank in banks for algorithm, pcrs in bank.items() for pcr in pcrs}
    said = {pcr for algorithm, pcr in expected if algorithm is HashAlgorithm.SHA256} | reference.ignored.keys()
    if reference.runtime is not None:
        said |= {IMA_PCR}
    forgotten = sorted(asked - said)
    if forgotten:
        raise ReferencePcrs(
            f"nodes are asked for PCRs that the set neither lists nor ignores: {forgotten}",
            advice='list their values, or put them into "ignored" with a reason; attest.pcrs says what is asked for',
        )
    unasked = sorted({(algorithm.label, pcr) for algorithm, pcr in expected} - {("sha256", pcr) for pcr in asked})
    if unasked:
        named = ", ".join(f"{pcr} ({bank})" for bank, pcr in unasked)
        raise ReferencePcrs(
            f"the set expects PCRs that nodes are not asked for: {named}",
            advice="take them out of the set, or add them to attest.pcrs; nodes are asked for the SHA-256 bank",
        )
