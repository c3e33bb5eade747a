"""The lease under which this host serves: signed statements of the verifier about its node renew it or end it."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from umec_core.jose import SKEW, KeySet
from umec_core.keys import read_private, write_private
from umec_core.standing import (
    Standing,
    StandingEntry,
    StandingFallen,
    StandingRollback,
    StandingStale,
    StandingView,
    verify_statement,
)
from umec_platform.netd.errors import LeaseExpired, OperationFailed, StandingDegraded, StandingLapsed

__all__ = ["LEASE_TIME", "Lease", "LeaseTerms"]

LEASE_TIME: Final = timedelta(seconds=90)
"""How long a statement holds from its signing: three rounds."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Whose statements count: the verifier's `keys` and `issuer`, about one `node`, each for `time`."""

    node: str
    keys: KeySet
    issuer: str
    time: timedelta = LEASE_TIME


class _Floor(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    issued_at: AwareDatetime
    last: int


class Lease:
    """What is known about the node.

    A statement that the node stands renews the lease; one that it fell ends it at once; one that it has lapsed (it was
    silent) does neither: what is in force stays so until the lease ends, and nothing new is taken.

    When the newest statement was signed and where it ended is kept in `file`: after a restart nothing older is taken,
    and nothing is in force until the verifier has spoken anew. If the newest was signed at a time that is yet to come,
    a clock was set back: the next statement may be of any time, but still may not end before what is known.
    """

    def __init__(self, terms: LeaseTerms, file: Path) -> None:
        self._terms = terms
        self._file = file
        self._view = StandingView(max_age=terms.time, node=terms.node)
        self._ends: datetime | None = None
        self._deadline = 0.0
        self._floor = _Floor(issued_at=datetime.fromtimestamp(0, UTC), last=0)

    def recall(self) -> None:
        """Read how far an earlier netd had come; raises `OperationFailed` if the file is not one of ours."""
        if not self._file.exists():
            return
        try:
            self._floor = _Floor.model_validate_json(read_private(self._file))
        except ValidationError as error:
            raise OperationFailed(
                f"{self._file} is not what netd wrote", advice="find out why, then remove it: standing begins anew"
            ) from error

    def renew(self, statement: str, now: datetime) -> None:
        """Take over a statement.

        Raises `StandingInvalid` (forged, of another node), `StandingRollback` (older than another), or `StandingStale`:
        it was signed so long ago that it renews nothing, and what it says may no longer be true.
        """
        terms = self._terms
        verified = verify_statement(statement, terms.keys, issuer=terms.issuer, now=now)
        if self._floor.issued_at > now + SKEW:
            self._floor = _Floor(issued_at=datetime.fromtimestamp(0, UTC), last=self._floor.last)
            self._view.forget_time()
        if verified.issued_at < self._floor.issued_at or verified.last < self._floor.last:
            raise StandingRollback("the statement is older than the newest that an earlier netd had seen")
        if now - verified.issued_at > terms.time:
            raise StandingStale(
                f"the statement is older than {terms.time.total_seconds():.0f} s",
                advice="check that the platform reaches the verifier, and that the clocks agree",
            )
        self._view.apply(verified)
        self._floor = _Floor(issued_at=verified.issued_at, last=verified.last)
        write_private(self._file, self._floor.model_dump_json().encode())
        entry = self.entry
        if entry is not None and entry.standing is Standing.LAPSED:
            return
        if entry is None or not entry.standing.stands:
            self._ends, self._deadline = None, 0.0
            return
        # A clock that is set back must not lengthen the lease.
        left = min(verified.issued_at + terms.time - now, terms.time)
        self._ends, self._deadline = verified.issued_at + terms.time, time.monotonic() + left.total_seconds()

    def check(self, now: datetime) -> StandingEntry:
        """Return the standing under which rules are in force; raises `LeaseExpired` or `StandingFallen`."""
        entry = self.entry
        if entry is not None and not (entry.standing.stands or entry.standing is Standing.LAPSED):
            raise StandingFallen(f"node {entry.node} is {entry.standing.value} since {entry.changed_at.isoformat()}")
        if entry is None or self._ends is None or now > self._ends or time.monotonic() > self._deadline:
            raise self._expired()
        return entry

    def check_change(self, now: datetime) -> StandingEntry:
        """Return as `check`; raises `StandingLapsed`, too: a silent node keeps its rules and gets no new ones."""
        entry = self.check(now)
        if entry.standing is Standing.LAPSED:
            raise StandingLapsed(f"node {entry.node} is silent: it keeps what it has until its lease ends")
        return entry

    def _expired(self) -> LeaseExpired:
        return LeaseExpired(
            f"no statement about {self._terms.node} in the last {self._terms.time.total_seconds():.0f} s",
            advice="check that the platform reaches the verifier and relays its statements",
        )

    def check_admission(self, now: datetime) -> None:
        """Raise as `check_change`, or `StandingDegraded`: a degraded node starts nothing new."""
        if self.check_change(now).standing is not Standing.TRUSTED:
            raise StandingDegraded(f"node {self._terms.node} is degraded: it starts nothing new")

    @property
    def ends(self) -> datetime | None:
        """When the lease ends if nothing renews it, or None if there is none."""
        return self._ends

    @property
    def entry(self) -> StandingEntry | None:
        """What was last said about the node, however long ago."""
        return self._view.entries.get(self._terms.node)
