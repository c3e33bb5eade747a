"""What a boot measured into the PCRs that findings are about: the events, and which of them a good node has, too. Pure.

A reference set says what a PCR must hold, not which event made it. So the events of a node that is trusted with the
same image stand in for that: what it has not measured is where the two boots differ.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from umec_attest.bootlog import RawBootLog, RawEvent
from umec_attest.bootlog.event_types import EV_NO_ACTION, type_name
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["measured_events", "pcrs_in"]

MAX_EVENTS: Final = 64
"""Events that are shown: a firmware measures some twenty into its busiest PCR."""
MAX_TEXT: Final = 160
"""Characters of an event's data that are shown."""
PCR: Final = re.compile(r"\bPCR (\d{1,2})\b")
"""How the details of our findings name a PCR."""


def pcrs_in(findings: Iterable[Mapping[str, str]]) -> tuple[int, ...]:
    """Return the PCRs that findings are about, in order."""
    return tuple(sorted({int(found[1]) for finding in findings if (found := PCR.search(finding["detail"]))}))


def measured_events(log: RawBootLog, pcrs: Iterable[int], good: RawBootLog | None) -> list[dict[str, Any]]:
    """Return the events of some PCRs: PCR, type, digest (hex), readable data, and whether the good log has it, too."""
    wanted, bank = set(pcrs), _bank(log)
    known = None if good is None else {(event.pcr, event.digest(bank)) for event in good.events}
    shown = []
    for event in log.events:
        if event.pcr not in wanted or event.type == EV_NO_ACTION:
            continue
        digest = event.digest(bank)
        shown.append(
            {
                "pcr": event.pcr,
                "type": type_name(event.type),
                "digest": None if digest is None else digest.hex(),
                "data": _readable(event),
                "as_expected": None if known is None else (event.pcr, digest) in known,
            }
        )
    return shown[:MAX_EVENTS]


def _bank(log: RawBootLog) -> HashAlgorithm:
    return HashAlgorithm.SHA256 if HashAlgorithm.SHA256 in log.algorithms else log.algorithms[0]


def _readable(event: RawEvent) -> str:
    """Return the text in an event's data: UTF-16 and ASCII alike, other bytes as dots."""
    data = event.data[: 2 * MAX_TEXT]
    text = data.decode("utf-16-le" if data[1:2] == b"\0" else "ascii", "replace")
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "." for letter in text)
    return plain.strip(".")[:MAX_TEXT]
