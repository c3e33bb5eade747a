"""Write a boot log in the crypto-agile form (TCG PC Client Platform Firmware Profile 10.2), SHA-256 bank only."""

import struct
import uuid
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

__all__ = ["EventType", "Measurement", "image_load_event", "measured", "serialize_log", "split_log", "variable_data"]

SHA256: Final = 0x000B
HEADER: Final = struct.Struct("<III")
LEGACY_HEADER_SIZE: Final = 4 + 4 + 20 + 4
DIGEST: Final = struct.Struct("<H32s")


class EventType(IntEnum):
    """Types of events (PFP 10.4.1) that a firmware and a stub make here."""

    NO_ACTION = 0x03
    SEPARATOR = 0x04
    S_CRTM_VERSION = 0x08
    IPL = 0x0D
    EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EFI_ACTION = 0x80000007
    EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EFI_VARIABLE_AUTHORITY = 0x800000E0


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is extended into a PCR, and what the log says about it."""

    pcr: int
    kind: int
    digest: bytes
    data: bytes = field(repr=False)


def serialize_log(measurements: list[Measurement]) -> bytes:
    """Return the whole log, the Spec ID event first."""
    return _spec_id_event() + b"".join(_event(measurement) for measurement in measurements)


def split_log(log: bytes) -> list[bytes]:
    """Cut a log of ours into its events, the Spec ID event first: joined they are the log again."""
    size = LEGACY_HEADER_SIZE + int(struct.unpack_from("<I", log, LEGACY_HEADER_SIZE - 4)[0])
    parts, at = [log[:size]], size
    while at < len(log):
        head = HEADER.size + DIGEST.size
        end = at + head + 4 + int(struct.unpack_from("<I", log, at + head)[0])
        parts.append(log[at:end])
        at = end
    return parts


def measured(log: bytes) -> list[tuple[int, bytes]]:
    """Return (PCR, digest) of what a log of ours tells of, in its order."""
    head = HEADER.size
    return [
        (HEADER.unpack_from(part)[0], DIGEST.unpack_from(part, head)[1])
        for part in split_log(log)[1:]
        if HEADER.unpack_from(part)[1] != EventType.NO_ACTION
    ]


def variable_data(vendor: uuid.UUID, name: str, value: bytes) -> bytes:
    """Return a UEFI_VARIABLE_DATA (PFP 10.4.4.1)."""
    text = name.encode("utf-16-le")
    return vendor.bytes_le + struct.pack("<QQ", len(text) // 2, len(value)) + text + value


def image_load_event(path: str, length: int) -> bytes:
    """Return a UEFI_IMAGE_LOAD_EVENT (PFP 10.4.2.1) of a file at `path`."""
    text = path.encode("utf-16-le") + b"\0\0"
    device_path = struct.pack("<BBH", 4, 4, 4 + len(text)) + text + bytes.fromhex("7fff0400")
    return struct.pack("<QQQQ", 0x100000, length, 0, len(device_path)) + device_path


def _spec_id_event() -> bytes:
    version = struct.pack("<IBBBB", 0, 0, 2, 0, 2)
    algorithms = struct.pack("<IHH", 1, SHA256, 32)
    data = b"Spec ID Event03\0" + version + algorithms + b"\0"
    return struct.pack("<II20sI", 0, EventType.NO_ACTION, bytes(20), len(data)) + data


def _event(measurement: Measurement) -> bytes:
    head = HEADER.pack(measurement.pcr, measurement.kind, 1) + DIGEST.pack(SHA256, measurement.digest)
    return head + struct.pack("<I", len(measurement.data)) + measurement.data
