"""The one pass over a list in text form: what `binary_of_text` and `walk` do, without the way through the binary form.

A line that the fleet has seen, or that is a listed file in the usual form, is known by its bytes. Any other line is
turned into its entry, and looked at as such.
"""

import hashlib
from binascii import a2b_hex
from io import BytesIO
from typing import Final

from umec_attest.errors import ImaInvalid
from umec_attest.ima.entries import entry_end
from umec_attest.ima.policy import RuntimePolicy
from umec_attest.ima.seen import SeenEntries
from umec_attest.ima.text import binary_of_text
from umec_attest.ima.walk import Strange, Walked, look
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["walk_lines"]

_DIGEST: Final = slice(58, 122)
_NAME: Final = slice(123, -1)
"""Where they stand in a line "10 HASH ima-ng sha256:DIGEST NAME" with its line break."""
_USUAL: Final = b"\x28\0\0\0sha256:\0"


def walk_lines(
    text: bytes, start: bytes, quoted: bytes, *, policy: RuntimePolicy, algorithm: HashAlgorithm, seen: SeenEntries
) -> Walked:
    """Walk from the PCR `start` until the replay gives `quoted`, or to the end: the caller compares.

    Errors: `ImaInvalid`, `ImaTemplateUnknown`. Which of several faults is told is not said: `binary_of_text` and `walk`
    tell, and they decide about a line that may be more than one entry, which is refused here.
    """
    strange: list[Strange] = []
    value, count, lines = start, 0, BytesIO(text)
    hashed, usual, known = algorithm.constructor, policy.usual, seen.recent.get
    while value != quoted and (line := lines.readline()):
        digest = known(line)
        if digest is None:
            odd = None
            digest = seen.former.get(line)
            if digest is None:
                content = _usual(line, usual)
                if content is None:
                    digest, odd = look(_entry(line), count, policy, algorithm)
                else:
                    digest = hashed(content).digest()
            if odd is None:
                seen.add(line, digest)
            else:
                strange.append(odd)
            known = seen.recent.get
        value = hashed(value + digest).digest()
        count += 1
    size = lines.tell()
    if size < len(text):
        binary_of_text(text[size:])  # what waits for the next quote has to be lines as well
    return Walked(count, size, value, tuple(strange))


def _entry(line: bytes) -> bytes:
    raw = binary_of_text(line)
    if entry_end(raw, 0) != len(raw):
        raise ImaInvalid("a line that is not one entry")
    return raw


def _usual(line: bytes, usual: frozenset[bytes]) -> bytes | None:
    """Return the template data of a line if it is, to the letter, a listed file in the template ima-ng, by SHA-256.

    A listed name has no blank, so that there is no further field. None says nothing: the line is looked at in full.
    """
    digest, name = line[_DIGEST], line[_NAME]
    try:
        data = _USUAL + a2b_hex(digest) + (len(name) + 1).to_bytes(4, "little") + name + b"\0"
    except ValueError:
        return None
    if data not in usual or not digest.islower():
        return None
    template_hash = hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
    return data if line == b"10 %b ima-ng sha256:%b %b\n" % (template_hash, digest, name) else None
