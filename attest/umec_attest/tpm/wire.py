"""The one reader and the few writers of big-endian TPM structures."""

import struct

from umec_attest.errors import TpmInvalid

__all__ = ["Reader", "sized", "u8", "u16", "u32", "u64"]


class Reader:
    """Reads a TPM structure from its first to its last byte.

    Every read is checked against the end; `finish` refuses what is left over. A failure is `TpmInvalid`, and it names
    the structure and the offset.
    """

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes, *, what: str) -> None:
        self._data = bytes(data)
        self._offset = 0
        self._what = what

    def fail(self, why: str) -> TpmInvalid:
        """Return the error for the present position; the caller raises it."""
        return TpmInvalid(f"{self._what}, offset {self._offset}: {why}")

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self._offset + size
        if end > len(self._data):
            raise self.fail(f"{size} bytes expected, {len(self._data) - self._offset} left")
        piece = self._data[self._offset : end]
        self._offset = end
        return piece

    def numbers(self, form: struct.Struct) -> tuple[int, ...]:
        """Return the next numbers, of which `form` has the sizes."""
        return form.unpack(self.take(form.size))

    def u8(self) -> int:
        """Return the next byte as a number."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Return the next 2 bytes as a number."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Return the next 4 bytes as a number."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Return the next 8 bytes as a number."""
        return int.from_bytes(self.take(8), "big")

    def sized(self, limit: int) -> bytes:
        """Return the content of a TPM2B: a 16-bit size of at most `limit`, and that many bytes."""
        size = self.u16()
        if size > limit:
            raise self.fail(f"a size of {size} is beyond the limit of {limit} bytes")
        return self.take(size)

    def finish(self) -> None:
        """Refuse trailing bytes."""
        left = len(self._data) - self._offset
        if left:
            raise self.fail(f"{left} bytes too many")


def u8(value: int) -> bytes:
    """Return a number as 1 byte."""
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    """Return a number as 2 bytes."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """Return a number as 4 bytes."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """Return a number as 8 bytes."""
    return value.to_bytes(8, "big")


def sized(content: bytes) -> bytes:
    """Return a TPM2B: a 16-bit size and the content."""
    return u16(len(content)) + content
