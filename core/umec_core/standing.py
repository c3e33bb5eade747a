"""What a node is worth now, as the verifier says it: signed statements, the view that every API keeps, its follower.

StandingInvalid    standing-invalid     a statement is not one of our verifier's
StandingRollback   standing-rollback    a statement is older than what is known, or leaves a gap
StandingStale      standing-stale       the newest statement is too old to decide by
StandingFallen     standing-fallen      the node is not trusted, unknown, or has changed since the token was made
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum, unique
from typing import Final, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from umec_core.clock import Clock
from umec_core.errors import Forbidden, Refused, UmecError, Unavailable
from umec_core.jose import SKEW, JwtInvalid, KeySet, KeySource, peek_kid, verify_jwt

__all__ = [
    "STATEMENT_TYPE",
    "Standing",
    "StandingEntry",
    "StandingFallen",
    "StandingFeed",
    "StandingFollower",
    "StandingInvalid",
    "StandingRollback",
    "StandingStale",
    "StandingStatement",
    "StandingView",
    "verify_statement",
]

STATEMENT_TYPE: Final = "umec-standings+jwt"

MAX_AGE: Final = timedelta(seconds=10)
"""How old the newest statement may be while node-bound calls are still decided by it."""

FIRST_RETRY: Final = 0.25
"""Seconds until a failed poll is repeated; doubled each time."""

LAST_RETRY: Final = 2.0
"""Seconds between polls at most: well below `MAX_AGE`, so that one lost answer does not make a view stale."""

_log = structlog.get_logger(__name__)


@unique
class Standing(StrEnum):
    """What a node is worth."""

    PENDING = "pending"
    TRUSTED = "trusted"
    DEGRADED = "degraded"
    LAPSED = "lapsed"
    UNTRUSTED = "untrusted"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"

    @property
    def stands(self) -> bool:
        """Whether tokens of the node's present generation are honoured."""
        return self in {Standing.TRUSTED, Standing.DEGRADED}


class StandingInvalid(Refused):
    """A statement is not one of our verifier's."""

    code = "standing-invalid"


class StandingRollback(Refused):
    """A statement is older than what is known, or leaves a gap after it."""

    code = "standing-rollback"


class StandingStale(Unavailable):
    """The newest statement is too old to decide by."""

    code = "standing-stale"


class StandingFallen(Forbidden):
    """The node is not trusted, is unknown, or has changed since the token was made."""

    code = "standing-fallen"


@dataclass(frozen=True, slots=True)
class StandingEntry:
    """The standing of one node since `changed_at`; `seq` orders all changes of all nodes."""

    seq: int
    node: str
    tenant: str | None
    standing: Standing
    generation: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class StandingStatement:
    """What the verifier signed at `issued_at`: every change with a `seq` above `after`, up to `last`.

    `node` is the one node that the statement is about, or None for all. Only `verify_statement` makes one.
    """

    issued_at: datetime
    after: int
    last: int
    node: str | None
    entries: tuple[StandingEntry, ...]


class _EntryClaims(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: StrictInt = Field(ge=1)
    node: StrictStr = Field(min_length=1, max_length=63)
    tenant: StrictStr | None = Field(default=None, max_length=63)
    standing: Standing
    generation: StrictInt = Field(ge=0)
    changed_at: datetime


class _StatementClaims(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    iss: StrictStr
    iat: float = Field(ge=0, lt=2**40, allow_inf_nan=False)
    after: StrictInt = Field(ge=0)
    last: StrictInt = Field(ge=0)
    node: StrictStr | None = None
    standings: tuple[_EntryClaims, ...]


def verify_statement(jws: str, keys: KeySet, *, issuer: str, now: datetime) -> StandingStatement:
    """Return what the verifier signed; raises `StandingInvalid`.

    1. A key of the verifier signed it as a standing statement. 2. It has exactly the members of one. 3. Our verifier
    issued it, and not in the future. 4. Its entries are in order, within its bounds, and about its node.
    """
    try:
        claims = _StatementClaims.model_validate(verify_jwt(jws, keys, typ=STATEMENT_TYPE))  # 1, 2
    except JwtInvalid as error:
        raise StandingInvalid(f"the standing statement is not valid: {error.detail}") from error
    except ValidationError as error:
        raise StandingInvalid(f"the standing statement has {error.error_count()} members of another shape") from error
    if claims.iss != issuer:  # 3
        raise StandingInvalid(f"the standing statement is of another issuer than {issuer}")
    if claims.iat > (now + SKEW).timestamp():
        raise StandingInvalid("the standing statement is of the future")
    _check_entries(claims)  # 4
    return StandingStatement(
        issued_at=datetime.fromtimestamp(claims.iat, UTC),
        after=claims.after,
        last=claims.last,
        node=claims.node,
        entries=tuple(_entry(entry) for entry in claims.standings),
    )


def _check_entries(claims: _StatementClaims) -> None:
    sequence = [entry.seq for entry in claims.standings]
    if claims.last < claims.after or sequence != sorted(set(sequence)):
        raise StandingInvalid("the entries of the standing statement are not in order")
    if sequence and not claims.after < sequence[0] <= sequence[-1] <= claims.last:
        raise StandingInvalid("the standing statement has entries outside of its bounds")
    if claims.node is not None and any(entry.node != claims.node for entry in claims.standings):
        raise StandingInvalid(f"the standing statement about {claims.node} speaks of other nodes")
    if any(entry.changed_at.utcoffset() is None for entry in claims.standings):
        raise StandingInvalid("a time of the standing statement has no zone")


def _entry(claims: _EntryClaims) -> StandingEntry:
    return StandingEntry(
        seq=claims.seq,
        node=claims.node,
        tenant=claims.tenant,
        standing=claims.standing,
        generation=claims.generation,
        changed_at=claims.changed_at.astimezone(UTC),
    )


class StandingView:
    """The newest known standing of each node (or of the one `node` that the view is about)."""

    def __init__(self, *, max_age: timedelta = MAX_AGE, node: str | None = None) -> None:
        if max_age <= timedelta(0):
            raise StandingInvalid("a view needs an age that a statement may have")
        self.node: Final = node
        self._max_age = max_age
        self._entries: dict[str, StandingEntry] = {}
        self._last = 0
        self._issued_at: datetime | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def last(self) -> int:
        """The `seq` up to which all changes are known."""
        return self._last

    @property
    def issued_at(self) -> datetime | None:
        """When the newest statement was signed."""
        return self._issued_at

    @property
    def entries(self) -> Mapping[str, StandingEntry]:
        """The newest entry of each known node."""
        return dict(self._entries)

    def clock_fell(self, now: datetime) -> bool:
        """Tell whether the newest statement is of a time to come: the clock here, or the verifier's, was set back."""
        return self._issued_at is not None and self._issued_at > now + SKEW

    def forget_time(self) -> None:
        """Be stale until the next statement, which may be of any time but still may not end before what is known."""
        self._issued_at = None

    def apply(self, statement: StandingStatement) -> tuple[StandingEntry, ...]:
        """Take over a statement and return the entries that were news.

        Raises `StandingRollback` if it is older than the newest known one, ends before it, or leaves a gap after it,
        and `StandingInvalid` if it is about other nodes than the view.
        """
        if statement.node != self.node:
            raise StandingInvalid("the statement is about other nodes than the view")
        if self._issued_at is not None and statement.issued_at < self._issued_at:
            raise StandingRollback("the statement is older than the newest known one")
        if statement.last < self._last:
            raise StandingRollback(f"the statement ends at {statement.last}, {self._last} is known")
        if statement.after > self._last:
            raise StandingRollback(f"the statement begins after {statement.after}, only {self._last} is known")
        news = tuple(entry for entry in statement.entries if self._is_news(entry))
        for entry in news:
            self._entries[entry.node] = entry
        self._last, self._issued_at = statement.last, statement.issued_at
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        return news

    def _is_news(self, entry: StandingEntry) -> bool:
        known = self._entries.get(entry.node)
        if known is None or entry.seq == known.seq:
            return known is None
        if entry.seq > known.seq and entry.generation < known.generation:
            raise StandingRollback(f"the generation of {entry.node} goes back")
        return entry.seq > known.seq

    async def reach(self, node: str, generation: int, *, within: float) -> None:
        """Wait until this generation of a node is known, or `within` seconds are over; decides nothing.

        What the verifier signed for a node may arrive here before the statement about it does.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while (known := self._entries.get(node)) is None or known.generation < generation:
                    waiting = asyncio.get_running_loop().create_future()
                    self._waiting.add(waiting)
                    try:
                        await waiting
                    finally:
                        self._waiting.discard(waiting)

    def current(self, node: str, now: datetime) -> StandingEntry:
        """Return the entry of a node that stands; raises `StandingStale` or `StandingFallen`."""
        if self._issued_at is None or self.clock_fell(now) or now - self._issued_at > self._max_age:
            raise StandingStale(
                f"the standing of nodes is not known since {self._issued_at}",
                advice="check that the attestation service answers and that the clocks agree",
            )
        entry = self._entries.get(node)
        if entry is None:
            raise StandingFallen(f"node {node} is not known to the verifier")
        if not entry.standing.stands:
            raise StandingFallen(f"node {node} is {entry.standing.value} since {entry.changed_at.isoformat()}")
        return entry

    def check(self, node: str, generation: int, now: datetime) -> StandingEntry:
        """Return the entry of a node that stands in exactly this generation; raises as `current`."""
        entry = self.current(node, now)
        if entry.generation != generation:
            raise StandingFallen(f"node {node} is in generation {entry.generation}, this is of {generation}")
        return entry


class StandingFeed(Protocol):
    """Where statements come from: `umec_core.client.OAuthClient` bound to the verifier's resource, or a fake."""

    async def standings(self, *, after: int, wait: float, node: str | None) -> str:
        """Return the JWS of `GET /attest/v1/standings`."""
        ...


OnChange = Callable[[Sequence[StandingEntry]], Awaitable[None]]


class StandingFollower:
    """Keeps a view fresh by long polls, and tells a listener what changed.

    The listener gets news only after the view has them; if it raises, it is told again, with all later news.
    """

    def __init__(
        self,
        feed: StandingFeed,
        *,
        view: StandingView,
        keys: KeySource,
        issuer: str,
        clock: Clock,
        on_change: OnChange | None = None,
        wait: float = 5.0,
    ) -> None:
        self._feed = feed
        self._view = view
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._on_change = on_change
        self._wait = wait
        self._untold: list[StandingEntry] = []
        self.statement: str | None = None
        """The newest statement as it was signed, for those to whom it is relayed."""

    async def run(self) -> None:
        """Follow the feed until cancelled; failures are logged and retried, the view grows stale meanwhile."""
        pause = FIRST_RETRY
        while True:
            try:
                await self.step()
            except UmecError as error:
                _log.warning("standing feed failed", code=error.code, detail=error.detail)
            except Exception:  # noqa: BLE001 - a failing listener must not end the feed that all decisions stand on
                _log.exception("listener of the standing feed failed")
            else:
                pause = FIRST_RETRY
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RETRY)

    async def step(self, *, wait: float | None = None) -> Sequence[StandingEntry]:
        """Poll once (waiting for news for `wait` seconds), apply, tell the listener; returns what it was told."""
        seconds = 0.0 if self._untold else self._wait if wait is None else wait
        token = await self._feed.standings(after=self._view.last, wait=seconds, node=self._view.node)
        statement = await self._verify(token)
        if self._view.clock_fell(self._clock()):
            _log.warning("the clock was set back; the standing feed begins anew", issued_at=str(self._view.issued_at))
            self._view.forget_time()
        self._untold.extend(self._view.apply(statement))
        self.statement = token
        told = tuple(self._untold)
        if told and self._on_change is not None:
            await self._on_change(told)
        self._untold.clear()
        return told

    async def _verify(self, token: str) -> StandingStatement:
        keys = await self._keys.keys(peek_kid(token))
        return verify_statement(token, keys, issuer=self._issuer, now=self._clock())
