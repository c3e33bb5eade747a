"""The node's next image: asked for at the site, fetched from its registry, handed to the keeper of the disk, and tried.

1. The site says which image the node should have. Where that is what it starts, or what failed here for this order,
   there is nothing to do.
2. The registry's site admits the image: signed, promoted to production, not denied.
3. Its manifest in the registry has the digest of the order, and names manifest.json; the keeper gets what that names.
4. It is admitted still: somebody may have denied it while it came.
5. An open box announces its reboot. Then the keeper restarts the machine into the trial.

What became of it is told to the site, also by the image that came back. An order that is refused is tried again after
longer and longer; what fell back is not, until an operator says so.
"""

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from umec_attest.agent.errors import AgentError, AnswerInvalid, NotAttested
from umec_attest.agent.fields import Fields
from umec_attest.agent.keeper import KeeperStatus, read_status, take, try_taken
from umec_attest.agent.loop import Agent
from umec_attest.agent.pace import Pace, pause, spread
from umec_attest.agent.report import Report
from umec_attest.agent.transport import Answer, json_body
from umec_attest.agent.wire import read_answer
from umec_core.errors import UmecError
from umec_core.remote import RemoteRefused, refusal

__all__ = ["Order", "Updates", "updating"]

LOOK_SECONDS: Final = 60.0
"""Between two questions for the image that the node should have."""
REFUSED: Final = Pace(first=60.0, longest=3600.0)
"""After a refusal: an image is some hundred megabytes, and whoever has to mend something needs a while."""
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
TITLE: Final = "org.opencontainers.image.title"
PAPERS: Final = "manifest.json"
NODE_SCOPE: Final = "node:host"
PULL: Final = "images:pull"
BACK_SECONDS: Final = 1800
"""In which an open box that restarts is back, with the new image or with the old one."""
RESTARTS: Final = 2
"""Into the trial, and out of it where it does not come up at all."""
NOT_OPEN: Final = "node-class-other"
"""What the verifier says where boots need no announcement."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY: Final = re.compile(r"[a-z0-9-]{1,63}/[a-z0-9._-]{1,191}")
_REGISTRY: Final = re.compile(r"https://[^/?#\s@]{1,255}")


@dataclass(frozen=True, slots=True)
class Order:
    """Which image the node should have: `manifest` and `kernel` are the digests of manifest.json and uki.efi."""

    registry: str
    repository: str
    digest: str
    version: int
    manifest: str
    kernel: str
    attempt: int

    @classmethod
    def read(cls, fields: Fields) -> "Order":
        """Return it; raises FieldInvalid."""
        return cls(
            registry=fields.text("registry", longest=512, pattern=_REGISTRY),
            repository=fields.text("repository", longest=255, pattern=_REPOSITORY),
            digest=fields.text("digest", longest=71, pattern=_DIGEST),
            version=fields.integer("version"),
            manifest=fields.text("manifest", longest=71, pattern=_DIGEST),
            kernel=fields.text("kernel", longest=71, pattern=_DIGEST),
            attempt=fields.integer("attempt"),
        )


@dataclass(frozen=True, slots=True)
class _Ordered:
    order: Order | None

    @classmethod
    def read(cls, fields: Fields) -> "_Ordered":
        return cls(fields.optional("order", lambda name: Order.read(fields.inside(name))))


class Updates:
    """Follows what the site orders for one node. `folder` is the keeper's."""

    def __init__(self, agent: Agent, folder: Path, url: str, report: Report) -> None:
        self._agent = agent
        self._folder = folder
        self._api = f"{url}/platform/v1"
        self._verifier = f"{url}/attest/v1"
        self._report = report
        self._told: Mapping[str, Any] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop` is set; what failed is told and tried again."""
        failures = 0
        while not stop.is_set():
            wait = spread(LOOK_SECONDS)
            try:
                await self.look()
                failures = 0
            except NotAttested:
                wait = 5.0  # no credentials yet
            except UmecError as error:
                failures += 1
                wait = REFUSED.after(failures, asked=error.retry_after)
                self._say("update-refused", code=error.code, detail=error.detail, retry_seconds=round(wait, 1))
            except Exception as error:  # noqa: BLE001 - it is told: a node attests also where its updates are broken
                failures += 1
                wait = REFUSED.after(failures)
                detail = f"{type(error).__name__}: {error}"
                self._say("update-broken", code=AgentError.code, detail=detail, retry_seconds=round(wait, 1))
            await pause(stop, wait)

    async def look(self) -> None:
        """Do what the site orders. Raises UmecError, after the site was told."""
        status = read_status(self._folder)
        if status is None:
            return
        order = await self._order(status)  # 1
        if order is None or not _wanted(order, status):
            await self._tell(status, order, None)
            return
        try:
            await self._carry_out(order)
        except UmecError as error:
            if not isinstance(error, NotAttested):
                await self._tell(read_status(self._folder) or status, order, error)
            raise

    async def _order(self, status: KeeperStatus) -> Order | None:
        query = "" if status.image is None else f"?{urlencode({'image': status.image})}"
        answer = await self._call("GET", f"{self._api}/node-image{query}", self._api, NODE_SCOPE)
        return read_answer(_Ordered, answer).order

    async def _carry_out(self, order: Order) -> None:
        await self._admitted(order)  # 2
        papers = await self._papers(order)  # 3
        layers = _layers(papers.layers)
        self._say("update-begun", version=order.version, digest=order.digest)

        @contextlib.asynccontextmanager
        async def part(name: str, size: int) -> AsyncIterator[AsyncIterator[bytes]]:
            if name == PAPERS:
                yield _one(papers.content)
                return
            layer = layers.get(name)
            if layer is None or layer[1] != size:
                raise AnswerInvalid(f"the registry has no {name} of {size} bytes for this image")
            async with self._agent.download(
                self._blob(order, layer[0]), resource=f"{order.registry}/", scope=PULL
            ) as pieces:
                yield _exactly(pieces, size)

        manifest = order.manifest.removeprefix("sha256:")
        await take(self._folder, manifest=manifest, size=len(papers.content), attempt=order.attempt, parts=part)
        await self._admitted(order)  # 4
        await self._announce(order)  # 5
        await self._tell(read_status(self._folder), order, None)
        self._say("update-tried", version=order.version, digest=order.digest)
        await try_taken(self._folder, manifest)

    async def _admitted(self, order: Order) -> None:
        tenant = order.repository.partition("/")[0]
        asked = {"tenant": tenant, "repository": order.repository, "digest": order.digest, "stage": "production"}
        url = f"{order.registry}/images/v1/admission?{urlencode(asked)}"
        said = _object(await self._call("GET", url, f"{order.registry}/", PULL))
        if said.get("admitted") is not True:
            raise RemoteRefused(str(said.get("code")), str(said.get("detail")), status=422)

    async def _papers(self, order: Order) -> "_Papers":
        resource = f"{order.registry}/"
        url = f"{order.registry}/v2/{order.repository}/manifests/{order.digest}"
        answer = await self._call("GET", url, resource, PULL, headers={"Accept": MANIFEST})
        _same(answer.content, order.digest)
        layers = _object(answer).get("layers")
        found = _layers(layers).get(PAPERS)
        if found is None or found[0] != order.manifest:
            raise AnswerInvalid("the image in the registry has another manifest.json than the order")
        content = (await self._call("GET", self._blob(order, order.manifest), resource, PULL)).content
        _same(content, order.manifest)
        return _Papers(content, layers)

    async def _announce(self, order: Order) -> None:
        """Announce the restart where that is asked of the node: an open box would be degraded by it."""
        content, kind = json_body({"seconds": BACK_SECONDS, "resets": RESTARTS, "reason": f"update {order.digest}"})
        try:
            await self._call(
                "POST", f"{self._verifier}/reboots", self._verifier, NODE_SCOPE, content=content, headers=kind
            )
        except RemoteRefused as error:
            if error.code != NOT_OPEN:
                raise

    async def _tell(self, status: KeeperStatus | None, order: Order | None, error: UmecError | None) -> None:
        """Tell the site what has become of it, where that is news."""
        if status is None:
            return
        code, detail = (status.code, status.detail) if error is None else (error.code, error.detail)
        about = order is not None and status.manifest == order.manifest.removeprefix("sha256:")
        said: dict[str, Any] = {
            "image": status.image,
            "running": status.running,
            "confirmed": status.confirmed,
            "phase": status.phase,
            "version": status.version if error is None or order is None else order.version,
            "manifest": None if status.manifest is None else f"sha256:{status.manifest}",
            "digest": order.digest if order is not None and (about or error is not None) else None,
            "code": code,
            "detail": detail[:500],
        }
        if said == self._told:
            return
        content, kind = json_body(said)
        await self._call("POST", f"{self._api}/node-image", self._api, NODE_SCOPE, content=content, headers=kind)
        self._told = said

    async def _call(
        self,
        method: str,
        url: str,
        resource: str,
        scope: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        answer = await self._agent.call(
            method, url, resource=resource, scope=scope, content=content, headers=headers or {}
        )
        if not 200 <= answer.status < 300:
            raise refusal(answer.status, answer.content, answer.headers.get("retry-after"))
        return answer

    def _blob(self, order: Order, digest: str) -> str:
        return f"{order.registry}/v2/{order.repository}/blobs/{digest}"

    def _say(self, event: str, **more: object) -> None:
        self._report({**self._agent.line(event), **more})


@contextlib.asynccontextmanager
async def updating(updates: Updates | None, stop: asyncio.Event) -> AsyncIterator[None]:
    """Follow the site's orders while the context lasts, or until `stop` is set; sets it where that ends by itself.

    Raises what ended it: without it the node would run on, and nobody would see that it takes no updates.
    """
    if updates is None:
        yield
        return
    following = asyncio.create_task(updates.run(stop))
    following.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


@dataclass(frozen=True, slots=True)
class _Papers:
    content: bytes
    layers: object


def _wanted(order: Order, status: KeeperStatus) -> bool:
    """Tell whether there is something to do for an order."""
    if status.kernel is None or status.phase == "trial":
        return False
    if order.kernel == f"sha256:{status.kernel}":
        return False
    same = order.manifest == f"sha256:{status.manifest}"
    return not (same and status.phase == "failed" and order.attempt <= status.attempt)


def _layers(said: object) -> dict[str, tuple[str, int]]:
    """Return digest and size of each layer by its title; what is none is left out."""
    found: dict[str, tuple[str, int]] = {}
    for each in said if isinstance(said, list) else []:
        match each:
            case {"digest": str(digest), "size": int(size), "annotations": dict(notes)} if _DIGEST.fullmatch(digest):
                found[str(notes.get(TITLE))] = (digest, size)
    return found


def _object(answer: Answer) -> dict[str, Any]:
    try:
        said = json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        raise AnswerInvalid(f"{answer.path} does not answer in JSON") from error
    if not isinstance(said, dict):
        raise AnswerInvalid(f"{answer.path} answers no object")
    return said


def _same(content: bytes, digest: str) -> None:
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if found != digest:
        raise AnswerInvalid(f"the registry sent {found}, and {digest} was asked for")


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _exactly(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """Return what was asked for, and read no more than that. Raises AnswerInvalid where less comes."""
    async for piece in pieces:
        yield piece[:size]
        size -= len(piece[:size])
        if not size:
            return
    if size:
        raise AnswerInvalid(f"the registry ends {size} bytes before the end of a part")
