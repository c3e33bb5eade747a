"""Hosts on other machines: a relay of the node asks for the requests to its netd, and hands the answers in.

The node dials out; nothing of it listens. Of each node there is one session, and a newer one ends an older:

1. A request waits, numbered, until a relay asks for it; it is handed out until it is answered or nobody waits for it.
2. Whoever waits gets the answer, or `HostSilent`: no relay asks any more, it was replaced, or the time is over.
3. A node that has fallen is handed one thing only: the statement that says so. So an honest netd hears of it at once.

What a late request could do is bounded: a relay throws away what was under way for longer than it may be (`relay`), and
netd's operations set a state, so that the same once more changes nothing; an instance is stopped before it is started.
"""

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.standing import StandingView
from umec_platform.errors import AnswerLate, HostSilent, NoRelay, RelayReplaced
from umec_platform.hosts.ports import Connect, HostDriver
from umec_platform.hosts.schemas import BY_RELAY
from umec_platform.hosts.wire import WAIT, ImagePull, Request
from umec_platform.netd.client import TIMEOUT, NetdOperations, Result, new_id, result_of
from umec_platform.netd.messages import Reply, Standing

__all__ = ["RelayDriver", "Relays"]

SILENT: Final = 15.0
"""Seconds without an ask of a relay after which nobody waits for it: it asks again at once, or after a short pause."""

LOOK: Final = 1.0
"""Seconds between looks at whether a relay still asks."""

MOST_OPEN: Final = 64
"""Requests to one host that are not answered yet: its worker makes one or two, each start of an instance one.

Statements about its standing are not among them: without them its lease would end.
"""

MOST_LOGS: Final = 8
"""Logs of one host that are asked for at once: that many a tenant may, and the other requests are left their room."""

MOST_HANDED: Final = 4 * 1024 * 1024
"""Octets that one ask is given, unless a single request is larger."""

PULL_TIME: Final = 600.0
"""Seconds for an image: half a gigabyte at seven megabits a second."""

GRACE: Final = 3.0
"""Seconds that the last ask of a node that has fallen waits on for the statement that says so: it comes within two."""


@dataclass(slots=True)
class _Waiting:
    """A request that is not answered yet."""

    seq: int
    line: bytes
    answer: "asyncio.Future[Reply]"
    says_so: bool
    """Whether it is a statement about the node's standing, which goes to one that has fallen, too."""
    handed: bool = False


@dataclass(slots=True)
class _Line:
    """The line to one node: its session, and who waits."""

    session: str
    generation: int
    seen: float
    asking: int = 0
    seq: int = 0
    waiting: dict[str, _Waiting] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Relays:
    """The lines to all nodes that have a relay."""

    def __init__(self, view: StandingView, clock: Clock, *, silent: float = SILENT) -> None:
        self._view = view
        self._clock = clock
        self._silent = silent
        self._lines: dict[str, _Line] = {}
        self._resting = False

    def rest(self) -> None:
        """Have nobody wait for requests any more: the platform ends, and its listeners soon."""
        self._resting = True
        for line in self._lines.values():
            line.news.set()

    def connecting(self, connect: Connect) -> Connect:
        """Return what makes a driver of any address: of those by relay here, of others by `connect`."""

        def chosen(address: str) -> HostDriver:
            if address.startswith(BY_RELAY):
                return RelayDriver(self, address.removeprefix(BY_RELAY))
            return connect(address)

        return chosen

    def open(self, node: str, generation: int) -> str:
        """Begin a session of a node; what was handed to an earlier one has failed."""
        line = self._lines.get(node)
        session = secrets.token_hex(16)
        if line is None:
            self._lines[node] = _Line(session, generation, _now())
            return session
        for one in line.waiting.values():
            if one.handed:
                _fail(one, f"the relay of node {node} began anew")
        line.session, line.generation, line.seen = session, generation, _now()
        line.news.set()  # who asks in the former session learns of it
        return session

    async def requests(
        self, node: str, generation: int, session: str, *, after: int, wait: float = WAIT
    ) -> list[Request]:
        """Return the requests after that number, as soon as there are some, or none; raises as `answer`."""
        line = self._of(node, session)
        line.generation = generation
        deadline, grace = _now() + wait, GRACE
        line.asking += 1
        try:
            while not (found := self._handed(node, line, after)) and not self._resting:
                line.news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await line.news.wait()
                self._of(node, session)
                if _now() < deadline:
                    continue
                if self._stands(node, line) or not grace:
                    return []
                deadline, grace = _now() + grace, 0.0
            return found
        finally:
            line.asking -= 1
            if line.session == session:
                line.seen = _now()

    def answer(self, node: str, session: str, reply: Reply) -> None:
        """Give an answer to who waits for it; raises `NoRelay`, `RelayReplaced`, and `AnswerLate` if nobody does."""
        found = self._of(node, session).waiting.get(reply.id)
        if found is None or not found.handed or found.answer.done():
            raise AnswerLate("nobody waits for this answer")
        found.answer.set_result(reply)

    async def carry(self, node: str, line: bytes, identifier: str, *, seconds: float, says_so: bool = False) -> Reply:
        """Have a node's relay carry a request, and return the answer; raises `HostSilent`."""
        known = self._lines.get(node)
        if known is None:
            raise _silent(node)
        if not says_so and len(known.waiting) >= MOST_OPEN:
            raise HostSilent(f"{MOST_OPEN} requests to node {node} are not answered yet")
        if not (says_so or self._stands(node, known)):
            raise HostSilent(f"node {node} does not stand: its relay is handed nothing")
        known.seq += 1
        one = _Waiting(known.seq, line, asyncio.get_running_loop().create_future(), says_so)
        known.waiting[identifier] = one
        known.news.set()
        try:
            return await self._answered(node, known, one, _now() + seconds)
        finally:
            del known.waiting[identifier]

    async def _answered(self, node: str, line: _Line, one: _Waiting, deadline: float) -> Reply:
        while not one.answer.done():
            if _now() >= deadline or not self._listens(line):
                raise _silent(node)
            await asyncio.wait([one.answer], timeout=min(LOOK, deadline - _now()))
        return one.answer.result()

    def _handed(self, node: str, line: _Line, after: int) -> list[Request]:
        found: list[Request] = []
        room = MOST_HANDED
        for one in line.waiting.values():
            if one.seq <= after or one.answer.done() or not (one.says_so or self._stands(node, line)):  # 3
                continue
            if found and len(one.line) > room:
                break
            room -= len(one.line)
            one.handed = True
            found.append(Request(seq=one.seq, line=one.line.decode()))
        return found

    def _stands(self, node: str, line: _Line) -> bool:
        try:
            self._view.check(node, line.generation, self._clock())
        except UmecError:
            return False
        return True

    def _listens(self, line: _Line) -> bool:
        return line.asking > 0 or _now() - line.seen < self._silent

    def _of(self, node: str, session: str) -> _Line:
        line = self._lines.get(node)
        if line is None:
            raise NoRelay(f"no relay of node {node} has begun", advice="begin a session")
        if not secrets.compare_digest(line.session, session):
            raise RelayReplaced(f"another relay of node {node} has begun", advice="see that there is one only")
        return line


class RelayDriver(NetdOperations):
    """The netd of a node, by the relay of that node."""

    def __init__(self, relays: Relays, node: str) -> None:
        self._relays = relays
        self._node = node
        self._logs = 0

    async def carry(self, request: BaseModel, line: bytes) -> Reply:
        """Carry a request there and return the answer; raises `HostSilent`."""
        identifier, says_so = str(getattr(request, "id", "")), isinstance(request, Standing)
        return await self._relays.carry(self._node, line, identifier, seconds=TIMEOUT, says_so=says_so)

    async def pull(self, repository: str, digest: str) -> Path:
        """Have the node fetch an image from the registry; returns the folder on its own disk."""
        request = ImagePull(id=new_id(), repository=repository, digest=digest)
        line = request.model_dump_json().encode()
        reply = await self._relays.carry(self._node, line, request.id, seconds=PULL_TIME)
        return Path(str(result_of(reply)["folder"]))

    async def instance_log(self, instance: str, *, lines: int) -> Result:
        """Return the last lines that an instance wrote; raises `HostSilent` where too many wait for such already."""
        if self._logs >= MOST_LOGS:
            raise HostSilent(f"{MOST_LOGS} logs of node {self._node} are asked for already", advice="ask again later")
        self._logs += 1
        try:
            return await super().instance_log(instance, lines=lines)
        finally:
            self._logs -= 1


def _silent(node: str) -> HostSilent:
    return HostSilent(
        f"no relay of node {node} asks for requests, or answers",
        advice="is `umec host relay` running there, and the node trusted?",
    )


def _fail(one: _Waiting, why: str) -> None:
    if not one.answer.done():
        one.answer.set_exception(HostSilent(why))
        one.answer.exception()  # whoever waits hears of it; if nobody does any more, nobody has to


def _now() -> float:
    return asyncio.get_running_loop().time()
