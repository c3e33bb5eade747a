"""What tokens use up and their entries in the audit log, written for many requests at once.

Each request waits until its own use is durable, and only one request gets a token for what is good once. While a batch
is written the next one gathers, so one transaction is shared by as many as are waiting, and nobody waits for company.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditEntry, AuditLog
from umec_core.store import Store, StoreClosed
from umec_core.writer import StoreBusy
from umec_identity.rows import Used, use_up_all

__all__ = ["Ledger"]

MAX_BATCH: Final = 256
"""Requests in one transaction: bounds what one failure can undo."""

MAX_WAITING: Final = 4096
"""Requests that wait: some seconds' worth."""


@dataclass(frozen=True, slots=True)
class _Record:
    used: tuple[Used, ...]
    entry: AuditEntry
    written: asyncio.Future[None]


class Ledger:
    """Writes records of issuances."""

    def __init__(self, store: Store, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit
        self._waiting: list[_Record] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, used: tuple[Used, ...], entry: AuditEntry) -> None:
        """Write what a request used and its entry, and return when both are durable.

        Raises, and writes no entry, if any of it was used before; raises `StoreBusy` or what the store raised.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise StoreBusy(f"{MAX_WAITING} requests wait for the store", advice="try again in a few seconds")
        record = _Record(used, entry, asyncio.get_running_loop().create_future())
        self._waiting.append(record)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="issuance-ledger")
        await record.written

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            try:
                refusals = await self._store.write(partial(self._rows, batch=batch))
            except BaseException as error:
                whole = isinstance(error, Exception)
                told = error if whole else StoreClosed("the store closed before this was written")
                _tell([*batch, *([] if whole else self._waiting)], told)
                if not whole:
                    self._waiting = []
                    raise
            else:
                for record, refusal in zip(batch, refusals, strict=True):
                    _tell([record], refusal)

    async def _rows(self, session: AsyncSession, batch: Sequence[_Record]) -> Sequence[Exception | None]:
        refusals = await use_up_all(session, [record.used for record in batch])
        good = [record.entry for record, refusal in zip(batch, refusals, strict=True) if refusal is None]
        await self._audit.append_all(session, good)
        return refusals


def _tell(records: Sequence[_Record], refusal: BaseException | None) -> None:
    for record in records:
        with contextlib.suppress(asyncio.InvalidStateError):  # its request was cancelled
            if refusal is None:
                record.written.set_result(None)
            else:
                record.written.set_exception(refusal)
