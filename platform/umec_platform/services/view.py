"""How a service looks from outside: its state, its locality, its links, and the platform's own token endpoint. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row

from umec_platform.services.queries import ServiceQuery
from umec_platform.services.schemas import LocalityType, ServiceInfo, ServiceState
from umec_platform.tables.services import ServiceRow

__all__ = ["MARKED", "MISSED", "KeptList", "Lists", "Mark", "Showcase", "mark", "next_silence", "shown_state"]

MISSED: Final = 3
"""Heartbeats that may be missing before a service counts as SUSPENDED."""

FOREVER: Final = datetime.max.replace(tzinfo=UTC)

MOST_KEPT: Final = 8 * 1024 * 1024
MOST_LISTS: Final = 256
"""Octets of lists that are kept (and of those that took their places), a hundred lists of a hundred services; and how
many lists, for the queries are kept with them."""

Mark = tuple[str, int, bool, bool, bool]
"""What decides how a service is shown to somebody: id, version, suspended, withdrawn, silent. All else is fixed by the
version of its row."""

MARKED: Final = (
    ServiceRow.id,
    ServiceRow.version,
    ServiceRow.suspended,
    ServiceRow.withdrawn,
    ServiceRow.interval,
    ServiceRow.heard_at,
)
"""The columns of which a mark is made."""


def shown_state(row: ServiceRow, now: datetime) -> ServiceState:
    """Return the state to announce: the platform's suspension goes before what the application said."""
    _, _, *suspended = mark(row, now)
    return ServiceState.SUSPENDED if any(suspended) else ServiceState(row.document["state"])


def mark(row: ServiceRow | Row[Any], now: datetime) -> Mark:
    """Return the mark of a service, of its row or of the columns `MARKED`."""
    return row.id, row.version, row.suspended, row.withdrawn, now > _heard_until(row)


def next_silence(rows: Iterable[ServiceRow | Row[Any]], now: datetime) -> datetime:
    """Return when the next of these services falls silent if it is not heard of."""
    ends = (_heard_until(row) for row in rows)
    return min((end for end in ends if end >= now), default=FOREVER)


def _heard_until(row: ServiceRow | Row[Any]) -> datetime:
    """Return the last moment at which a service is not silent."""
    return FOREVER if row.interval is None else row.heard_at + timedelta(seconds=MISSED * row.interval)


@dataclass(frozen=True, slots=True)
class Showcase:
    """Shows services to somebody. `base` is the URL of the Mp1 APIs; `host` is where the consumer runs, if it does."""

    base: str
    token_endpoint: str
    host: str | None
    owner: str | None

    def show(self, row: ServiceRow, now: datetime) -> ServiceInfo:
        """Return the service as MEC 011 shows it."""
        document = {name: value for name, value in row.document.items() if name not in {"transportId", "_links"}}
        document["serInstanceId"] = row.id
        document["state"] = shown_state(row, now).value
        document["transportInfo"] = self._transport(document["transportInfo"])
        document["_links"] = {"self": {"href": f"{self.base}/applications/{row.instance}/services/{row.id}"}}
        document.pop("livenessInterval", None)
        if row.interval is not None:
            document["livenessInterval"] = row.interval
            document["_links"]["liveness"] = {"href": f"{self.base}/services/{row.id}/liveness"}
        if row.instance != self.owner:
            document["isLocal"] = self.is_local(row)
        return ServiceInfo.model_validate(document)

    def is_local(self, row: ServiceRow) -> bool:
        """Return whether service and consumer share the locality; a consumer outside of all hosts shares the system."""
        if row.document.get("scopeOfLocality") == LocalityType.MEC_SYSTEM.value:
            return True
        return self.host is None or self.host == row.host

    def offers(self, row: ServiceRow, query: ServiceQuery) -> bool:
        """Return whether the consumer finds this service with this query."""
        document = row.document
        local_only = bool(document["consumedLocalOnly"])
        if row.instance != self.owner and (row.withdrawn or (local_only and not self.is_local(row))):
            return False
        wanted = (
            (query.ids is None or row.id in query.ids)
            and (query.names is None or row.name in query.names)
            and (query.category is None or row.category == query.category)
        )
        return (
            wanted
            and (query.scope is None or document["scopeOfLocality"] == query.scope.value)
            and (query.consumed_local_only is None or local_only == query.consumed_local_only)
            and (query.is_local is None or self.is_local(row) == query.is_local)
        )

    def _transport(self, transport: dict[str, Any]) -> dict[str, Any]:
        """Write our own token endpoint over whatever an application announced: tokens are asked for here only."""
        security = dict(transport.get("security") or {})
        if "oAuth2Info" in security:
            security["oAuth2Info"] = {**security["oAuth2Info"], "tokenEndpoint": self.token_endpoint}
        return {**transport, "security": security}


@dataclass(frozen=True, slots=True)
class KeptList:
    """A list as it was written out: for a consumer on which host, out of services with which marks.

    It holds while the database has that version (which was read before the rows), and until some service falls silent.
    """

    host: str | None
    marks: tuple[Mark, ...]
    body: bytes
    version: int | None
    until: datetime


class Lists:
    """Lists of services as they were last written out, each for one who asks and one query of theirs.

    A list is given again while the database has the same version and no service fell silent (`unchanged`), or if the
    marks of the rows that were read for this very request are the same (`find`).
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], KeptList] = {}
        self._octets = 0

    def unchanged(self, key: tuple[object, ...], version: int | None, now: datetime) -> bytes | None:
        """Return the list under a key if nothing was written since it was, whatever its services, or None."""
        known = self._known.get(key)
        if known is None or version is None or known.version != version or now >= known.until:
            return None
        return known.body

    def find(self, key: tuple[object, ...], host: str | None, marks: tuple[Mark, ...]) -> bytes | None:
        """Return the list under a key that was written for a consumer there out of services with these marks."""
        known = self._known.get(key)
        return known.body if known is not None and (known.host, known.marks) == (host, marks) else None

    def keep(self, key: tuple[object, ...], kept: KeptList) -> None:
        """Keep a list, instead of the one before."""
        if self._octets > MOST_KEPT or len(self._known) >= MOST_LISTS:
            self._known.clear()
            self._octets = 0
        self._known[key] = kept
        self._octets += len(kept.body)
