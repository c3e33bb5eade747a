"""Whose signature counts: the firmware's own database `db`, as a running machine shows it.

The firmware itself decides what it starts. This is looked at before an image is written, so that what nobody signed
never gets onto the disk, whoever asks for it.
"""

import struct
import uuid
from typing import Final

from cryptography import x509

from umec_images.nodeimage.authenticode import verify_signed
from umec_images.nodeimage.errors import UkiInvalid
from umec_images.update.errors import SignatureOther, VariablesUnusable

__all__ = ["check_signature", "database_certificates"]

MAX_CERTIFICATES: Final = 64
"""A board of a big maker has a dozen."""
_CERT_X509: Final = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_LIST: Final = struct.Struct("<16sIII")
_OWNER: Final = 16


def check_signature(image: bytes, database: bytes) -> None:
    """Check that a kernel image is signed as the build signs, by a certificate of `db`. Raises SignatureOther.

    Raises VariablesUnusable where `database` is no value of that variable.
    """
    for certificate in database_certificates(database):
        try:
            return verify_signed(image, certificate)
        except UkiInvalid:
            continue
    raise SignatureOther(
        "no certificate of this firmware's db signed the kernel image",
        advice="sign it with the db key of this node's firmware: umec nodeimage build --keys",
    )


def database_certificates(value: bytes) -> list[x509.Certificate]:
    """Return the X.509 certificates of an EFI_SIGNATURE_LIST sequence (UEFI 2.10 §32.4.1). Raises VariablesUnusable."""
    found: list[x509.Certificate] = []
    place = 0
    while place < len(value):
        if place + _LIST.size > len(value):
            raise VariablesUnusable("the firmware's db ends in the middle of a list")
        kind, size, header, each = _LIST.unpack_from(value, place)
        start, end = place + _LIST.size + header, place + size
        if not place + _LIST.size <= start <= end <= len(value) or each <= _OWNER or (end - start) % each:
            raise VariablesUnusable("the firmware's db has a list of another size than it says")
        if kind == _CERT_X509.bytes_le:
            found += [_certificate(value[at + _OWNER : at + each]) for at in range(start, end, each)]
        if len(found) > MAX_CERTIFICATES:
            raise VariablesUnusable(f"the firmware's db has more than {MAX_CERTIFICATES} certificates")
        place = end
    return found


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise VariablesUnusable("the firmware's db holds a certificate that cannot be read") from error
