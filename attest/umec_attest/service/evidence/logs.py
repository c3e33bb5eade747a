"""Which boot log belongs to a quote: the one that came along, or the one that this boot sent before."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.bootlog import RawBootLog, ReplayedLog, parse_boot_log, verify_boot_log
from umec_attest.errors import BootLogRefused
from umec_attest.quote import VerifiedQuote
from umec_attest.service.errors import BootLogRequired
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.tables import BootLogRow, NodeRow
from umec_core.store import Store

__all__ = ["BootLogs", "JudgedLog", "keep_log"]

REMEMBERED: Final = 32
"""Parsed logs that are kept: the nodes of a fleet that run one image on one board share one log."""


@dataclass(frozen=True, slots=True)
class JudgedLog:
    """A boot log replayed against a quote, or why it was refused.

    `sha256` (hex) is that of its bytes; `content` are the bytes where they came along and replayed: worth keeping.
    """

    sha256: str
    outcome: ReplayedLog | BootLogRefused
    content: bytes | None


class BootLogs:
    """Finds, parses and replays boot logs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parsed: OrderedDict[str, RawBootLog] = OrderedDict()

    async def judge(self, node: NodeRow, request: EvidenceRequest, quote: VerifiedQuote) -> JudgedLog:
        """Return the judged log of this boot; raises `BootLogRequired` where it is not known.

        A log that is sent is the one that counts. Without one, that of the same boot (resetCount) is replayed again.
        """
        if request.boot_log is not None:
            sha256 = hashlib.sha256(request.boot_log).hexdigest()
            if request.boot_log_sha256 not in {None, sha256}:
                raise BootLogRequired("the boot log and its hash contradict each other")
            return self._replay(sha256, request.boot_log, quote, keep=True)
        known = node.boot_log_sha256
        if known is None or node.boot_log_reset != quote.clock_info.reset_count:
            raise BootLogRequired("the node booted since its last boot log", advice="send the whole boot log")
        if request.boot_log_sha256 not in {None, known}:
            raise BootLogRequired("the boot log is another one than before", advice="send the whole boot log")
        return self._replay(known, await self._kept(known), quote, keep=False)

    async def _kept(self, sha256: str) -> bytes | None:
        if sha256 in self._parsed:
            return None
        async with self._store.read() as session:
            row = await session.get(BootLogRow, sha256)
        if row is None:
            raise BootLogRequired("the boot log is not kept any more", advice="send the whole boot log")
        return row.content

    def _replay(self, sha256: str, content: bytes | None, quote: VerifiedQuote, *, keep: bool) -> JudgedLog:
        try:
            outcome = verify_boot_log(self._parse(sha256, content), quote)
        except BootLogRefused as error:
            return JudgedLog(sha256, error, None)
        return JudgedLog(sha256, outcome, content if keep else None)

    def _parse(self, sha256: str, content: bytes | None) -> RawBootLog:
        parsed = self._parsed.get(sha256)
        if parsed is None:
            parsed = parse_boot_log(content or b"")
            self._parsed[sha256] = parsed
            while len(self._parsed) > REMEMBERED:
                self._parsed.popitem(last=False)
        self._parsed.move_to_end(sha256)
        return parsed


async def keep_log(session: AsyncSession, log: JudgedLog, now: datetime) -> None:
    """Keep a log that came along and replayed: once for all nodes that boot the same."""
    if log.content is not None and await session.get(BootLogRow, log.sha256) is None:
        session.add(BootLogRow(sha256=log.sha256, content=log.content, stored_at=now))
        await session.flush()
