"""The appraisal policies that a verifier judges by: signed ones, never older than those that were in use, or none."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.policy_bundle import PolicyBundle, PolicyBundleMissing, check_successor, verify_policy_bundle
from umec_attest.service.tables import PolicyBundleRow
from umec_attest.service.trust import TrustFileInvalid
from umec_core.audit import AuditLog
from umec_core.store import Store
from umec_policies import PolicySet

__all__ = ["LoadedPolicies", "load_policies", "policies_in_use"]

_NAME: Final = "appraisal"
_VERSION: Final = select(PolicyBundleRow.version).where(PolicyBundleRow.name == _NAME)


@dataclass(frozen=True, slots=True)
class LoadedPolicies:
    """The policies that this process judges by, and the version of their bundle (0: they are not signed)."""

    policies: PolicySet
    version: int


async def load_policies(
    store: Store,
    audit: AuditLog,
    file: Path | None,
    signers: tuple[EllipticCurvePublicKey, ...],
    *,
    unsigned: PolicySet,
    now: datetime,
) -> LoadedPolicies:
    """Return the signed policies of `file`, or `unsigned` where there is none and never was one.

    The version is kept in the database, so that an older bundle is refused by every process and after every restart.
    Errors: `TrustFileInvalid`, `PolicyBundleRefused` and its subclasses, `PolicyInvalid`.
    """
    bundle = None if file is None else verify_policy_bundle(_read(file), signers=signers)
    await store.write(lambda session: _remember(session, audit, bundle, now))
    return LoadedPolicies(unsigned, 0) if bundle is None else LoadedPolicies(bundle.policies, bundle.version)


def policies_in_use(connection: Connection) -> int:
    """Return the version of the newest signed policies that any verifier on this database has loaded (0: none)."""
    return connection.scalar(_VERSION) or 0


async def _remember(session: AsyncSession, audit: AuditLog, bundle: PolicyBundle | None, now: datetime) -> None:
    row = await session.get(PolicyBundleRow, _NAME, with_for_update=True)
    if bundle is None:
        if row is not None:
            raise PolicyBundleMissing(
                f"signed policies of version {row.version} were in use, and attest.signed_policies names none",
                advice="name the bundle of that version, or a newer one",
            )
        return
    if row is None:
        session.add(row := PolicyBundleRow(name=_NAME, version=0, sha256="", loaded_at=now))
    check_successor(bundle, version=row.version, sha256=row.sha256)
    if row.version == bundle.version:
        return
    row.version, row.sha256, row.loaded_at = bundle.version, bundle.sha256, now
    await audit.append(
        session,
        actor="verifier",
        action="policies.load",
        subject=_NAME,
        outcome="done",
        facts={"version": bundle.version, "sha256": bundle.sha256, "policy_sha256": bundle.policies.digest},
        now=now,
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TrustFileInvalid(f"{file} holds no signed policies: {error.strerror}") from error
