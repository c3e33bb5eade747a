"""`/platform/v1/relay`: by which the relay of a node serves its own host, and no other."""

from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import StringConstraints, ValidationError

from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_platform.api import own_node
from umec_platform.errors import AnswerInvalid, NotANode
from umec_platform.hosts.relays import Relays
from umec_platform.hosts.service import Hosts
from umec_platform.hosts.wire import RELAY, WAIT, Handed, Opened, inflate
from umec_platform.netd.messages import Reply

__all__ = ["relay_router"]

SCOPE: Final = "node:host"

log = structlog.get_logger("umec.relay")

Session = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


def relay_router(verifier: TokenVerifier, hosts: Hosts, relays: Relays, *, registry: str) -> APIRouter:
    """Return the endpoints; `registry` is the URL of the registry listener, where nodes fetch images."""
    router = APIRouter(prefix=RELAY)
    caller = Annotated[Principal, Depends(require(verifier, SCOPE))]

    @router.post("")
    async def begin(who: caller) -> Response:
        node, generation = _node(who)
        await hosts.by_relay(node)
        opened = Opened(session=relays.open(node, generation), registry=registry, wait_seconds=WAIT)
        log.info("relay began", node=node)
        return JSONResponse(opened.model_dump(), status_code=201)

    @router.get("/{session}/requests")
    async def requests(
        session: Session, who: caller, after: Annotated[int, Query(ge=0, lt=2**53)] = 0
    ) -> dict[str, Any]:
        node, generation = _node(who)
        return Handed(requests=await relays.requests(node, generation, session, after=after)).model_dump()

    @router.post("/{session}/answers", status_code=204, response_class=Response)
    async def answer(session: Session, who: caller, request: Request) -> None:
        node, _ = _node(who)
        relays.answer(node, session, _reply(await request.body()))

    return router


def _node(who: Principal) -> tuple[str, int]:
    """Return the node that asks in its own name, and its generation; raises `NotANode`."""
    node = own_node(who)
    if who.generation is None:
        raise NotANode("the token names no generation of its node")
    return node, who.generation


def _reply(body: bytes) -> Reply:
    try:
        return Reply.model_validate_json(inflate(body))
    except ValidationError as error:
        raise AnswerInvalid("this is no answer of a netd") from error
    except ValueError as error:
        raise AnswerInvalid(str(error)) from error
