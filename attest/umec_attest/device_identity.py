"""The identity that a device's maker put into its TPM (TCG, TPM 2.0 Keys for Device Identity and Attestation).

1  IAK     a restricted signing key like an AK, primary in the endorsement hierarchy; its certificate is about it
2  IDevID  where there is one: a signing key that never leaves the TPM; its certificate is about it
3  path    each certificate leads to a configured root of device makers; the IAK's for tcg-kp-AIKCertificate
4  device  each certificate names one piece of hardware (RFC 4108, HardwareModuleName), and both the same
5  EK      where that name is made of the EK certificate (issuer's key id, serial number), it is that of the one shown
6  one TPM the IAK certifies the AK below the EK, and the IDevID, for this very enrolment

Only 6 proves that who enrols has the TPM of that device, and that EK, AK and IAK are in one and the same.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from umec_attest.certificates.certificate import Certificate, CertificateMalformed, load_certificate
from umec_attest.certificates.der import OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, elements, one
from umec_attest.certificates.path import Profile, TrustStore, extension, verify_path
from umec_attest.certification import verify_certification
from umec_attest.ek_certificate import EkCertificate
from umec_attest.errors import (
    DeviceCertificateExpired,
    DeviceCertificateInvalid,
    DeviceCertificateMismatch,
    DeviceCertificatePath,
    DeviceIdentityMismatch,
    IakAttributes,
    IdevidAttributes,
)
from umec_attest.key_rules import ORIGIN, check_attestation_key, check_signing_key, spki_of
from umec_attest.tpm.names import Hierarchy
from umec_attest.tpm.public import Attributes, Public

__all__ = [
    "DeviceIdentity",
    "ShownKey",
    "bind_to_ek",
    "check_device_identity",
    "verify_ak_by_iak",
    "verify_idevid_by_iak",
]

_MAX_CHAIN: Final = 8

_IAK_PROFILE: Final = Profile(
    purpose=ObjectIdentifier("2.23.133.8.3"),
    invalid=DeviceCertificateInvalid,
    expired=DeviceCertificateExpired,
    path=DeviceCertificatePath,
)
_IDEVID_PROFILE: Final = Profile(
    purpose=None,  # IEEE 802.1AR asks for none
    invalid=DeviceCertificateInvalid,
    expired=DeviceCertificateExpired,
    path=DeviceCertificatePath,
)

_HARDWARE_MODULE_NAME: Final = ObjectIdentifier("1.3.6.1.5.5.7.8.4")
_TPM_20: Final = "6781050102"
"""2.23.133.1.2, in hex of its DER: the name is made of the EK certificate."""
_NAME_OF_EK: Final = re.compile(rb"[^:]{1,16}:([0-9A-Fa-f]{1,64}):([0-9A-Fa-f]{1,64})")
"""Maker, key id of the issuer of the EK certificate, serial number of the EK certificate."""


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key of the device's maker as its node shows it: `certificate` and `chain` are DER, the chain in any order."""

    public: Public
    certificate: bytes
    chain: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class _Hardware:
    """HardwareModuleName: the kind of module (hex of the DER of its OID) and its serial number."""

    kind: str
    serial: bytes


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """A device whose maker is known (steps 1 to 4). Only `check_device_identity` makes one."""

    iak: Public
    iak_sha256: str
    idevid: Public | None
    idevid_sha256: str | None
    hardware: _Hardware

    @property
    def serial(self) -> str:
        """The serial number, for operators: as text where it is one, in hex otherwise."""
        text = self.hardware.serial.decode("ascii", errors="replace")
        return text if text.isprintable() and "\ufffd" not in text else self.hardware.serial.hex()


def check_device_identity(
    iak: ShownKey, idevid: ShownKey | None, *, store: TrustStore, now: datetime
) -> DeviceIdentity:
    """Check what a node shows of its device's identity (1 to 4).

    Errors: `IakAttributes`, `IdevidAttributes`, `KeyWeak`, `DeviceCertificate…`, `DeviceIdentityMismatch`.
    """
    check_attestation_key(iak.public, IakAttributes)  # 1
    hardware = _check_certificate(iak, _IAK_PROFILE, store, now)
    if idevid is not None:
        check_signing_key(idevid.public, ORIGIN | Attributes.SIGN, IdevidAttributes)  # 2
        if _check_certificate(idevid, _IDEVID_PROFILE, store, now) != hardware:  # 4
            raise DeviceIdentityMismatch("the certificates of IAK and IDevID are about two devices")
    return DeviceIdentity(
        iak=iak.public,
        iak_sha256=_sha256(iak.public),
        idevid=None if idevid is None else idevid.public,
        idevid_sha256=None if idevid is None else _sha256(idevid.public),
        hardware=hardware,
    )


def bind_to_ek(device: DeviceIdentity, ek: EkCertificate) -> None:
    """Check that the device is that of this EK certificate (5), where its name says so.

    Errors: `DeviceIdentityMismatch`.
    """
    if device.hardware.kind != _TPM_20:
        return
    named = _NAME_OF_EK.fullmatch(device.hardware.serial)
    issuer = extension(ek.certificate, x509.AuthorityKeyIdentifier)
    if named is None or issuer is None or issuer.key_identifier is None:
        raise DeviceIdentityMismatch("the device's certificates do not say for which EK certificate they were made")
    shown = (int.from_bytes(issuer.key_identifier, "big"), ek.certificate.fields.serial_number)
    if (int(named[1], 16), int(named[2], 16)) != shown:
        raise DeviceIdentityMismatch("the device's certificates were made for a TPM with another EK certificate")


def verify_ak_by_iak(
    *, attest: bytes, signature: bytes, iak: Public, ak: Public, ek: Public, qualifying: bytes
) -> None:
    """Verify that the IAK certified the AK, and this below the EK (6).

    Errors: `TpmInvalid`, `Certify…`, `SignatureRefused`.
    """
    verify_certification(
        attest=attest,
        signature=signature,
        signer=iak,
        signer_parent=Hierarchy.ENDORSEMENT,
        subject=ak,
        subject_parent=ek,
        qualifying=qualifying,
    )


def verify_idevid_by_iak(*, attest: bytes, signature: bytes, iak: Public, idevid: Public, qualifying: bytes) -> None:
    """Verify that the IAK certified the IDevID, a primary key of the endorsement hierarchy like itself (6).

    Errors: `TpmInvalid`, `Certify…`, `SignatureRefused`.
    """
    verify_certification(
        attest=attest,
        signature=signature,
        signer=iak,
        signer_parent=Hierarchy.ENDORSEMENT,
        subject=idevid,
        subject_parent=Hierarchy.ENDORSEMENT,
        qualifying=qualifying,
    )


def _check_certificate(shown: ShownKey, profile: Profile, store: TrustStore, now: datetime) -> _Hardware:
    """3, 4. Return the hardware that the certificate names."""
    if len(shown.chain) > _MAX_CHAIN:
        raise DeviceCertificateInvalid(f"a chain of {len(shown.chain)} certificates is beyond the limit")
    leaf, *chain = (_load(der) for der in (shown.certificate, *shown.chain))
    if leaf.spki != spki_of(shown.public):
        raise DeviceCertificateMismatch("the certificate is about another key than the one that was shown")
    verify_path(leaf, chain, store, profile=profile, now=now)
    usage = extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise DeviceCertificateInvalid("the key usage is not that of a key that signs for a device")
    return _hardware(leaf)


def _load(der: bytes) -> Certificate:
    try:
        return load_certificate(der, tolerate=False)
    except CertificateMalformed as error:
        raise DeviceCertificateInvalid(str(error)) from error


def _hardware(leaf: Certificate) -> _Hardware:
    """4. HardwareModuleName ::= SEQUENCE { hwType OBJECT IDENTIFIER, hwSerialNum OCTET STRING }, exactly once."""
    names = extension(leaf, x509.SubjectAlternativeName) or ()
    found = [n.value for n in names if isinstance(n, x509.OtherName) and n.type_id == _HARDWARE_MODULE_NAME]
    if len(found) != 1:
        raise DeviceCertificateInvalid("the certificate does not name its device (HardwareModuleName) exactly once")
    try:
        kind, serial = elements(one(found[0], SEQUENCE).content)
    except ValueError as error:
        raise DeviceCertificateInvalid(f"the HardwareModuleName is malformed: {error}") from error
    if (kind.tag, serial.tag) != (OBJECT_IDENTIFIER, OCTET_STRING) or not serial.content:
        raise DeviceCertificateInvalid("a HardwareModuleName is a kind of hardware and a serial number")
    return _Hardware(kind.content.hex(), serial.content)


def _sha256(public: Public) -> str:
    return hashlib.sha256(spki_of(public)).hexdigest()
