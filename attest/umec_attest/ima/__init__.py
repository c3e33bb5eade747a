"""Runtime measurements (Linux IMA): parse, replay, and only then judge by the policy of a reference set.

bytes -> ImaEntry         parse_ima             well-formed, nothing believed
      -> replayed         verify_ima            the entries give PCR 10 of a verified quote
"""

from umec_attest.ima.checkpoint import ImaCheckpoint
from umec_attest.ima.judge import RUNTIME_WARNINGS, RuntimeJudged
from umec_attest.ima.lists import MAX_FIELD_SIZE, ImaEntry, parse_ima, replay_ima, verify_ima
from umec_attest.ima.policy import RuntimePolicy, parse_runtime_policy

__all__ = [
    "MAX_FIELD_SIZE",
    "RUNTIME_WARNINGS",
    "ImaCheckpoint",
    "ImaEntry",
    "RuntimeJudged",
    "RuntimePolicy",
    "parse_ima",
    "parse_runtime_policy",
    "replay_ima",
    "verify_ima",
]
