"""An agent for a command: the one that runs already, or one for this command alone."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umec_attest.agent.loop import Agent
    from umec_attest.agent.requests import Request
    from umec_attest.agent.running import Options

__all__ = ["asked"]


def asked(options: "Options", request: "Request") -> Mapping[str, Any]:
    """Ask the running agent; where none runs, do a round and answer here."""
    from umec_attest.agent.control import ask, carry_out
    from umec_attest.agent.running import with_agent

    said = asyncio.run(ask(options.state, request))
    if said is not None:
        return said

    async def own_round(agent: "Agent") -> Mapping[str, Any]:
        await agent.attest()
        await agent.settle()
        return await carry_out(agent, request)

    return with_agent(options, None, own_round)
