"""A secret that the verifier keeps for this node: asked for with the evidence of a round, opened by this TPM alone.

1. Ask for a challenge and collect evidence, as every round does.
2. Send it with the name of the secret; the answer is sealed to this TPM, its PCRs and this boot.
3. Let the TPM open it, within a minute.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from umec_attest.agent.again import ASK_AGAIN, LIST_CONTINUES, MOST_PARTS
from umec_attest.agent.evidence import BOOT_LOG, RUNTIME_LIST, collect
from umec_attest.agent.fields import Fields
from umec_attest.agent.former_keys import KEYS_UNKNOWN, former_states
from umec_attest.agent.platform_client import PlatformClient
from umec_attest.agent.state import NodeState, load_state
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.tpm.sealing import unseal_released
from umec_attest.agent.transport import json_body
from umec_attest.agent.wire import Pcrs, read_answer
from umec_attest.agent.witness import LogWitness
from umec_attest.sealed.release import SealedSecret
from umec_core.clock import Clock, system_clock
from umec_core.remote import RemoteRefused

__all__ = ["Released", "unseal_from_site"]

RELEASE: Final = "/attest/v1/secrets/release"
MAX_BLOB: Final = 4096
TRIES: Final = 3
AGAIN: Final = ASK_AGAIN | {"secret-superseded"}
"""The last: the agent's own round, or an operator, came in between."""


@dataclass(frozen=True, slots=True)
class Released:
    """The answer to `POST /attest/v1/secrets/release`."""

    sealed: SealedSecret

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            SealedSecret(
                public=fields.octets("public", least=1, most=MAX_BLOB),
                duplicate=fields.octets("duplicate", least=1, most=MAX_BLOB),
                encrypted_seed=fields.octets("encrypted_seed", least=1, most=MAX_BLOB),
                pcrs=Pcrs.read(fields.inside("pcrs")).sha256,
                reset_count=fields.integer("reset_count", most=2**32 - 1),
                restart_count=fields.integer("restart_count", most=2**32 - 1),
                clock_until=fields.integer("clock_until"),
            )
        )


async def unseal_from_site(
    directory: Path,
    tpm: Tpm,
    name: str,
    *,
    boot_log: Path = BOOT_LOG,
    runtime_list: Path = RUNTIME_LIST,
    clock: Clock = system_clock,
) -> bytes:
    """Return a secret of the node whose state is in `directory`, unless its verifier's log is believed no more.

    A verifier whose database was restored may know former keys only; they do as well, and the agent goes back to them
    with its next round. Raises AgentError, RemoteRefused (with the verifier's code), RemoteUnavailable.
    """
    LogWitness(directory).check()
    state = load_state(directory)
    former = former_states(directory, state, clock())
    tries = parts = 0
    async with PlatformClient(state.url, state.ca) as platform:
        while True:
            try:
                released = await _ask(platform, state, tpm, name, (boot_log, runtime_list), directory)
                break
            except RemoteRefused as error:
                if error.code == KEYS_UNKNOWN and former:
                    state = former.pop(0)
                    continue
                tries, parts = tries + (error.code in AGAIN), parts + (error.code == LIST_CONTINUES)
                if error.code not in {*AGAIN, LIST_CONTINUES} or tries == TRIES or parts == MOST_PARTS:
                    raise
    return await asyncio.to_thread(tpm.do, lambda esys: unseal_released(esys, released.sealed))  # 3


async def _ask(
    platform: PlatformClient, state: NodeState, tpm: Tpm, name: str, lists: tuple[Path, Path], directory: Path
) -> Released:
    challenge = await platform.challenge(state.node)  # 1
    evidence = await asyncio.to_thread(collect, tpm, state, challenge, *lists, starts=directory)
    body: dict[str, Any] = {"name": name, "evidence": evidence.request(state.node, challenge)}
    content, headers = json_body(body)
    return read_answer(Released, await platform.send("POST", RELEASE, content=content, headers=headers))  # 2
