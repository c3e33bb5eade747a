"""Runtime measurements (Linux IMA): parse, replay, and only then judge by the policy of a reference set.

bytes -> ImaEntry         parse_ima         well-formed, nothing believed
      -> ImaEntry         verify_ima        they give PCR 10 of a quote, and began on its boot
      -> RuntimeJudged    judge_runtime     all of it in one pass, from a checkpoint on, and what the policy says
"""

from umec_attest.ima.checkpoint import ImaCheckpoint
from umec_attest.ima.entries import IMA_PCR, ImaEntry
from umec_attest.ima.judge import RuntimeJudged, judge_runtime
from umec_attest.ima.lists import parse_ima, replay_ima, verify_ima
from umec_attest.ima.policy import RuntimePolicy, parse_runtime_policy
from umec_attest.ima.seen import SeenByFleet

__all__ = [
    "IMA_PCR",
    "ImaCheckpoint",
    "ImaEntry",
    "RuntimeJudged",
    "RuntimePolicy",
    "SeenByFleet",
    "judge_runtime",
    "parse_ima",
    "parse_runtime_policy",
    "replay_ima",
    "verify_ima",
]
