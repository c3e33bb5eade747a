"""Which boot log belongs to a quote: the one that came along, or the one that this boot sent before."""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, exists, insert, select

from umec_attest.bootlog import RawBootLog, ReplayedLog, parse_boot_log, verify_boot_log
from umec_attest.errors import BootLogRefused
from umec_attest.quote import VerifiedQuote
from umec_attest.service.errors import BootLogRequired
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.evidence.state import NodeState
from umec_attest.service.tables import BootLogRow, EvidenceRow, NodeRow
from umec_core.store import Store

__all__ = ["BootLogs", "SentLog", "forget_logs", "keep_logs", "unnamed"]

REMEMBERED: Final = 32
"""Parsed logs that are kept: the nodes of a fleet that run one image on one board share one log."""


@dataclass(frozen=True, slots=True)
class SentLog:
    """The boot log of a round: `sha256` (hex) of its bytes, and the bytes where they came along."""

    sha256: str
    content: bytes | None


class BootLogs:
    """Finds, parses and replays boot logs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parsed: OrderedDict[str, RawBootLog] = OrderedDict()

    def of(self, node: NodeState, request: EvidenceRequest, quote: VerifiedQuote) -> SentLog:
        """Return the log of this boot; raises `BootLogRequired` where it is not known.

        A log that is sent is the one that counts. Without one, it is that of the same boot (resetCount).
        """
        if request.boot_log is not None:
            sha256 = hashlib.sha256(request.boot_log).hexdigest()
            if request.boot_log_sha256 not in {None, sha256}:
                raise BootLogRequired("the boot log and its hash contradict each other")
            return SentLog(sha256, request.boot_log)
        known, booted = node.boot_log_sha256, node.boot_log_reset != quote.clock_info.reset_count
        if known is None or booted:
            raise BootLogRequired(
                "the node booted since its last boot log", advice="send the whole boot log", booted=booted
            )
        if request.boot_log_sha256 not in {None, known}:
            raise BootLogRequired("the boot log is another one than before", advice="send the whole boot log")
        return SentLog(known, None)

    async def replayed(
        self, log: SentLog, quote: VerifiedQuote, allowed: Collection[str]
    ) -> ReplayedLog | BootLogRefused:
        """Return the log replayed against the quote, or why it is refused.

        `allowed` are irregular forms that are read, and told as findings. Raises `BootLogRequired` where its bytes did
        not come along and are not kept any more.
        """
        try:
            return verify_boot_log(await self._parse(log, allowed), quote)
        except BootLogRefused as error:
            return error

    async def _parse(self, log: SentLog, allowed: Collection[str]) -> RawBootLog:
        parsed = self._parsed.get(log.sha256)
        if parsed is None:
            content = await self._kept(log.sha256) if log.content is None else log.content
            parsed = self._parsed[log.sha256] = parse_boot_log(content, allow=allowed)
            while len(self._parsed) > REMEMBERED:
                self._parsed.popitem(last=False)
        self._parsed.move_to_end(log.sha256)
        return parsed

    async def _kept(self, sha256: str) -> bytes:
        async with self._store.read() as session:
            row = await session.get(BootLogRow, sha256)
        if row is None:
            raise BootLogRequired("the boot log is not kept any more", advice="send the whole boot log")
        return row.content


def keep_logs(connection: Connection, logs: Mapping[str, bytes], now: datetime) -> None:
    """Keep logs (by SHA-256) that came along and replayed: each once for all nodes that boot the same."""
    if logs:
        known = set(connection.scalars(select(BootLogRow.sha256).where(BootLogRow.sha256.in_(logs))))
        rows = [{"sha256": sha256, "content": logs[sha256], "stored_at": now} for sha256 in sorted(logs.keys() - known)]
        if rows:
            connection.execute(insert(BootLogRow), rows)


def forget_logs(connection: Connection, logs: Iterable[str | None]) -> None:
    """Forget those of these logs (by SHA-256) that no node boots any more, at once.

    Event data that no digest covers may be anything: one boot gives any number of logs that replay, and a node that
    sends one after the other would fill the disk.
    """
    left = {sha256 for sha256 in logs if sha256 is not None}
    if left:
        connection.execute(delete(BootLogRow).where(BootLogRow.sha256.in_(left), unnamed()))


def unnamed() -> ColumnElement[bool]:
    """Return the condition that a log is neither that of a node nor part of kept evidence."""
    of_node = exists().where(NodeRow.boot_log_sha256 == BootLogRow.sha256)
    of_evidence = exists().where(EvidenceRow.boot_log_sha256 == BootLogRow.sha256)
    return ~of_node & ~of_evidence
