"""Starts of applications on a node: a log whose entries were extended into PCR 15, each with the site's decision.

bytes -> StartEntry      parse_start      well-formed, nothing believed
      -> StartsJudged    judge_starts     they give PCR 15 of a quote, and the site decided each for this node
"""

from umec_attest.starts.checkpoint import StartCheckpoint
from umec_attest.starts.decisions import DECISION_TYPE, DecisionRules, contradiction
from umec_attest.starts.entry import (
    MAX_DECISION,
    MAX_ENTRIES,
    MAX_ENTRY,
    MAX_LOG,
    MAX_OF_TENANT,
    STARTS_PCR,
    StartEntry,
    extended,
    parse_start,
)
from umec_attest.starts.judge import StartsJudged, judge_starts, quoted_starts

__all__ = [
    "DECISION_TYPE",
    "MAX_DECISION",
    "MAX_ENTRIES",
    "MAX_ENTRY",
    "MAX_LOG",
    "MAX_OF_TENANT",
    "STARTS_PCR",
    "DecisionRules",
    "StartCheckpoint",
    "StartEntry",
    "StartsJudged",
    "contradiction",
    "extended",
    "judge_starts",
    "parse_start",
    "quoted_starts",
]
