"""Sign a PE image so that a firmware with Secure Boot starts it (Authenticode PE 1.0, RFC 2315; UEFI 2.10 §32).

RSA with PKCS#1 v1.5 and no signing time: the same image and key give the same bytes. So an image is verified by signing
it once more, with the signature that it has: what differs in one byte from what is signed here is refused.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from umec_images.der import integer, octets, oid, sequence, set_of, tlv
from umec_images.nodeimage.errors import UkiInvalid
from umec_images.nodeimage.pe import CERTIFICATES, PE32_PLUS, read_headers

__all__ = ["Signer", "sign_image", "verify_signed"]

_SHA256: Final = sequence(oid("2.16.840.1.101.3.4.2.1"), tlv(0x05, b""))
_RSA: Final = sequence(oid("1.2.840.113549.1.1.1"), tlv(0x05, b""))
_SIGNED_DATA: Final = oid("1.2.840.113549.1.7.2")
_INDIRECT_DATA: Final = oid("1.3.6.1.4.1.311.2.1.4")
_PE_IMAGE_DATA: Final = oid("1.3.6.1.4.1.311.2.1.15")
_CONTENT_TYPE: Final = oid("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST: Final = oid("1.2.840.113549.1.9.4")
_NO_FLAGS: Final = tlv(0x03, b"\0")
_NO_FILE: Final = tlv(0xA0, tlv(0xA2, tlv(0x80, "<<<Obsolete>>>".encode("utf-16-be"))))
_REVISION: Final = 0x0200
_PKCS: Final = 0x0002
"""WIN_CERT_TYPE_PKCS_SIGNED_DATA."""
_CERTIFICATE_ALIGNMENT: Final = 8


class Signer(Protocol):
    """An RSA key that signs, wherever it lives, and its certificate."""

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate that the firmware's db holds."""

    def sign(self, data: bytes) -> bytes:
        """Return the RSASSA-PKCS1-v1_5 signature over `data` with SHA-256."""


def sign_image(image: bytes, signer: Signer) -> bytes:
    """Return an unsigned PE32+ image with a signature appended. Raises UkiInvalid."""
    image += bytes(-len(image) % _CERTIFICATE_ALIGNMENT)
    checksum, entry = _offsets(image)
    covered = image[:checksum] + image[checksum + 4 : entry] + image[entry + 8 :]
    signature = _signed_data(hashlib.sha256(covered).digest(), signer)
    signature += bytes(-len(signature) % _CERTIFICATE_ALIGNMENT)
    certificate = struct.pack("<IHH", 8 + len(signature), _REVISION, _PKCS) + signature
    return image[:entry] + struct.pack("<II", len(image), len(certificate)) + image[entry + 8 :] + certificate


def verify_signed(image: bytes, certificate: x509.Certificate) -> None:
    """Check that an image is what `sign_image` makes with the key of this certificate. Raises UkiInvalid."""
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise UkiInvalid("the certificate is of no RSA key")
    try:
        entry = read_headers(image).optional + CERTIFICATES
        (offset,) = struct.unpack_from("<I", image, entry)
    except struct.error:
        raise UkiInvalid("the image ends in the middle of its headers") from None
    unsigned = image[:entry] + bytes(8) + image[entry + 8 : offset]
    length = key.key_size // 8
    end = len(image) - _padding(certificate, length)
    if sign_image(unsigned, _Found(certificate, image[end - length : end], key)) != image:
        raise UkiInvalid("the signature is none that is made here")


@dataclass(frozen=True, slots=True)
class _Found:
    """A signature that is there already, taken only where it is one by `key` over what is signed."""

    certificate: x509.Certificate
    signature: bytes
    key: RSAPublicKey

    def sign(self, data: bytes) -> bytes:
        try:
            self.key.verify(self.signature, data, PKCS1v15(), SHA256())
        except InvalidSignature:
            raise UkiInvalid("the signature is none over this image by the key of this certificate") from None
        return self.signature


def _offsets(image: bytes) -> tuple[int, int]:
    try:
        headers = read_headers(image)
        (magic,) = struct.unpack_from("<H", image, headers.optional)
        present = struct.unpack_from("<II", image, headers.optional + CERTIFICATES)
    except struct.error:
        raise UkiInvalid("what is to be signed ends in the middle of its headers") from None
    if image[headers.start : headers.start + 4] != b"PE\0\0" or magic != PE32_PLUS:
        raise UkiInvalid("what is to be signed is no PE32+ image")
    if present != (0, 0):
        raise UkiInvalid("it is signed already")
    return headers.optional + 64, headers.optional + CERTIFICATES


def _signed_data(digest: bytes, signer: Signer) -> bytes:
    about, attributes = _about(digest)
    signature = signer.sign(set_of(*attributes))
    return _assembled(about, attributes, signer.certificate, signature)


def _padding(certificate: x509.Certificate, length: int) -> int:
    """Return how many zeros follow a signature by a key of `length` bytes."""
    return -len(_assembled(*_about(bytes(32)), certificate, bytes(length))) % _CERTIFICATE_ALIGNMENT


def _about(digest: bytes) -> tuple[bytes, list[bytes]]:
    """Return what is said of an image, and the attributes that are signed."""
    about = sequence(_PE_IMAGE_DATA, sequence(_NO_FLAGS, _NO_FILE)) + sequence(_SHA256, octets(digest))
    return about, [
        sequence(_CONTENT_TYPE, set_of(_INDIRECT_DATA)),
        sequence(_MESSAGE_DIGEST, set_of(octets(hashlib.sha256(about).digest()))),
    ]


def _assembled(about: bytes, attributes: list[bytes], certificate: x509.Certificate, signature: bytes) -> bytes:
    info = sequence(
        integer(1),
        sequence(certificate.issuer.public_bytes(), integer(certificate.serial_number)),
        _SHA256,
        set_of(*attributes, tag=0xA0),
        _RSA,
        octets(signature),
    )
    return sequence(
        _SIGNED_DATA,
        tlv(
            0xA0,
            sequence(
                integer(1),
                set_of(_SHA256),
                sequence(_INDIRECT_DATA, tlv(0xA0, sequence(about))),
                tlv(0xA0, certificate.public_bytes(Encoding.DER)),
                set_of(info),
            ),
        ),
    )
