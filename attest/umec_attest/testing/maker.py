"""A maker of devices, who puts an IAK and an IDevID into the TPM of each and certifies them."""

import os
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID, ObjectIdentifier
from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR, TPMA_OBJECT
from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE

from umec_attest.agent.device_keys import DeviceKey, DeviceKeys
from umec_attest.agent.tpm.signing import KEY_ATTRIBUTES, p256_template
from umec_attest.testing.authority import key_usage
from umec_attest.testing.swtpm import SoftwareTpm

__all__ = ["DeviceMaker"]

IDEVID_HANDLE: Final = 0x81020000
IAK_HANDLE: Final = 0x81020001
"""The range of handles that is reserved for such keys begins here."""

NOT_BEFORE: Final = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER: Final = datetime(2099, 12, 31, tzinfo=UTC)
IAK_PURPOSE: Final = ObjectIdentifier("2.23.133.8.3")
HARDWARE_MODULE_NAME: Final = ObjectIdentifier("1.3.6.1.5.5.7.8.4")
HARDWARE_KIND: Final = bytes.fromhex("06032a0304")
"""An OID of nobody's: 1.2.3.4."""


class DeviceMaker:
    """A maker with one root; `provision` makes a device of a TPM."""

    def __init__(self, name: str = "Street Furniture Ltd") -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        self._key = generate_private_key(SECP256R1())
        authority = (x509.BasicConstraints(ca=True, path_length=0), key_usage(key_cert_sign=True))
        self.root: Final = self._sign(self._name, self._key.public_key(), *authority)

    @property
    def root_pem(self) -> bytes:
        """The root certificate, which a verifier pins, in PEM."""
        return self.root.public_bytes(Encoding.PEM)

    def provision(self, tpm: SoftwareTpm, serial: str) -> DeviceKeys:
        """Make the keys of a device in its TPM, anew each time, and return them with their certificates."""
        return DeviceKeys(
            iak=DeviceKey(IAK_HANDLE, self._certify(_key(tpm, IAK_HANDLE, restricted=True), serial, IAK_PURPOSE)),
            idevid=DeviceKey(IDEVID_HANDLE, self._certify(_key(tpm, IDEVID_HANDLE, restricted=False), serial, None)),
        )

    def _certify(self, key: EllipticCurvePublicKey, serial: str, purpose: ObjectIdentifier | None) -> bytes:
        number = serial.encode()
        content = HARDWARE_KIND + bytes([4, len(number)]) + number
        name = x509.OtherName(HARDWARE_MODULE_NAME, bytes([0x30, len(content)]) + content)
        extensions: list[x509.ExtensionType] = [
            x509.BasicConstraints(ca=False, path_length=None),
            key_usage(digital_signature=True),
            x509.SubjectAlternativeName([name]),
        ]
        if purpose is not None:
            extensions.append(x509.ExtendedKeyUsage([purpose]))
        subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)])
        return self._sign(subject, key, *extensions).public_bytes(Encoding.DER)

    def _sign(
        self, subject: x509.Name, key: EllipticCurvePublicKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(NOT_AFTER)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, SHA256())


def _key(tpm: SoftwareTpm, handle: int, *, restricted: bool) -> EllipticCurvePublicKey:
    """Make a primary key of the endorsement hierarchy and keep it at a handle, in the place of what is there."""
    attributes = KEY_ATTRIBUTES | (TPMA_OBJECT.RESTRICTED if restricted else TPMA_OBJECT(0))
    template = p256_template(attributes)
    template.unique.ecc.x.buffer = os.urandom(32)  # a primary key is made of the TPM's seed and its template
    with ESAPI(tpm.tcti) as esys:
        made, public, _, _, _ = esys.create_primary(
            TPM2B_SENSITIVE_CREATE(), TPM2B_PUBLIC(publicArea=template), ESYS_TR.ENDORSEMENT
        )
        _, found = esys.get_capability(1, handle, 1)
        if found.data.handles.count and found.data.handles.handle[0] == handle:
            esys.evict_control(ESYS_TR.OWNER, esys.tr_from_tpmpublic(handle), handle)
        esys.evict_control(ESYS_TR.OWNER, made, handle)
        esys.flush_context(made)
    key = load_der_public_key(bytes(public.publicArea.to_der()))
    if not isinstance(key, EllipticCurvePublicKey):
        raise TypeError("a key of a device is on P-256")
    return key
