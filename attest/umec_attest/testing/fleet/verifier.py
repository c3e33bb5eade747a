"""A verifier with a fleet: an `AttestService` on a folder, and its nodes as an enrolment with a ticket leaves them.

Another process opens the same verifier by the same folder: its keys lie there.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.ima import parse_runtime_policy
from umec_attest.reference import sign_reference_set
from umec_attest.service import AttestService, AttestSettings
from umec_attest.service.composition import MIGRATIONS
from umec_attest.service.tables import NodeRow
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.node import DEFAULT_PCRS
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.audit import verify_export
from umec_core.clock import Clock, system_clock
from umec_core.http import create_app
from umec_core.jose import KeySet, sign_jwt
from umec_core.keys import load_or_create_key
from umec_core.standing import Standing, StandingView
from umec_core.store import Store
from umec_core.tokens import ACCESS_TOKEN_TYPE, StaticKeys, TokenVerifier

__all__ = ["IMAGE", "FleetVerifier"]

IMAGE: Final = "edge-node"
TENANT: Final = "city"
VALID: Final = timedelta(days=365)
AGGREGATED: Final = (8,)
"""What is asked for beside the usual ones where a list of what runs is judged: it begins with the hash over PCR 0-9."""
AT_ONCE: Final = 1000
"""Nodes in one transaction."""


class FleetVerifier:
    """Opens the verifier of a folder. `changes` are settings that are not the usual ones."""

    def __init__(
        self,
        folder: Path,
        *,
        management: str = "https://localhost:8443",
        database: str | None = None,
        clock: Clock = system_clock,
        **changes: Any,  # noqa: ANN401 - whatever a setting is
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clock = clock
        self._signer = load_or_create_key(folder / "signer.key")
        self._tokens = load_or_create_key(folder / "tokens.key")
        signer = folder / "signer.pem"
        signer.write_bytes(self._signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        self.settings: Final = AttestSettings(
            management_url=management,
            state=folder / "state",
            database=database or f"sqlite+aiosqlite:///{folder}/attest.db",
            ca_sha256="ab" * 32,
            reference_signers=(signer,),
            **changes,
        )

    async def open(self) -> AttestService:
        """Open the verifier; whoever asks closes it."""
        tokens = TokenVerifier(
            issuer=self.settings.management_url,
            audience=self.settings.issuer,
            keys=StaticKeys(KeySet([self._tokens.public_key()])),
            standings=StandingView(),
            clock=self._clock,
            allow_bearer=True,
        )
        return await AttestService.open(self.settings, tokens=tokens, clock=self._clock)

    def application(self, service: AttestService) -> FastAPI:
        """Return what the management listener serves."""
        return create_app("attest", service.routers, ready=service.ready)

    def token(self, *scopes: str) -> dict[str, str]:
        """Return a header with an operator's access token."""
        now = int(self._clock().timestamp())
        claims = {
            "iss": self.settings.management_url,
            "sub": "operator",
            "client_id": "operator",
            "aud": self.settings.issuer,
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "scope": " ".join(scopes),
        }
        return {"authorization": f"Bearer {sign_jwt(claims, self._tokens, typ=ACCESS_TOKEN_TYPE)}"}

    def reference(
        self,
        boots: Sequence[Boot],
        *,
        image: str = IMAGE,
        version: int = 1,
        programs: Sequence[tuple[str, bytes]] = (),
    ) -> bytes:
        """Sign a reference set that expects these boots, any PCR as in one of them, and these programs if any."""
        now = self._clock()
        expected = {
            pcr: sorted({boot.pcrs[pcr] for boot in boots})
            for pcr in (*DEFAULT_PCRS, *(AGGREGATED if programs else ()))
        }
        files: dict[str, list[str]] = {}
        for path, content in programs:
            files.setdefault(path, []).append(hashlib.sha256(content).hexdigest())
        return sign_reference_set(
            name=image,
            subject_sha256="cd" * 32,
            version=version,
            issued=now,
            expires=now + VALID,
            pcrs={HashAlgorithm.SHA256: expected},
            ignored={},
            key=self._signer,
            runtime=parse_runtime_policy({"files": files}) if files else None,
        )

    async def install(self, service: AttestService, envelope: bytes) -> None:
        """Give the verifier a reference set, as a builder does."""
        transport = httpx.ASGITransport(self.application(service))
        async with httpx.AsyncClient(transport=transport, base_url=self.settings.management_url) as client:
            answer = await client.post(
                "/attest/v1/reference-sets", content=envelope, headers=self.token("attest:admin")
            )
            answer.raise_for_status()

    async def audit_log(self, service: AttestService) -> dict[str, Any]:
        """Return the whole audit log as one export; raises what says that it does not verify."""
        entries: list[dict[str, Any]] = []
        transport = httpx.ASGITransport(self.application(service))
        async with httpx.AsyncClient(transport=transport, base_url=self.settings.management_url) as client:
            while True:
                headers = self.token("attest:admin")
                answer = await client.get("/attest/v1/audit", params={"after": len(entries)}, headers=headers)
                page = answer.raise_for_status().json()
                entries += page["entries"]
                if "next" not in page:
                    break
        log = {**page, "entries": entries}
        verify_export(log, service.audit_public_key)
        return log

    async def rounds(self) -> dict[str, int]:
        """Return how many rounds are written down for each node."""
        return {row.id: row.rounds for row in await self._nodes()}

    async def standings(self) -> list[str]:
        """Return the standing of every node."""
        return [row.standing for row in await self._nodes()]

    async def _nodes(self) -> Sequence[NodeRow]:
        store = await Store.open(self.settings.database, migrations=MIGRATIONS)
        try:
            async with store.read() as session:
                return list(await session.scalars(select(NodeRow)))
        finally:
            await store.close()

    async def enrol(self, nodes: Sequence[SimulatedNode]) -> None:
        """Write nodes down; the database is brought to its newest schema first."""
        store = await Store.open(self.settings.database, migrations=MIGRATIONS)
        now = self._clock()
        try:
            for start in range(0, len(nodes), AT_ONCE):
                rows = [_row(node, now) for node in nodes[start : start + AT_ONCE]]

                async def work(session: AsyncSession, rows: Sequence[NodeRow] = rows) -> None:
                    session.add_all(rows)

                await store.write(work)
        finally:
            await store.close()


def _row(node: SimulatedNode, now: datetime) -> NodeRow:
    keys = node.keys
    return NodeRow(
        id=node.name,
        tenant=TENANT,
        image=IMAGE,
        approved=True,
        ek_sha256=hashlib.sha256(keys.ek_public).hexdigest(),
        ek_public=keys.ek_public,
        ak_public=keys.ak_public,
        node_key_public=keys.node_key_public,
        standing=Standing.PENDING.value,
        generation=1,
        reason="enrolled",
        changed_at=now,
        enrolled_at=now,
        rounds=0,
    )
