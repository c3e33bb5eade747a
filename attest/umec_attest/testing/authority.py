"""An authority that issues endorsement key certificates to software TPMs, as a TPM vendor would.

A root and an issuing authority below it, in a directory of their own in the form that `swtpm_localca` expects. It makes
their keys itself, because the programs that `swtpm_localca` would call take several times as long.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["EndorsementAuthority", "key_usage"]

NOT_BEFORE: Final = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER: Final = datetime(2099, 12, 31, tzinfo=UTC)
KEY_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class EndorsementAuthority:
    """A root certificate, an issuing certificate and the directory with the issuing key."""

    directory: Path
    root: x509.Certificate
    issuer: x509.Certificate

    @classmethod
    def create(cls, directory: Path, *, name: str = "Software TPM") -> "EndorsementAuthority":
        """Make an authority in `directory`, which is made if it is not there; two never share a key."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        root_key, issuer_key = (generate_private_key(65537, KEY_BITS) for _ in range(2))
        root = _certificate(f"{name} Root CA", root_key, f"{name} Root CA", root_key, path_length=1)
        issuer = _certificate(f"{name} EK CA", issuer_key, f"{name} Root CA", root_key, path_length=0)
        _private(directory / "signkey.pem", issuer_key)
        (directory / "issuercert.pem").write_bytes(issuer.public_bytes(Encoding.PEM))
        (directory / "rootcert.pem").write_bytes(root.public_bytes(Encoding.PEM))
        (directory / "localca.conf").write_text(
            f"statedir = {directory}\n"
            f"signingkey = {directory}/signkey.pem\n"
            f"issuercert = {directory}/issuercert.pem\n"
            f"certserial = {directory}/certserial\n",
        )
        (directory / "localca.options").write_text(
            "--platform-manufacturer uMEC\n--platform-version 1\n--platform-model software\n",
        )
        (directory / "setup.conf").write_text(
            "create_certs_tool = /usr/bin/swtpm_localca\n"
            f"create_certs_tool_config = {directory}/localca.conf\n"
            f"create_certs_tool_options = {directory}/localca.options\n"
            "active_pcr_banks = sha256\n",
        )
        return cls(directory, root, issuer)

    @classmethod
    def load_or_create(cls, directory: Path) -> "EndorsementAuthority":
        """Return the authority of a directory, making it where there is none."""
        if not (directory / "setup.conf").exists():
            return cls.create(directory)
        root, issuer = (
            x509.load_pem_x509_certificate((directory / name).read_bytes())
            for name in ("rootcert.pem", "issuercert.pem")
        )
        return cls(directory, root, issuer)

    @property
    def setup_config(self) -> Path:
        """The configuration file for `swtpm_setup`."""
        return self.directory / "setup.conf"

    @property
    def root_pem(self) -> str:
        """The root certificate, which a verifier pins, in PEM."""
        return self.root.public_bytes(Encoding.PEM).decode()

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates between an endorsement key's and the root, in DER."""
        return (self.issuer.public_bytes(Encoding.DER),)

    @property
    def chain_pem(self) -> str:
        """The certificates between an endorsement key's and the root, in PEM."""
        return self.issuer.public_bytes(Encoding.PEM).decode()


def key_usage(**wanted: bool) -> x509.KeyUsage:
    """Return the extension with the wanted flags (named as `cryptography` names them), and no other."""
    flags = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(flags | wanted))


def _certificate(
    subject: str,
    subject_key: RSAPrivateKey,
    issuer: str,
    issuer_key: RSAPrivateKey,
    *,
    path_length: int,
) -> x509.Certificate:
    usage = key_usage(key_cert_sign=True, crl_sign=True)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(subject_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, SHA256())
    )


def _private(path: Path, key: RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
