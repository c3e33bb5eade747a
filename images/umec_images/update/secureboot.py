"""Whose signature counts: the firmware's own database `db`, as a running machine shows it.

The firmware itself decides what it starts. This is looked at before an image is written, so that what nobody signed
never gets onto the disk, whoever asks for it.
"""

import struct
import uuid
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from umec_images.nodeimage.authenticode import verify_signed
from umec_images.nodeimage.errors import UkiInvalid
from umec_images.update.errors import SignatureOther, VariablesUnusable

__all__ = ["Database", "check_signature", "read_database"]

MAX_CERTIFICATES: Final = 64
"""A board of a big maker has a dozen."""
_CERT_X509: Final = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_LIST: Final = struct.Struct("<16sIII")
_OWNER: Final = 16


@dataclass(frozen=True, slots=True)
class Database:
    """The certificates of `db`, and how many entries of that kind cannot be read.

    A board may have such entries beside its owner's certificate, and its firmware may understand them. Here they let
    nothing count, and keep nothing else from counting.
    """

    certificates: tuple[x509.Certificate, ...]
    unread: int


def check_signature(image: bytes, database: Database) -> None:
    """Check that a kernel image is signed as the build signs, by a certificate of `db`. Raises SignatureOther."""
    for certificate in database.certificates:
        try:
            return verify_signed(image, certificate)
        except UkiInvalid:
            continue
    raise SignatureOther(
        "no certificate of this firmware's db signed the kernel image",
        advice="sign it with the db key of this node's firmware: umec nodeimage build --keys",
    )


def read_database(value: bytes) -> Database:
    """Return what an EFI_SIGNATURE_LIST sequence (UEFI 2.10 §32.4.1) has of X.509. Raises VariablesUnusable.

    Lists of other kinds (hashes of images, say) are not looked into.
    """
    found: list[x509.Certificate | None] = []
    place = 0
    while place < len(value):
        if place + _LIST.size > len(value):
            raise VariablesUnusable("the firmware's db ends in the middle of a list")
        kind, size, header, each = _LIST.unpack_from(value, place)
        start, end = place + _LIST.size + header, place + size
        if not start <= end <= len(value) or each <= _OWNER or (end - start) % each:
            raise VariablesUnusable("the firmware's db has a list of another size than it says")
        if kind == _CERT_X509.bytes_le:
            found += [_certificate(value[at + _OWNER : at + each]) for at in range(start, end, each)]
        if len(found) > MAX_CERTIFICATES:
            raise VariablesUnusable(f"the firmware's db has more than {MAX_CERTIFICATES} certificates")
        place = end
    understood = tuple(each for each in found if each is not None)
    return Database(understood, len(found) - len(understood))


def _certificate(der: bytes) -> x509.Certificate | None:
    """Return a certificate of which all can be read that a signature is compared with; else None."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.public_key(), certificate.issuer
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm):
        return None
    return certificate if certificate.serial_number >= 0 else None  # RFC 5280 §4.1.2.2; some makers' are negative
