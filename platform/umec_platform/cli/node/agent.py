"""An agent for a command: the one that runs already, or one for this command alone; and what it reports."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umec_platform.cli.output import emit

if TYPE_CHECKING:
    from umec_attest.agent.loop import Agent, Report

__all__ = ["asked", "reporter", "with_agent"]


def with_agent(
    state: Path,
    tcti: str | None,
    boot_log: Path,
    save: Path | None,
    report: "Report | None",
    work: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - whatever `work` returns
    """Give `work` an agent for the enrolled node, and let go of everything afterwards."""
    from umec_attest.agent.loop import Agent
    from umec_attest.agent.state import load_state
    from umec_attest.agent.tpm import Tpm

    stored = load_state(state)

    async def working() -> Any:  # noqa: ANN401
        # One thread is enough for a TPM that does one thing at a time; each more costs memory.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with Tpm(tcti if tcti is not None else stored.tcti) as tpm:
            agent = Agent(stored, tpm, boot_log=boot_log, save=save, report=report)
            try:
                return await work(agent)
            finally:
                await agent.close()

    return asyncio.run(working())


def asked(state: Path, tcti: str | None, boot_log: Path, request: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """Ask the running agent; where none runs, do a round and answer here."""
    from umec_attest.agent.control import ask, carry_out

    said = asyncio.run(ask(state, request))
    if said is not None:
        return said

    async def own_round(agent: "Agent") -> Mapping[str, Any]:
        await agent.attest()
        await agent.settle()
        return await carry_out(agent, request)

    done: Mapping[str, Any] = with_agent(state, tcti, boot_log, None, None, own_round)
    return done


def reporter(*, as_json: bool) -> "Report":
    """Return what prints a line for each thing that an agent does."""

    def report(line: Mapping[str, Any]) -> None:
        emit(line, as_json=as_json, human=_readable(line))

    return report


def _readable(line: Mapping[str, Any]) -> str:
    head = f"{line['at']} {line['node']} round {line['round']}:"
    match line["event"]:
        case "round":
            findings = "".join(f"\n  {finding['id']}: {finding['detail']}" for finding in line["findings"])
            return f"{head} {line['verdict']}, {line['standing']} (generation {line['generation']}){findings}"
        case "certificate":
            return f"{head} new certificate until {line['expires_at']}"
        case _:
            again = f", again in {line['retry_seconds']} s" if "retry_seconds" in line else ""
            return f"{head} {line['code']}: {line['detail']}{again}"
