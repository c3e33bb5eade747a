"""What ran on a node since its boot: judged from where it was judged before, for a node that stands.

A node that does not stand sends its whole list in each round, as it sends its whole boot log: so what felled it is told
again each time, until it boots.
"""

import json

from umec_attest.errors import ImaCheckpointOutdated, ImaRefused
from umec_attest.ima import ImaCheckpoint, RuntimeJudged, RuntimePolicy, SeenByFleet, judge_runtime
from umec_attest.quote import VerifiedQuote
from umec_attest.service.errors import BootLogRequired, NonceSuperseded
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.evidence.state import NodeState
from umec_core.standing import Standing

__all__ = ["RuntimeLists", "kept_checkpoint"]


class RuntimeLists:
    """Judges lists of runtime measurements; what is good on one node is known for all."""

    def __init__(self) -> None:
        self._seen = SeenByFleet()

    def wanted(self, node: NodeState, policy: RuntimePolicy | None) -> int | None:
        """Return from which entry on a node's list is wanted (0: the whole one), or None where nothing judges it."""
        if policy is None:
            return None
        checkpoint = _checkpoint(node, policy)
        return 0 if checkpoint is None else checkpoint.entries

    def judge(
        self, node: NodeState, request: EvidenceRequest, quote: VerifiedQuote, policy: RuntimePolicy | None
    ) -> RuntimeJudged | ImaRefused | None:
        """Return what a list is worth, why it is refused, or None where there is none, or nothing judges it.

        Raises `NonceSuperseded` where meanwhile another part of the list is wanted, `BootLogRequired` after a boot.
        """
        if policy is None or request.ima is None:
            return None
        checkpoint = _checkpoint(node, policy)
        if request.ima_from != (0 if checkpoint is None else checkpoint.entries):
            raise NonceSuperseded("meanwhile another part of the list is wanted", advice="ask for a new challenge")
        try:
            return judge_runtime(request.ima, quote, checkpoint, policy, seen=self._seen)
        except ImaCheckpointOutdated as error:
            raise BootLogRequired(error.detail, advice="send boot log and list anew") from error
        except ImaRefused as error:
            return error


def kept_checkpoint(runtime: RuntimeJudged | ImaRefused | None) -> str | None:
    """Return what a node's row keeps of a judged list (JSON), for the next round."""
    return json.dumps(runtime.checkpoint.to_json()) if isinstance(runtime, RuntimeJudged) else None


def _checkpoint(node: NodeState, policy: RuntimePolicy) -> ImaCheckpoint | None:
    """Return where the list was judged up to, by this very policy, on a node that stands."""
    if node.runtime_checkpoint is None or not Standing(node.standing).stands:
        return None
    checkpoint = ImaCheckpoint.from_json(json.loads(node.runtime_checkpoint))
    return checkpoint if checkpoint.policy_sha256 == policy.sha256 else None
