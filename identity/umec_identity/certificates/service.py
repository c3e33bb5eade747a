"""Node certificates: issued to attested nodes, and refused once the node has changed since."""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.store import Store
from umec_core.tokens import certificate_thumbprint
from umec_identity.authentication.attestation import AttestedNode
from umec_identity.authentication.service import Authenticated
from umec_identity.certificates.authority import CertificateAuthority, CsrKey
from umec_identity.certificates.rows import CertificateRow
from umec_identity.errors import AttestationInvalid, CertificateFallen, CertificateInvalid
from umec_identity.rows import use_up

__all__ = ["Certificates", "IssuedCertificate"]


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A node's certificate and what it leads to, in PEM."""

    certificate: str
    chain: str
    expires: datetime


class Certificates:
    """Issues and checks certificates of nodes."""

    def __init__(self, authority: CertificateAuthority, *, store: Store, audit: AuditLog, clock: Clock) -> None:
        self._authority = authority
        self._store = store
        self._audit = audit
        self._clock = clock

    async def issue(self, who: Authenticated, csr: CsrKey) -> IssuedCertificate:
        """Return a certificate for the TLS key of an attested node; raises if what the request used was used before."""
        node, now = who.node, self._clock()
        if node is None:
            raise AttestationInvalid("certificates are for attested nodes")
        certificate = self._authority.issue(node.node, csr.key, until=node.expires, now=now)
        await self._store.write(lambda session: self._record(session, who, node, certificate, now))
        return IssuedCertificate(
            certificate=certificate.public_bytes(Encoding.PEM).decode(),
            chain=self._authority.pem(),
            expires=certificate.not_valid_after_utc,
        )

    async def _record(
        self,
        session: AsyncSession,
        who: Authenticated,
        node: AttestedNode,
        certificate: x509.Certificate,
        now: datetime,
    ) -> None:
        await use_up(session, who.used)
        thumbprint = certificate_thumbprint(certificate.public_bytes(Encoding.DER))
        session.add(
            CertificateRow(
                thumbprint=thumbprint,
                node=node.node,
                generation=node.generation,
                not_after=certificate.not_valid_after_utc,
            )
        )
        await self._audit.append(
            session,
            actor=node.node,
            action="certificate.issue",
            subject=node.node,
            outcome="done",
            facts={"x5t": thumbprint, "generation": node.generation, "ear": node.ear_id},
            now=now,
        )

    async def check(self, certificate: x509.Certificate, node: AttestedNode, now: datetime) -> None:
        """Check a certificate that a node showed; raises `CertificateInvalid` or `CertificateFallen`."""
        self._authority.check(certificate, node=node.node, now=now)
        thumbprint = certificate_thumbprint(certificate.public_bytes(Encoding.DER))
        async with self._store.read() as session:
            row = await session.get(CertificateRow, thumbprint)
        if row is None:
            raise CertificateInvalid("the certificate is not in the register of those that were issued")
        if row.generation != node.generation:
            raise CertificateFallen(
                f"the certificate is of generation {row.generation}, the node is in {node.generation}",
                advice="attest again and ask for a new certificate",
            )

    async def forget(self, now: datetime) -> None:
        """Forget certificates that are no longer valid."""

        async def work(session: AsyncSession) -> None:
            await session.execute(delete(CertificateRow).where(CertificateRow.not_after < now))

        await self._store.write(work)
