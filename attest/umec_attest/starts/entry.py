"""One start, as it is logged and extended: a line of JSON in its one spelling.

    {"boot":7,"decision":"eyJ…","image":"sha256:…","instance":"cam-1","node":"pole-17","number":0,"tenant":"acme",
     "time":1795369200}

`boot` is the resetCount of the TPM, `number` counts the starts of a boot from 0, `time` is that of the node, in seconds
since 1970, and `decision` the JWT by which the site admitted this start. PCR 15 (SHA-256) is extended with the SHA-256
of the line without its line break.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from umec_attest.errors import StartLogInvalid
from umec_core.jose import JwtMalformed, strict_json

__all__ = [
    "MAX_DECISION",
    "MAX_ENTRIES",
    "MAX_ENTRY",
    "MAX_LOG",
    "MAX_OF_TENANT",
    "MAX_PART",
    "STARTS_PCR",
    "StartEntry",
    "extended",
    "parse_start",
]

STARTS_PCR: Final = 15
"""Nothing else in our images extends it: systemd would, with the volumes that it opens."""
MAX_DECISION: Final = 7 * 1024
"""Characters; a decision with three policies has some 800."""
MAX_ENTRY: Final = 8 * 1024
"""Bytes of a line: a decision, and 500 for the rest."""
MAX_ENTRIES: Final = 8192
"""Starts of one boot: with twenty a day, they last a year; the log of all of them has some 8 MB."""
MAX_LOG: Final = MAX_ENTRIES * 1024
"""Bytes of the log, which lies where a node keeps its own state."""
MAX_OF_TENANT: Final = MAX_ENTRIES // 4
"""Starts of one tenant in one boot: no tenant takes the room of the others."""

MAX_PART: Final = 512
"""Lines of one part of a log: some 80 ms of work. An agent sends 256 KiB at once, and a decided start has 600 bytes."""

MAX_COUNT: Final = 2**32 - 1
MAX_TIME: Final = 2**40

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TEXTS: Final = {
    "decision": re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII),
    "image": re.compile(r"sha256:[0-9a-f]{64}"),
    "instance": _NAME,
    "node": _NAME,
    "tenant": _NAME,
}
_NUMBERS: Final = {"boot": MAX_COUNT, "number": MAX_ENTRIES - 1, "time": MAX_TIME}


@dataclass(frozen=True, slots=True)
class StartEntry:
    """What was started (`image`: the digest of its manifest), for whom, on which node, and by which decision."""

    boot: int
    number: int
    time: int
    node: str
    tenant: str
    instance: str
    image: str
    decision: str

    def to_bytes(self) -> bytes:
        """Return the line, without its line break."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def parse_start(line: bytes) -> StartEntry:
    """Return the entry of a line without its line break. Errors: `StartLogInvalid`."""
    try:
        members = dict(strict_json(line))
    except JwtMalformed as error:
        raise StartLogInvalid(f"an entry is one JSON object: {error.detail}") from None
    if members.keys() != _TEXTS.keys() | _NUMBERS.keys():
        raise StartLogInvalid("an entry has other members than those of a start")
    wrong = sorted(name for name, value in members.items() if not _fits(name, value))
    if wrong or len(members["decision"]) > MAX_DECISION:
        raise StartLogInvalid(f"of an entry these members are of another form: {', '.join(wrong) or 'decision'}")
    entry = StartEntry(**members)
    if entry.to_bytes() != line:
        raise StartLogInvalid("an entry is spelt in another way than its one")
    return entry


def extended(value: bytes, line: bytes) -> bytes:
    """Return what the PCR is after this line, where it was `value` before."""
    return hashlib.sha256(value + hashlib.sha256(line).digest()).digest()


def _fits(name: str, value: Any) -> bool:  # noqa: ANN401 - whatever JSON gives
    if name in _NUMBERS:
        return type(value) is int and 0 <= value <= _NUMBERS[name]
    return isinstance(value, str) and _TEXTS[name].fullmatch(value) is not None
