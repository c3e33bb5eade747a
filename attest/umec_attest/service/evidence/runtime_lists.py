"""What ran on a node since its boot: judged from where it was judged before.

A list that is too long for one body comes in parts, each with a quote of its own. What is kept of a part counts only
when a later one reaches its quote: the replay goes through all of them.
"""

import json
from collections.abc import Collection

from umec_attest.errors import ImaCheckpointOutdated, ImaRefused
from umec_attest.ima import ImaCheckpoint, RuntimeJudged, RuntimePolicy, SeenByFleet, judge_runtime
from umec_attest.quote import VerifiedQuote
from umec_attest.service.errors import BootLogRequired, NonceSuperseded, RuntimeListContinues
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.evidence.state import NodeState

__all__ = ["RuntimeLists", "kept_checkpoint"]


class RuntimeLists:
    """Judges lists of runtime measurements; what is good on one node is known for all."""

    def __init__(self) -> None:
        self._seen = SeenByFleet()

    def wanted(self, node: NodeState, policies: Collection[RuntimePolicy]) -> int | None:
        """Return from which entry on a node's list is wanted (0: the whole one), or None where nothing judges it.

        `policies` are those of the versions of the image that count: by one of them it may have been judged before.
        """
        if not policies:
            return None
        checkpoint = _checkpoint(node, policies)
        return 0 if checkpoint is None else checkpoint.entries

    def judge(
        self,
        node: NodeState,
        request: EvidenceRequest,
        quote: VerifiedQuote,
        policy: RuntimePolicy | None,
        policies: Collection[RuntimePolicy],
    ) -> RuntimeJudged | ImaRefused | None:
        """Return what a list is worth by `policy`, why it is refused, or None where there is none or nothing judges it.

        Raises `NonceSuperseded` where meanwhile another part of the list is wanted, `BootLogRequired` after a boot, or
        where it was judged by another of the policies before, `RuntimeListContinues` where the part that came is good,
        and does not reach the quote.
        """
        if policy is None or request.ima is None:
            return None
        checkpoint = _checkpoint(node, policies)
        if request.ima_from != (0 if checkpoint is None else checkpoint.entries):
            raise NonceSuperseded("meanwhile another part of the list is wanted", advice="ask for a new challenge")
        try:
            judged = judge_runtime(request.ima, quote, checkpoint, policy, more=request.ima_more, seen=self._seen)
        except ImaCheckpointOutdated as error:
            booted = checkpoint is not None and checkpoint.reset_count != quote.clock_info.reset_count
            raise BootLogRequired(error.detail, advice="send boot log and list anew", booted=booted) from error
        except ImaRefused as error:
            return error
        if not judged.whole:
            raise RuntimeListContinues(judged.checkpoint)
        return judged


def kept_checkpoint(runtime: RuntimeJudged | ImaRefused | None) -> str | None:
    """Return what a node's row keeps of a judged list (JSON), for the next round."""
    if isinstance(runtime, RuntimeJudged):
        return json.dumps(runtime.checkpoint.to_json())
    return None


def _checkpoint(node: NodeState, policies: Collection[RuntimePolicy]) -> ImaCheckpoint | None:
    """Return where the list was judged up to, by one of these very policies."""
    if node.runtime_checkpoint is None:
        return None
    checkpoint = ImaCheckpoint.from_json(json.loads(node.runtime_checkpoint))
    return checkpoint if any(checkpoint.policy_sha256 == policy.sha256 for policy in policies) else None
