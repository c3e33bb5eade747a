"""What a node started for applications since its boot: judged from where it was judged before.

Where an image keeps such a log, its reference set says so. A node that started nothing has none, and PCR 15 proves it.
"""

import json
from datetime import datetime

from umec_attest.errors import StartLogMismatch, StartLogOutdated, StartLogRefused
from umec_attest.quote import VerifiedQuote
from umec_attest.reference import ReferenceSet
from umec_attest.service.errors import (
    BootLogRequired,
    NonceSuperseded,
    RuntimeListContinues,
    StartLogPartTooLong,
)
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.evidence.state import NodeState
from umec_attest.starts.checkpoint import StartCheckpoint
from umec_attest.starts.decisions import DecisionRules
from umec_attest.starts.entry import MAX_PART
from umec_attest.starts.judge import StartsJudged, judge_starts, quoted_starts

__all__ = ["begun_anew", "judge_start_log", "kept_starts", "wanted_starts"]


def wanted_starts(node: NodeState, reference: ReferenceSet) -> int | None:
    """Return from which start on a node's log is wanted (0: the whole one), or None where its image keeps none."""
    return _checkpoint(node).entries if reference.starts else None


def judge_start_log(
    node: NodeState,
    request: EvidenceRequest,
    quote: VerifiedQuote,
    reference: ReferenceSet,
    *,
    rules: DecisionRules,
    asked_at: datetime,
    now: datetime,
) -> StartsJudged | StartLogRefused | None:
    """Return what a log is worth, why it is refused, or None where it is missing, or the image keeps none.

    `asked_at` is when the challenge was made. Raises `NonceSuperseded` where meanwhile another part of the log is
    wanted, `BootLogRequired` after a boot, `RuntimeListContinues` where the part that came is good, and does not reach
    the quote, `StartLogPartTooLong` for one that is not looked at.
    """
    if not reference.starts:
        return None
    before, data = _checkpoint(node), request.starts
    if data is None:
        if before.entries == 0 and quoted_starts(quote) != before.pcr:
            return None
        data = b""  # nothing was started since; where that is not so, it does not replay
    elif request.starts_from != before.entries:
        raise NonceSuperseded("meanwhile another part of the log of starts is wanted", advice="ask for a new challenge")
    elif data.count(b"\n") > MAX_PART:
        raise StartLogPartTooLong(
            f"a part of the log of starts has at most {MAX_PART} lines", advice="send fewer at once"
        )
    try:
        judged = judge_starts(
            data,
            quote,
            before,
            node=node.id,
            rules=rules,
            asked_at=asked_at,
            now=now,
            more=request.starts_more,
        )
    except StartLogOutdated as error:
        raise BootLogRequired(error.detail, advice="send boot log and log of starts anew", booted=True) from error
    except StartLogMismatch as error:
        return None if request.starts is None else error
    except StartLogRefused as error:
        return error
    if not judged.whole:
        raise RuntimeListContinues(judged.checkpoint)
    return judged


def kept_starts(node: NodeState, starts: StartsJudged | StartLogRefused | None) -> str | None:
    """Return what a node's row keeps of a judged log (JSON), for the next round: what was refused changes nothing."""
    return json.dumps(starts.checkpoint.to_json()) if isinstance(starts, StartsJudged) else node.start_checkpoint


def begun_anew(kept: str | None) -> str | None:
    """Return what a node's row keeps after a boot (JSON)."""
    return None if kept is None else json.dumps(_read(kept).of_next_boot().to_json())


def _checkpoint(node: NodeState) -> StartCheckpoint:
    return StartCheckpoint() if node.start_checkpoint is None else _read(node.start_checkpoint)


def _read(kept: str) -> StartCheckpoint:
    return StartCheckpoint.from_json(json.loads(kept))
