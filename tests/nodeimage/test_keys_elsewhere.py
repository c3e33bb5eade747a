"""A key of db that stays where it is: only its certificate is made, and images are signed by it alone."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from umec_core.pkcs11 import TokenRsaKey
from umec_images.nodeimage.errors import KeysInvalid
from umec_images.nodeimage.keys import load_signer, make_keys

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DATABASE = rsa.generate_private_key(65537, 2048)


def test_an_image_is_signed_by_the_key_of_db_alone(tmp_path: Path) -> None:
    def in_token(key: rsa.RSAPrivateKey) -> TokenRsaKey:
        return TokenRsaKey(key.public_key(), lambda data: key.sign(data, padding.PKCS1v15(), SHA256()))

    folder = tmp_path / "keys"
    make_keys(folder, NOW, in_token(DATABASE))
    signer = load_signer(folder, in_token(DATABASE))
    assert signer.certificate == x509.load_pem_x509_certificate((folder / "db.crt").read_bytes())
    DATABASE.public_key().verify(signer.sign(b"x"), b"x", padding.PKCS1v15(), SHA256())
    for attempt in (
        lambda: load_signer(folder, in_token(rsa.generate_private_key(65537, 2048))),
        lambda: make_keys(tmp_path / "short", NOW, in_token(rsa.generate_private_key(65537, 1024))),  # noqa: S505
        lambda: load_signer(folder),
    ):
        with pytest.raises(KeysInvalid) as refused:
            attempt()
        assert refused.value.code == "image-keys-invalid"
    assert not (tmp_path / "short").exists()
