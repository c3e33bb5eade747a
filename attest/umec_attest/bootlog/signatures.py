"""The content of PK, KEK, db and dbx: lists of certificates and hashes (UEFI 2.10, 32.4.1: EFI_SIGNATURE_LIST)."""

import contextlib
import hashlib
import uuid
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography import x509

__all__ = ["Certificate", "SignatureDatabase", "parse_database", "read_certificate"]

_X509: Final = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
_SHA256: Final = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le
_HEADER_SIZE: Final = 28
_OWNER_SIZE: Final = 16
_SHA256_SIZE: Final = 32
_REMEMBERED: Final = 64
"""Databases that are kept as parsed, some 50 KB each with today's dbx: a fleet has a handful."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate by the SHA-256 of its DER (hex); `subject` is None where it cannot be read."""

    sha256: str
    subject: str | None


@dataclass(frozen=True, slots=True)
class SignatureDatabase:
    """What a database holds: certificates and SHA-256 hashes of images (hex), in order, and how many other entries."""

    certificates: tuple[Certificate, ...]
    hashes: tuple[str, ...]
    others: int

    def to_json(self) -> dict[str, Any]:
        """Return {"certificates": [{"sha256", "subject"}], "hashes": […], "others": number}."""
        certificates = [{"sha256": found.sha256, "subject": found.subject} for found in self.certificates]
        return {"certificates": certificates, "hashes": list(self.hashes), "others": self.others}


@lru_cache(_REMEMBERED)
def parse_database(data: bytes) -> SignatureDatabase | None:
    """Parse the content of a signature database; None if it is none. Empty content is an empty database."""
    certificates: list[Certificate] = []
    hashes: list[str] = []
    others = at = 0
    while at < len(data):
        kind = data[at : at + 16]
        size, header, entry = (int.from_bytes(data[at + n : at + n + 4], "little") for n in (16, 20, 24))
        body = size - _HEADER_SIZE - header
        if at + size > len(data) or body < 0 or entry <= _OWNER_SIZE or body % entry:
            return None
        for start in range(at + _HEADER_SIZE + header, at + size, entry):
            content = data[start + _OWNER_SIZE : start + entry]
            if kind == _X509:
                certificates.append(read_certificate(content))
            elif kind == _SHA256 and len(content) == _SHA256_SIZE:
                hashes.append(content.hex())
            else:
                others += 1
        at += size
    return SignatureDatabase(tuple(certificates), tuple(hashes), others)


def read_certificate(der: bytes) -> Certificate:
    """Return a certificate's hash, and its subject as RFC 4514 writes it where that can be read."""
    subject = None
    with warnings.catch_warnings():  # of names that are too long: it is shown, not believed
        warnings.simplefilter("ignore")
        with contextlib.suppress(ValueError):
            subject = x509.load_der_x509_certificate(der).subject.rfc4514_string()
    return Certificate(hashlib.sha256(der).hexdigest(), subject)
