"""The lease under which this host serves: signed statements of the verifier about its node renew it or end it."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from umec_core.errors import UmecError
from umec_core.jose import KeySet
from umec_core.keys import write_private
from umec_core.standing import Standing, StandingEntry, StandingStale, StandingView, verify_statement
from umec_platform.netd.errors import LeaseExpired, StandingDegraded

__all__ = ["LEASE_TIME", "Lease", "LeaseTerms"]

LEASE_TIME: Final = timedelta(seconds=90)
"""How long a statement holds from its signing: three rounds."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Whose statements count: the verifier's `keys` and `issuer`, about one `node`, each for `time`."""

    node: str
    keys: KeySet
    issuer: str
    time: timedelta = LEASE_TIME


class Lease:
    """What is known about the node. The newest statement is kept in `file`, so that none goes back over a restart."""

    def __init__(self, terms: LeaseTerms, file: Path) -> None:
        self._terms = terms
        self._file = file
        self._view = StandingView(max_age=terms.time, node=terms.node)
        self._deadline = 0.0

    def recall(self, now: datetime) -> None:
        """Take over the statement that an earlier netd had seen; one that does not hold any more counts as none."""
        try:
            self._apply(self._file.read_text(encoding="ascii"), now)
        except FileNotFoundError:
            return
        except (UmecError, OSError, UnicodeError) as error:
            _log.warning("kept statement not taken", reason=str(error))

    def renew(self, statement: str, now: datetime) -> None:
        """Take over a statement; raises `StandingInvalid` (forged, of another node) or `StandingRollback` (older)."""
        self._apply(statement, now)
        write_private(self._file, statement.encode("ascii"))

    def _apply(self, statement: str, now: datetime) -> None:
        terms = self._terms
        verified = verify_statement(statement, terms.keys, issuer=terms.issuer, now=now)
        self._view.apply(verified)
        # A clock that is set back must not lengthen the lease.
        left = min(verified.issued_at + terms.time - now, terms.time)
        self._deadline = time.monotonic() + left.total_seconds()

    def check(self, now: datetime) -> StandingEntry:
        """Return the standing under which rules are in force; raises `LeaseExpired` or `StandingFallen`."""
        try:
            entry = self._view.current(self._terms.node, now)
        except StandingStale as error:
            raise self._expired() from error
        if time.monotonic() > self._deadline:
            raise self._expired()
        return entry

    def _expired(self) -> LeaseExpired:
        return LeaseExpired(
            f"no statement about {self._terms.node} in the last {self._terms.time.total_seconds():.0f} s",
            advice="check that the platform reaches the verifier and relays its statements",
        )

    def check_admission(self, now: datetime) -> None:
        """Raise as `check`, or `StandingDegraded`: a degraded node starts nothing new."""
        if self.check(now).standing is not Standing.TRUSTED:
            raise StandingDegraded(f"node {self._terms.node} is degraded: it starts nothing new")

    @property
    def ends(self) -> datetime | None:
        """When the lease ends if nothing renews it, or None if nothing was ever said."""
        return None if self._view.issued_at is None else self._view.issued_at + self._terms.time

    @property
    def entry(self) -> StandingEntry | None:
        """What was last said about the node, however long ago."""
        return self._view.entries.get(self._terms.node)
