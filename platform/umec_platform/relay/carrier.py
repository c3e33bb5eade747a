"""Carries requests from the platform to netd and answers back, session after session, until it is cancelled.

1. A session begins; an earlier relay of this node has none any more.
2. Ask for requests, all that came after those that were seen; an ask that lasted longer than it may is thrown away with
   its session, because nobody may wait for what it brings.
3. Each request goes to netd over a connection of its own, as it is; images are fetched here.
4. Each answer is handed in, tried again while the session lasts.

After a failure it waits longer each time, and never in step with other nodes.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from pydantic import ValidationError

from umec_attest.agent.pace import Pace
from umec_core.errors import UmecError, Unavailable
from umec_core.remote import RemoteUnavailable, refusal
from umec_platform.hosts.wire import MAX_ANSWER, RELAY, Handed, ImagePull, Opened, deflate
from umec_platform.netd.client import TIMEOUT, exchange
from umec_platform.netd.errors import MessageTooLarge, NetdUnreachable
from umec_platform.netd.messages import Reply
from umec_platform.relay.doors import AgentSocket, site_client
from umec_platform.relay.images import ImageFolder

__all__ = ["Relay", "RelayLate", "relay_until_told"]

LATE: Final = 10.0
"""Seconds that an ask may last beyond what it waits for: the platform gives a request up after 60."""

PACE: Final = Pace(first=1.0, longest=15.0)
"""Between tries to begin: a node that stands again is served within a round."""

REPLACED: Final = Pace(first=60.0, longest=60.0)
"""When another relay of this node came: two that take each other's place at once would serve nobody."""

LAST_SECONDS: Final = 5.0
"""Seconds that requests have when their session ends; netd answers most within milliseconds."""

TRIES: Final = 5
"""How often an answer is handed in; what fails so often is done again by the platform."""

SCOPE: Final = "node:host"

NETD_SECONDS: Final = TIMEOUT - 10.0
"""How long netd has for an answer, so that the refusal still finds somebody who waits."""

MEBIBYTE: Final = 1024 * 1024

log = structlog.get_logger("umec.relay")


class RelayLate(Unavailable):
    """An ask lasted so long that nobody may wait for what it brings."""

    code = "relay-late"


class Relay:
    """The relay between one netd and its site."""

    def __init__(self, agent: AgentSocket, *, site: str, netd: Path, images: Path, images_mebibytes: int) -> None:
        """`site` is the URL of the management listener; `images` a folder of this relay, of at most that size."""
        self._agent = agent
        self._site = site
        self._netd = str(netd)
        self._images = ImageFolder(agent, images, most=images_mebibytes * MEBIBYTE)

    async def run(self) -> None:
        """Relay until cancelled; once."""
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._images.close)
            await self._sessions()

    async def _sessions(self) -> None:
        failures = 0
        while True:
            pace = PACE
            try:
                async with site_client(self._agent) as http:
                    began = asyncio.get_running_loop().time()
                    await self._session(_Site(self._agent, http, self._site))
            except (UmecError, ValidationError) as error:
                code = error.code if isinstance(error, UmecError) else "answer-invalid"
                lasted = asyncio.get_running_loop().time() - began
                failures = 1 if lasted > PACE.longest else failures + 1
                pace = REPLACED if code == "relay-replaced" else PACE
                pause = pace.after(failures)
                log.warning("relay ended", code=code, detail=str(error), again_in=round(pause, 1))
                await asyncio.sleep(pause)

    async def _session(self, site: "_Site") -> None:
        opened = Opened.model_validate_json(await site.call("POST", ""))  # 1
        log.info("relay began", site=self._site)
        session, after = opened.session, 0
        async with contextlib.AsyncExitStack() as held:
            tasks: set[asyncio.Task[None]] = set()
            held.push_async_callback(_end, tasks)
            while True:
                handed = await self._ask(site, session, after, opened.wait_seconds)  # 2
                for one in handed.requests:
                    if one.seq > after:
                        after = one.seq
                        task = asyncio.create_task(self._serve(site, opened, one.line))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)

    async def _ask(self, site: "_Site", session: str, after: int, wait: float) -> Handed:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            try:
                body = await site.call("GET", f"/{session}/requests?after={after}")
            except RemoteUnavailable as error:
                failures += 1
                if failures == TRIES:
                    raise
                log.info("the site does not answer", detail=error.detail)
                await asyncio.sleep(PACE.after(failures))
                continue
            if loop.time() - began > wait + LATE:
                raise RelayLate("what the site had asked for is too old")
            return Handed.model_validate_json(body)

    async def _serve(self, site: "_Site", opened: Opened, line: str) -> None:
        """Carry one request out and hand its answer in (3, 4)."""
        identifier = ""
        try:
            request: Mapping[str, Any] = json.loads(line)
            identifier = str(request["id"])
            if request["op"] == "image.pull":
                answer = await self._pull(opened.registry, ImagePull.model_validate_json(line))
            else:
                answer = await self._through(line)
            body = deflate(answer)
            if len(body) > MAX_ANSWER:
                raise MessageTooLarge(f"an answer has at most {MAX_ANSWER} octets, deflated")
        except UmecError as error:
            body = _refused(identifier, error)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("the platform sent what is no request", reason=type(error).__name__)
            return
        except OSError as error:
            body = _refused(identifier, NetdUnreachable(f"the node's disk: {error.strerror}"))
        await self._hand_in(site, opened.session, body)

    async def _through(self, line: str) -> bytes:
        try:
            async with asyncio.timeout(NETD_SECONDS):
                answer = await exchange(self._netd, line.rstrip("\n").encode() + b"\n")
            Reply.model_validate_json(answer)
        except (OSError, ValueError, TimeoutError) as error:
            raise NetdUnreachable(f"netd does not answer on its node: {type(error).__name__}") from error
        return answer

    async def _pull(self, registry: str, wish: ImagePull) -> bytes:
        folder = await self._images.fetch(registry, wish.repository, wish.digest)
        log.info("image fetched", repository=wish.repository, digest=wish.digest)
        reply = Reply(id=wish.id, ok=True, result={"folder": str(folder)})
        return reply.model_dump_json(exclude_none=True).encode()

    async def _hand_in(self, site: "_Site", session: str, body: bytes) -> None:
        for tried in range(1, TRIES + 1):
            try:
                await site.call("POST", f"/{session}/answers", body)
            except RemoteUnavailable:
                await asyncio.sleep(PACE.after(tried))
            except UmecError as error:
                log.warning("an answer was not taken", code=error.code, detail=error.detail)
                return
            else:
                return


async def relay_until_told(relay: Relay) -> None:
    """Relay until SIGTERM or SIGINT."""
    relaying = asyncio.create_task(relay.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, relaying.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await relaying


class _Site:
    """The platform's side of a relay, as one connection pool speaks to it."""

    def __init__(self, agent: AgentSocket, http: httpx.AsyncClient, url: str) -> None:
        self._agent = agent
        self._http = http
        self._url = url

    async def call(self, method: str, path: str, content: bytes | None = None) -> bytes:
        """Return the body of a good answer; raises `RemoteUnavailable`, `RemoteRefused`, or why the agent has no token.

        A token of a new certificate is refused on a connection that shows the former one: another is opened then.
        """
        for last in (False, True):
            token = await self._agent.token(f"{self._url}/platform/v1", SCOPE)
            headers = {"Authorization": f"Bearer {token}"}
            try:
                answer = await self._http.request(method, f"{self._url}{RELAY}{path}", content=content, headers=headers)
            except httpx.HTTPError as error:
                raise RemoteUnavailable(f"{self._url}: {error or type(error).__name__}") from error
            if answer.is_success:
                return answer.content
            said = refusal(answer.status_code, answer.content, answer.headers.get("retry-after"))
            if said.code != "token-binding" or last:
                raise said
            self._agent.leave_doors()
        raise AssertionError  # pragma: no cover - the loop ends with an answer


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Let what was handed out come to its end, for a moment: the last may be the statement that the node fell."""
    if tasks:
        await asyncio.wait(tasks, timeout=LAST_SECONDS)
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _refused(identifier: str, error: UmecError) -> bytes:
    reply = Reply(id=identifier, ok=False, code=error.code, kind=error.kind.value, detail=error.detail[:2000])
    return deflate(reply.model_dump_json(exclude_none=True).encode())
