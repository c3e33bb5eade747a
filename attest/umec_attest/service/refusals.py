"""Refusals in the verifier's audit log and among its log lines. Malformed input and our own absence are no refusals."""

from datetime import datetime
from typing import Final

import structlog

from umec_core import refusals
from umec_core.audit import AuditLog
from umec_core.errors import Kind, UmecError
from umec_core.store import Store

__all__ = ["Refusals"]

NO_REFUSALS: Final = frozenset({Kind.INVALID, Kind.UNAVAILABLE})

log = structlog.get_logger("umec.attest")


class Refusals(refusals.Refusals):
    """Records what the verifier refused to operators and to strangers."""

    def __init__(self, store: Store, audit: AuditLog) -> None:
        super().__init__(store, audit, service="verifier")

    async def operator(self, action: str, subject: str, error: UmecError, now: datetime, *, actor: str) -> None:
        """Write a refusal to somebody who proved who they are."""
        log.warning("refused", action=action, subject=subject, code=error.code, actor=actor)
        if error.kind not in NO_REFUSALS:
            await self.known(action, subject, error, now, actor=actor)

    async def stranger(self, action: str, subject: str, error: UmecError, now: datetime, *, address: str) -> None:
        """Write a refusal to somebody who proved nothing, or count it; `subject` is what they claim to be."""
        log.warning("refused", action=action, subject=subject, code=error.code, address=address)
        if error.kind not in NO_REFUSALS:
            await super().stranger(action, subject, error, now, address=address)
