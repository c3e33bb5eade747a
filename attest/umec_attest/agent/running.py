"""An agent as a process has it: with its state, its TPM and one thread for it."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from umec_attest.agent.binding import load_binding
from umec_attest.agent.control import only_agent, serve_control
from umec_attest.agent.evidence import BOOT_LOG, RUNTIME_LIST
from umec_attest.agent.loop import ROTATION_PERIOD, Agent
from umec_attest.agent.report import Report
from umec_attest.agent.state import load_state
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.updates import Updates, updating

__all__ = ["Options", "command_line", "run_until_told", "with_agent"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Options:
    """Where the agent finds what it needs; `tcti` None is the one of the enrolment.

    Keys get successors after `rotate_days`; with 0, only when somebody asks for it. Node keys are bound to what the
    `owner` (PEM) approves, and used by the `approval` of what runs; both are given, or none.
    """

    state: Path
    tcti: str | None = None
    boot_log: Path = BOOT_LOG
    save: Path | None = None
    rotate_days: int = ROTATION_PERIOD.days
    runtime_list: Path = RUNTIME_LIST
    owner: Path | None = None
    approval: Path | None = None
    keeper: Path | None = None
    """Folder of the keeper of the node's disk, where the node's image is kept up to date."""


def with_agent(options: Options, report: Report | None, work: Callable[[Agent], Awaitable[R]]) -> R:
    """Give `work` an agent for the enrolled node, and let go of everything afterwards."""
    stored, binding = load_state(options.state), load_binding(options.owner, options.approval)

    async def working() -> R:
        # One thread is enough for a TPM that does one thing at a time; each more costs memory.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with Tpm(options.tcti if options.tcti is not None else stored.tcti) as tpm:
            agent = Agent(
                stored,
                tpm,
                directory=options.state,
                boot_log=options.boot_log,
                runtime_list=options.runtime_list,
                save=options.save,
                report=report,
                rotation=timedelta(days=options.rotate_days) if options.rotate_days else None,
                binding=binding,
            )
            try:
                return await work(agent)
            finally:
                await agent.close()

    return asyncio.run(working())


def run_until_told(options: Options, report: Report) -> None:
    """Attest round after round, and answer at the socket, until SIGTERM or SIGINT. Raises AgentBusy."""

    async def until_told(agent: Agent) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        updates = None if options.keeper is None else Updates(agent, options.keeper, stored.url, report)
        async with serve_control(agent, options.state), updating(updates, stop):
            await agent.run(stop)

    stored = load_state(options.state)
    with only_agent(options.state):
        with_agent(options, report, until_told)


def command_line(options: Options, *, as_json: bool) -> list[str]:
    """Return the words that start an agent with these options as a program of its own.

    Without the command line's libraries it has two thirds of the memory. `-P` takes no module from where it runs.
    """
    words = [sys.executable, "-P", "-m", "umec_attest.agent", "--state", str(options.state)]
    words += ["--boot-log", str(options.boot_log), "--runtime-list", str(options.runtime_list)]
    words += ["--rotate-days", str(options.rotate_days)]
    words += [] if options.save is None else ["--save", str(options.save)]
    words += [] if options.tcti is None else ["--tcti", options.tcti]
    words += [] if options.owner is None else ["--owner", str(options.owner)]
    words += [] if options.approval is None else ["--approval", str(options.approval)]
    return [*words, "--json"] if as_json else words
