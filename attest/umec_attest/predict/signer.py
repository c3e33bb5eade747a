"""With which entry of db a firmware verifies an image: it measures that one into PCR 7 (UEFI 2.10, 32.5.3.3).

1  the image has one signature, PKCS #7, that brings one certificate: of several, one firmware takes this one and
   another that one
2  the first entry of db that is this certificate, or that issued it, is what the image is verified with
"""

import struct
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates
from cryptography.x509 import Certificate, load_der_x509_certificate

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.pe import PeImage
from umec_attest.predict.uefi import CERT_X509, signatures

__all__ = ["authority"]

_HEADER: Final = struct.Struct("<IHH")
"""WIN_CERTIFICATE: its length with this header, revision, type."""
_PKCS7: Final = (0x0200, 0x0002)
_ALIGNMENT: Final = 8
_DER_HEADER: Final = struct.Struct(">HH")
_DER_SEQUENCE: Final = 0x3082
"""A sequence of 256 bytes to 64 KiB: what a signature with a certificate is."""


def authority(image: PeImage, database: bytes) -> bytes:
    """Return the EFI_SIGNATURE_DATA of `database` (db) by which a firmware starts this image.

    Errors: `ImageFolderInvalid` where it would not start it, or where it cannot be said by which.
    """
    entries = signatures(database)
    if entries is None:
        raise ImageFolderInvalid("db is no list of signatures")
    signer = _certificate(image.certificates())  # 1
    for entry in entries:  # 2
        if entry.kind == CERT_X509 and _verifies(entry.content, signer):
            return entry.data
    raise ImageFolderInvalid("no certificate of db verifies uki.efi: this firmware does not start it")


def _certificate(table: bytes) -> Certificate:
    if not table:
        raise ImageFolderInvalid("uki.efi is not signed: a firmware with Secure Boot does not start it")
    try:
        size, *form = _HEADER.unpack_from(table)
        if tuple(form) != _PKCS7 or len(table) - size not in range(_ALIGNMENT):
            raise ImageFolderInvalid("uki.efi has more than one signature, or one that is not PKCS #7")
        certificates = load_der_pkcs7_certificates(_signature(table[_HEADER.size : size]))
    except (struct.error, ValueError) as error:
        raise ImageFolderInvalid(f"the signature of uki.efi cannot be read: {error}") from None
    if len(certificates) != 1:
        raise ImageFolderInvalid(f"the signature of uki.efi brings {len(certificates)} certificates, and not one")
    return certificates[0]


def _signature(padded: bytes) -> bytes:
    """Return the structure without what it is filled up with: some signers count that as part of it."""
    kind, size = _DER_HEADER.unpack_from(padded)
    if kind != _DER_SEQUENCE:
        raise ValueError("it is no sequence")
    return padded[: _DER_HEADER.size + size]


def _verifies(entry: bytes, signer: Certificate) -> bool:
    if entry == signer.public_bytes(Encoding.DER):
        return True
    try:
        signer.verify_directly_issued_by(load_der_x509_certificate(entry))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
