"""Values in DER (X.690), encoded: what signatures and certificates of our own are put together of.

Definite lengths in their shortest form only; tags below 31 only. A value is its whole encoding (tag, length, content).
"""

__all__ = ["INTEGER", "OCTET_STRING", "OID", "SEQUENCE", "integer", "octets", "oid", "sequence", "set_of", "tlv"]

INTEGER = 0x02
OCTET_STRING = 0x04
OID = 0x06
SEQUENCE = 0x30
SET = 0x31


def tlv(tag: int, content: bytes) -> bytes:
    """Return `content` under `tag`, with a definite length."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def sequence(*values: bytes) -> bytes:
    """SEQUENCE of values that are encoded already."""
    return tlv(SEQUENCE, b"".join(values))


def set_of(*values: bytes, tag: int = SET) -> bytes:
    """SET OF encoded values, in the order that DER demands (X.690 §11.6)."""
    return tlv(tag, b"".join(sorted(values)))


def integer(value: int) -> bytes:
    """INTEGER of a number ≥ 0, in its shortest form."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(value: bytes) -> bytes:
    """OCTET STRING."""
    return tlv(OCTET_STRING, value)


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER of a dotted name (X.690 §8.19)."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    return tlv(OID, b"".join(_base128(arc) for arc in (40 * first + second, *rest)))


def _base128(arc: int) -> bytes:
    parts = [arc & 0x7F]
    while arc := arc >> 7:
        parts.append(0x80 | (arc & 0x7F))
    return bytes(reversed(parts))
