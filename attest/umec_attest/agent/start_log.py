"""The log of what this node starts for applications: each start is written down, then extended into PCR 15.

The file has the starts of one boot, which each entry names by the TPM's resetCount: what an older boot left goes. A
line is written before the PCR is extended, so that nothing is measured that the log does not tell. Where that ended in
between, the start never was, and the line is taken back. Nobody gets to know the number of a start that is not in both.

A node falls whose log says what the site did not decide. So nothing is written down that the verifier could not judge,
or that differs from its decision; who signed that is for netd to check before, and for the verifier after.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from umec_attest.agent.errors import AgentStateInvalid, StartLogDiverged, StartLogFull, StartUndecided
from umec_attest.agent.requests import Start
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.tpm.registers import boot_and_value, extend_once
from umec_attest.errors import StartLogInvalid
from umec_attest.starts.claims import differences
from umec_attest.starts.entry import (
    MAX_ENTRIES,
    MAX_LOG,
    MAX_OF_TENANT,
    STARTS_PCR,
    StartEntry,
    extended,
    parse_start,
)
from umec_core.jose import JwtInvalid, check_times, peek_claims

__all__ = ["START_LOG", "StartLog", "read_start_log"]

START_LOG: Final = "starts.log"
LONGEST: Final = timedelta(hours=1)
"""A decision is made for one start (`umec_platform.netd.decisions` says the same)."""


class StartLog:
    """The log in a folder of the agent. Safe to share between threads."""

    def __init__(self, folder: Path, tpm: Tpm) -> None:
        self._path = folder / START_LOG
        self._tpm = tpm
        self._lock = threading.Lock()
        self._boot: int | None = None
        self._value = bytes(32)
        self._size = 0
        self._of_tenant: Counter[str] = Counter()

    def add(self, start: Start, node: str, now: datetime) -> int:
        """Write a start of `node` down, extend PCR 15 with it, and return its number.

        Raises StartUndecided, StartLogFull, StartLogDiverged, AgentStateInvalid, TpmUnavailable, TpmRefused: the start
        must not take place.
        """
        with self._lock:
            if self._boot is None:
                self._open()
            try:
                return self._add(start, node, now)
            except StartUndecided:
                raise
            except BaseException:
                self._boot = None  # what the TPM and the file have of it, is looked at again
                raise

    def _add(self, start: Start, node: str, now: datetime) -> int:
        entry = StartEntry(
            boot=self._boot or 0,
            number=self._of_tenant.total(),
            time=int(now.timestamp()),
            node=node,
            tenant=start.tenant,
            instance=start.instance,
            image=start.image,
            decision=start.decision,
        )
        line = entry.to_bytes()
        self._check(entry, line, now)
        self._write(line + b"\n")
        digest, before = hashlib.sha256(line).digest(), self._value
        self._value = self._tpm.do(lambda esys: extend_once(esys, STARTS_PCR, before, digest))
        self._size += len(line) + 1
        self._of_tenant[entry.tenant] += 1
        return entry.number

    def _check(self, entry: StartEntry, line: bytes, now: datetime) -> None:
        """Refuse what the verifier could not judge, or would find to be decided otherwise or at another time."""
        if entry.number >= MAX_ENTRIES or self._size + len(line) >= MAX_LOG:
            raise StartLogFull("so many starts were measured in this boot as there may be", advice="boot the node")
        if self._of_tenant[entry.tenant] >= MAX_OF_TENANT:
            raise StartLogFull(f"tenant {entry.tenant} has had {MAX_OF_TENANT} starts in this boot, which is its share")
        try:
            parse_start(line)
            claims = peek_claims(entry.decision)
            check_times(claims, now, longest=LONGEST)
        except (StartLogInvalid, JwtInvalid) as error:
            raise StartUndecided(f"no start that could be judged: {error.detail}") from error
        other = differences(claims, entry)
        if other:
            raise StartUndecided(f"the decision is about {', '.join(other)}")

    def _write(self, data: bytes) -> None:
        try:
            with self._path.open("r+b" if self._path.exists() else "wb") as file:
                file.seek(self._size)
                file.truncate()
                file.write(data)
        except OSError as error:
            raise AgentStateInvalid(f"the log of starts {self._path} cannot be written: {error.strerror}") from error

    def _open(self) -> None:
        """Find where the log and the PCR stand, and take back a last line that was written and not extended."""
        boot, quoted = self._tpm.do(lambda esys: boot_and_value(esys, STARTS_PCR))
        entries = self._entries(boot)
        value, size, tenants = bytes(32), 0, Counter[str]()
        for entry in entries:
            if value == quoted:
                break
            line = entry.to_bytes()
            value, size = extended(value, line), size + len(line) + 1
            tenants[entry.tenant] += 1
        if value != quoted or len(entries) - tenants.total() > 1:
            raise StartLogDiverged(
                f"PCR {STARTS_PCR} is not what the log of starts gives: somebody else extended it, or the log is gone",
                advice="boot the node",
            )
        self._boot, self._value, self._size, self._of_tenant = boot, value, size, tenants

    def _entries(self, boot: int) -> Sequence[StartEntry]:
        """Return the whole entries of the file, if they are of this boot; else there are none."""
        whole, _, _ = read_start_log(self._path.parent, 0, most=MAX_LOG)[0].rpartition(b"\n")
        try:
            entries = [parse_start(line) for line in whole.splitlines()]
        except StartLogInvalid as error:
            raise StartLogDiverged(f"the log of starts holds what is none: {error.detail}") from error
        return entries if entries and entries[0].boot == boot else ()


def read_start_log(folder: Path, start: int, *, most: int) -> tuple[bytes, bool]:
    """Return whole lines from number `start` (0 is the first) on, at most `most` bytes, and whether more follow.

    No file is a log without entries. Raises AgentStateInvalid where it cannot be read, or the first line does not fit:
    none of it, though there is more, would be taken for an empty log.
    """
    try:
        with (folder / START_LOG).open("rb") as file:
            data = file.read(MAX_LOG)
    except FileNotFoundError:
        return b"", False
    except OSError as error:
        raise AgentStateInvalid(f"the log of starts in {folder} cannot be read: {error.strerror}") from error
    at = 0
    for _ in range(start):
        at = data.find(b"\n", at) + 1
        if at == 0:
            return b"", False
    end, last = data.rfind(b"\n", at, at + most) + 1, data.rfind(b"\n", at) + 1
    if not end < last:
        return data[at:last], False
    if not end:
        raise AgentStateInvalid(f"start {start} of the log does not fit into a request, which has {most} bytes for it")
    return data[at:end], True
