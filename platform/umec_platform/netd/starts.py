"""Every start of an instance is measured into the TPM of the node before it takes place: by the agent, which has it."""

from pathlib import Path

from umec_attest.agent.asking import ask
from umec_attest.agent.requests import Start
from umec_core.errors import UmecError
from umec_platform.netd.decisions import Admitted
from umec_platform.netd.errors import StartUnmeasured

__all__ = ["measure_start"]


async def measure_start(agent: Path, admitted: Admitted, decision: str) -> None:
    """Have the agent with the state folder `agent` measure a start, or raise `StartUnmeasured`: there must be none."""
    try:
        said = await ask(agent, Start(admitted.tenant, admitted.instance, admitted.digest, decision))
    except UmecError as error:
        raise StartUnmeasured(f"the node's agent did not measure the start ({error.code}): {error.detail}") from error
    if said is None:
        raise StartUnmeasured(f"no agent of the node answers in {agent}", advice="start it: umec node run")
