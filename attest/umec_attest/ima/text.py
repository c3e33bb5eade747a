"""The text form of a list (`ascii_runtime_measurements`), turned back into the binary one.

    PCR  TEMPLATE-HASH  TEMPLATE  FIELD …

Each field is one word: the kernel writes an underscore for a blank in a name. What a line does not say (a name with a
line break, a field that is printed otherwise) shows in the template hash; `parse_entry` counts the fields.
"""

from binascii import a2b_hex
from typing import Final

from umec_attest.errors import ImaInvalid
from umec_attest.ima.entries import IMA_PCR, LEGACY, MAX_LIST_SIZE, entry_end, usual_entry

__all__ = ["binary_list", "binary_of_text", "entry_of_line", "is_text"]

_HASH_SIZE: Final = 20
_HASH: Final = slice(3, 43)
_DIGEST: Final = slice(58, 122)
_NAME: Final = slice(123, -1)
"""Where they stand in a line "10 HASH ima-ng sha256:DIGEST NAME" with its line break."""
_EVM_TEXT: Final = 3
"""Names of attributes, the fourth field of evm-sig, are text with a NUL behind it, where there are any."""
_EVM_NUMBERS: Final = {6: 4, 7: 4, 8: 2}
"""Owner, group and mode, the last fields of evm-sig, are decimal numbers of so many bytes."""


def is_text(data: bytes) -> bool:
    """Tell whether a list is in text form; `ImaInvalid` where it is too large, in either one."""
    if len(data) > MAX_LIST_SIZE:
        raise ImaInvalid(f"a list of {len(data)} bytes is beyond the limit of {MAX_LIST_SIZE}")
    return data[:4] not in {b"", IMA_PCR.to_bytes(4, "little")}


def binary_list(data: bytes) -> bytes:
    """Return a list of either form in binary form. Errors: `ImaInvalid`."""
    return binary_of_text(data) if is_text(data) else data


def binary_of_text(text: bytes) -> bytes:
    """Return the binary form of a list in text form, whose entries are still to be parsed. Errors: `ImaInvalid`."""
    if not text.endswith(b"\n"):
        raise ImaInvalid("the last line is cut")
    return b"".join([_line(line.split(b" ")) for line in text[:-1].split(b"\n")])


def entry_of_line(line: bytes) -> bytes:
    """Return the entry of one line with its line break; quickly where it is a file in the template ima-ng, by SHA-256.

    Errors: `ImaInvalid`, also for a line of which more or less than one entry would become.
    """
    template_hash, digest, name = line[_HASH], line[_DIGEST], line[_NAME]
    if line == b"10 %b ima-ng sha256:%b %b\n" % (template_hash, digest, name) and b" " not in name:
        digests = _hex(template_hash + digest)
        return usual_entry(digests[:_HASH_SIZE], digests[_HASH_SIZE:], name + b"\0")
    raw = binary_of_text(line)
    if entry_end(raw, 0) != len(raw):
        raise ImaInvalid("a line that is not one entry")
    return raw


def _line(words: list[bytes]) -> bytes:
    if words[0] != str(IMA_PCR).encode():
        raise ImaInvalid(f"a line of PCR {words[0][:8]!r}: IMA measures into PCR {IMA_PCR}")
    if len(words) < 4:
        raise ImaInvalid("a line has a PCR, a template hash, a template and its fields")
    template_hash, name, fields = _hex(words[1]), words[2], words[3:]
    if len(template_hash) != _HASH_SIZE:
        raise ImaInvalid("a template hash is SHA-1, whatever the bank")
    template = name.decode("ascii", "replace")
    head = IMA_PCR.to_bytes(4, "little") + template_hash + _sized(name)
    if template == LEGACY:
        return head + _hex(fields[0]) + _sized(b" ".join(fields[1:]))
    if template == "ima-sig" and len(fields) == 2:
        fields = [*fields, b""]  # the blank before an absent signature may be cut off
    return head + _sized(b"".join(_sized(_field(template, at, word)) for at, word in enumerate(fields)))


def _field(template: str, at: int, word: bytes) -> bytes:
    if at == 0 or (template == "ima-modsig" and at == 3 and word):
        label, _, value = word.rpartition(b":")
        return label + b":\0" + _hex(value)
    if at == 1:
        return word + b"\0"
    if template == "evm-sig" and word:
        if at == _EVM_TEXT:
            return word + b"\0"
        if at in _EVM_NUMBERS:
            return _number(word, _EVM_NUMBERS[at])
    return _hex(word)


def _number(word: bytes, size: int) -> bytes:
    try:
        value = int(word) if word.isdigit() and len(word) <= 10 else -1
        return value.to_bytes(size, "little")
    except OverflowError:
        raise ImaInvalid(f"a number of {size} bytes expected, not {word[:20]!r}") from None


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _hex(text: bytes) -> bytes:
    if text != text.lower():
        raise ImaInvalid("hex in lower case expected, as the kernel writes it")
    try:
        return a2b_hex(text)
    except ValueError:
        raise ImaInvalid("hex expected, without spaces") from None
