"""The signing authority put together: its state directory, its log, its routes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from fastapi import APIRouter

from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.keys import load_or_create_key
from umec_core.store import Store
from umec_core.tokens import KeySource
from umec_images.authority.endpoints import authority_router
from umec_images.authority.identity import IdentityVerifier
from umec_images.authority.journal import Journal
from umec_images.authority.lock import StateLock
from umec_images.authority.log import SigstoreLog
from umec_images.authority.material import AuthorityMaterial, load_or_create
from umec_images.authority.rows import AuditRow

__all__ = ["MIGRATIONS", "SigningAuthority"]

MIGRATIONS: Final = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class SigningAuthority:
    """A running authority."""

    material: AuthorityMaterial
    router: APIRouter
    store: Store
    journal: Journal
    audit_key: EllipticCurvePublicKey
    lock: StateLock

    @classmethod
    async def open(
        cls, state: Path, *, url: str, issuer: str, keys: KeySource, clock: Clock, database: str | None = None
    ) -> "SigningAuthority":
        """Open the authority at the public address `url` that believes identity tokens of `issuer`.

        `state` keeps its keys, and its database unless one is named by SQLAlchemy URL; nobody else may hold it.
        Raises AuthorityInUse, MaterialInvalid or LogRewritten.
        """
        lock = StateLock.take(state)
        try:
            material = load_or_create(state, now=clock())
            store = await Store.open(database or f"sqlite+aiosqlite:///{state / 'log.db'}", migrations=MIGRATIONS)
            try:
                log = await SigstoreLog.open(store, material.log_key, origin=_origin(url))
                audit_key = load_or_create_key(state / "audit.key")
            except BaseException:
                await store.close()
                raise
        except BaseException:
            lock.release()
            raise
        journal = Journal(store, AuditLog(AuditRow, audit_key, f"{url}/images/v1/audit"), clock)
        identities = IdentityVerifier(issuer=issuer, keys=keys, clock=clock)
        router = authority_router(
            material=material, identities=identities, log=log, journal=journal, url=url, issuer=issuer, clock=clock
        )
        return cls(material, router, store, journal, audit_key.public_key(), lock)

    async def close(self) -> None:
        """Close the database, and let others hold the state directory."""
        try:
            await self.store.close()
        finally:
            self.lock.release()


def _origin(url: str) -> str:
    """Name the log as checkpoints do: its address without the scheme."""
    return f"{url.partition('://')[2]}/sigstore/rekor"
