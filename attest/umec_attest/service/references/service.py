"""Keeps signed reference sets; the newest version of an image is the one that counts, and none is ever replaced."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.errors import AttestError, ReferenceRollback
from umec_attest.ima import IMA_PCR
from umec_attest.reference import FiledSet, Grace, ReferenceSet, Versions, verify_reference_set, versions_of
from umec_attest.service.errors import ReferenceConflict, ReferenceGrace, ReferencePcrs
from umec_attest.service.evidence.rules import RoundRules
from umec_attest.service.references.filed import FiledReferences, Identity
from umec_attest.service.refusals import Refusals
from umec_attest.service.tables import ReferenceRow
from umec_attest.service.wire import instant
from umec_attest.starts.entry import STARTS_PCR
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.store import Store, serialise

__all__ = ["ReferenceService"]

_COLUMNS = ("image", "version", "sha256", "shortened", "expires_at", "installed_at")
_SHOWN = select(*(getattr(ReferenceRow, name) for name in _COLUMNS)).order_by(ReferenceRow.image, ReferenceRow.version)


_AT_ONCE: Final = "umec nodeimage publish --grace 0 replaces all others at once: nodes fall until they boot it"


class ReferenceService:
    """Takes and shows reference sets."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        refusals: Refusals,
        filed: FiledReferences,
        *,
        rules: RoundRules,
        signers: Sequence[EllipticCurvePublicKey],
        clock: Clock,
    ) -> None:
        self._store = store
        self._audit = audit
        self._refusals = refusals
        self._filed = filed
        self._rules = rules
        self._signers = tuple(signers)
        self._clock = clock

    async def install(self, envelope: bytes, *, actor: str, grace: timedelta | None = None) -> dict[str, Any]:
        """Take a reference set that a pinned signer signed, that fits what is asked for, and is newer than all before.

        `grace` ends that of the set so much from now on, and may be given with the newest set once more; None leaves it
        as it was signed. Errors: those of `verify_reference_set`, `ReferencePcrs`, `ReferenceGrace`,
        `ReferenceConflict`.
        """
        now = self._clock()
        try:
            reference = verify_reference_set(envelope, signers=self._signers, now=now, minimum_version=0)
            _check_pcrs(reference, set(self._rules.asked(reference)))
            shortened = _shortened(reference, grace, now)
            versions = await self._versions(reference, shortened)
            kept = await self._store.write(
                lambda session: self._install(session, versions, envelope, shortened, actor=actor, now=now)
            )
            if kept != shortened:  # it was shortened before
                versions = await self._versions(reference, kept)
        except UmecError as error:
            await self._refusals.operator("reference.install", "reference-sets", error, now, actor=actor)
            raise
        return {
            "image": reference.name,
            "version": reference.version,
            "sha256": reference.sha256,
            "expires": instant(reference.expires),
            "beside": [
                {"version": each.reference.version, "until": instant(each.until)}
                for each in versions.older
                if each.until is not None and now < each.until
            ],
        }

    async def _versions(self, reference: ReferenceSet, shortened: datetime | None) -> Versions:
        """Return what counts once a set is the newest; older ones are read where it gives them a grace."""
        if reference.grace is None:
            return Versions(reference)
        older = await self._filed.before(reference.name, reference.version)
        return versions_of([FiledSet(reference, shortened), *older])

    async def _install(
        self,
        session: AsyncSession,
        versions: Versions,
        envelope: bytes,
        shortened: datetime | None,
        *,
        actor: str,
        now: datetime,
    ) -> datetime | None:
        """Return when an operator ends its grace, now or with an earlier word."""
        reference = versions.newest
        await serialise(session, f"reference-sets {reference.name}")
        newest = await self._newest(session, reference.name)
        if newest is not None and reference.version < newest.version:
            raise ReferenceRollback(f"version {reference.version}, but version {newest.version} is in use already")
        if newest is not None and reference.version == newest.version:
            if newest.sha256 != reference.sha256:
                raise ReferenceConflict(f"another set of {reference.name} has the version {reference.version}")
            await self._shorten(session, newest, shortened, actor=actor, now=now)
            return newest.shortened
        _check_grace(versions, shortened, now)
        row = ReferenceRow(
            image=reference.name,
            version=reference.version,
            envelope=envelope,
            sha256=reference.sha256,
            expires_at=reference.expires,
            installed_at=now,
            shortened=shortened,
        )
        session.add(row)
        await session.flush()
        await self._write_down(session, "reference.install", row, actor=actor, now=now)
        return shortened

    async def _shorten(
        self, session: AsyncSession, row: ReferenceRow, shortened: datetime | None, *, actor: str, now: datetime
    ) -> None:
        if shortened is not None and (row.shortened is None or shortened < row.shortened):
            row.shortened = shortened
            await self._write_down(session, "reference.shorten", row, actor=actor, now=now)

    async def _write_down(
        self, session: AsyncSession, action: str, row: ReferenceRow, *, actor: str, now: datetime
    ) -> None:
        facts: dict[str, Any] = {"version": row.version, "sha256": row.sha256}
        if row.shortened is not None:
            facts["grace_until"] = instant(row.shortened)
        await self._audit.append(
            session, actor=actor, action=action, subject=row.image, outcome="done", facts=facts, now=now
        )

    async def list(self) -> list[dict[str, Any]]:
        """Return all sets, without their content, and which of them count now.

        `counts`: "newest"; "beside" the newest one, up to `until`; or "no", with `until` where it counted beside it.
        """
        now = self._clock()
        async with self._store.read() as session:
            rows = list(await session.execute(_SHOWN))
        shown = []
        for image, group in groupby(rows, key=lambda row: row.image):
            sets = list(group)
            until = await self._until(image, Identity(sets[-1].version, sets[-1].sha256, sets[-1].shortened), now)
            shown += [
                {
                    "image": image,
                    "version": row.version,
                    "sha256": row.sha256,
                    "expires": instant(row.expires_at),
                    "installed_at": instant(row.installed_at),
                    **_counts(until.get(row.version), now, newest=row is sets[-1]),
                }
                for row in sets
            ]
        return shown

    async def _until(self, image: str, identity: Identity, now: datetime) -> dict[int, datetime | None]:
        """Return when each older version of an image stops to count; nothing where the newest one does not hold."""
        filed = await self._filed.filed(image, identity)
        try:
            newest = self._filed.verified(filed, now)
        except AttestError:
            return {}
        versions = await self._filed.with_replaced(filed, newest)
        return {each.reference.version: each.until for each in versions.older}

    @staticmethod
    async def _newest(session: AsyncSession, image: str) -> ReferenceRow | None:
        query = select(ReferenceRow).where(ReferenceRow.image == image).order_by(ReferenceRow.version.desc()).limit(1)
        return await session.scalar(query)


def _counts(until: datetime | None, now: datetime, *, newest: bool) -> dict[str, Any]:
    if newest:
        return {"counts": "newest", "until": None}
    counts = "beside" if until is not None and now < until else "no"
    return {"counts": counts, "until": None if until is None else instant(until)}


def _shortened(reference: ReferenceSet, grace: timedelta | None, now: datetime) -> datetime | None:
    """Return when an operator ends the grace of a set; raises `ReferenceGrace` for a time that nobody signed."""
    if grace is None:
        return None
    signed = now if reference.grace is None else max(now, reference.grace.until)
    if now + grace > signed:
        raise ReferenceGrace(
            f"its signer gives older versions no grace of {grace}",
            advice="have it signed with that grace (umec nodeimage sign --grace), or publish it with a shorter one",
        )
    return now + grace


def _check_grace(versions: Versions, shortened: datetime | None, now: datetime) -> None:
    """Refuse a set whose grace is for nobody: those on the version before would fall, against what its signer meant."""
    reference, grace = versions.newest, versions.newest.grace
    ended = shortened is not None and shortened <= now
    if grace is None or ended:
        return
    if not versions.older:
        raise ReferenceGrace(
            f"no older version of {reference.name} is here that could count beside version {reference.version}: none "
            "was published, or no signer of it is pinned now",
            advice=f"publish the version that nodes run first, or pin its signer; {_AT_ONCE}",
        )
    older = versions.older[0]
    if older.holds(now):
        return
    why, advice = _why_over(older.reference, grace, now)
    raise ReferenceGrace(
        f"version {older.reference.version} would not count beside version {reference.version}: {why}", advice=advice
    )


def _why_over(older: ReferenceSet, grace: Grace, now: datetime) -> tuple[str, str]:
    """Return why an older version does not count in a grace, and what its publisher can do."""
    if older.version < grace.from_version:
        why = f"the grace is for versions from {grace.from_version} on, and version {older.version} is older"
        return why, f"sign it anew with --grace-from {older.version}; {_AT_ONCE}"
    if now >= grace.until:
        return (
            f"the grace ended at {_second(grace.until)}",
            f"sign it anew with --grace, and publish it soon; {_AT_ONCE}",
        )
    if now >= older.expires:
        return f"version {older.version} itself ended at {_second(older.expires)}", _AT_ONCE
    return "one of them alone says what may run, or keeps a log of starts: nodes are asked for one thing", _AT_ONCE


def _second(value: datetime) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%SZ}"


def _check_pcrs(reference: ReferenceSet, asked: set[int]) -> None:
    """Refuse a set by which no quote could be good: every node would fall, and needed a new boot to come back."""
    banks = [reference.pcrs, *(model.pcrs for model in reference.models.values())]
    expected = {(algorithm, pcr) for bank in banks for algorithm, pcrs in bank.items() for pcr in pcrs}
    said = {pcr for algorithm, pcr in expected if algorithm is HashAlgorithm.SHA256} | reference.ignored.keys()
    if reference.runtime is not None:
        said |= {IMA_PCR}
    if reference.starts:
        said |= {STARTS_PCR}
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
