"""What the verifier reads before it serves, and the blobs that bodies hold: each fault by itself."""

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import TypeAdapter, ValidationError

from umec_attest.errors import NodeKeyAttributes
from umec_attest.service.evidence.challenge import ChallengeSeal
from umec_attest.service.evidence.keys import known_keys
from umec_attest.service.tables import NodeRow
from umec_attest.service.trust import TrustFileInvalid, load_bundle, load_signers
from umec_attest.service.wire import MAX_BLOB, Blob
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.public import Attributes, EccParameters, Public, RsaParameters


@pytest.mark.parametrize(
    "key", [generate_private_key(SECP384R1()), Ed25519PrivateKey.generate()], ids=["P-384", "Ed25519"]
)
def test_other_kinds_of_signers_are_refused(tmp_path: Path, key: Any) -> None:
    file = tmp_path / "signer.pem"
    for other, code in ((key, "trust-file-invalid"), (generate_private_key(SECP256R1()), None)):
        file.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        if code is None:
            assert load_signers((file,)) == (other.public_key(),)
        else:
            with pytest.raises(TrustFileInvalid) as refused:
                load_signers((file,))
            assert refused.value.code == code


def test_roots_are_a_folder_of_certificates(tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    assert load_bundle(tmp_path).anchors == ()
    file.write_bytes(b"no certificate")
    for wrong in (tmp_path, file, tmp_path / "missing"):
        with pytest.raises(TrustFileInvalid) as refused:
            load_bundle(wrong)
        assert refused.value.code == "trust-file-invalid"


def test_a_bundle_has_roots_and_intermediates(tmp_path: Path, tpms: Any) -> None:
    """Those that name themselves as issuer, those of the folder `anchors`, and the others."""
    root, between = tpms.authority.root_pem, tpms.authority.chain_pem
    file = tmp_path / "vendor.pem"
    file.write_text(f"{root}\nsome words\n{between}")
    (tmp_path / ".hidden").write_text("no certificate")
    loaded = load_bundle(tmp_path)
    assert [str(one.subject) for one in loaded.anchors] == ["software tpm root ca"]
    assert [str(one.subject) for one in loaded.intermediates] == ["software tpm ek ca"]
    (tmp_path / "anchors").mkdir()
    (tmp_path / "anchors" / "issuer.der").write_bytes(tpms.authority.chain[0])
    assert [str(one.subject) for one in load_bundle(tmp_path).anchors] == ["software tpm ek ca", "software tpm root ca"]
    end = "-----END CERTIFICATE-----"
    for wrong in (
        root + between.replace(end, ""),
        root.replace(end, "") + between,
        root.replace("MII", "MI*"),
        root[:90],
    ):
        file.write_text(wrong)
        with pytest.raises(TrustFileInvalid) as refused:
            load_bundle(tmp_path)
        assert refused.value.code == "trust-file-invalid"
    file.write_text(root)
    assert load_bundle(tmp_path).intermediates == ()


def test_a_bundle_without_a_root_stops_the_start_and_says_where_one_goes(tmp_path: Path, tpms: Any) -> None:
    """A folder whose only certificate another authority signed: nobody would be believed, in silence."""
    file, anchors = tmp_path / "vendor.pem", tmp_path / "anchors"
    file.write_text(tpms.authority.chain_pem)
    for empty in (False, True):
        if empty:
            anchors.mkdir()
        with pytest.raises(TrustFileInvalid) as refused:
            load_bundle(tmp_path)
        assert refused.value.code == "trust-file-invalid"
        assert str(anchors) in (refused.value.advice or "")
    (tmp_path / "root.pem").write_text(tpms.authority.root_pem)
    assert len(load_bundle(tmp_path).anchors) == 1
    (tmp_path / "root.pem").unlink()
    file.rename(anchors / "vendor.pem")
    assert [str(one.subject) for one in load_bundle(tmp_path).anchors] == ["software tpm ek ca"]


def test_a_malformed_certificate_in_a_bundle_says_which_setting_would_read_it(tmp_path: Path, tpms: Any) -> None:
    (tmp_path / "root.pem").write_text(tpms.authority.root_pem)
    (tmp_path / "vendor.der").write_bytes(tpms.authority.chain[0] + b"\xff")
    with pytest.raises(TrustFileInvalid) as refused:
        load_bundle(tmp_path)
    assert "malformed_ek_certificates" in (refused.value.advice or "")
    assert len(load_bundle(tmp_path, tolerate=True).intermediates) == 1
    (tmp_path / "vendor.der").write_bytes(tpms.authority.chain[0] + b"\x01")
    with pytest.raises(TrustFileInvalid) as refused:
        load_bundle(tmp_path, tolerate=True)
    assert refused.value.advice is None


@pytest.mark.parametrize(
    "value", [5, None, b"AA==", "A", "AA", "é", "AA==\n", base64.b64encode(bytes(MAX_BLOB + 1)).decode()]
)
def test_blobs_are_base64_of_so_many_bytes(value: Any) -> None:
    blob: TypeAdapter[bytes] = TypeAdapter(Blob)
    with pytest.raises(ValidationError):
        blob.validate_python(value)
    assert len(blob.validate_python(base64.b64encode(bytes(MAX_BLOB)).decode())) == MAX_BLOB


def test_a_row_without_a_node_key_on_p256_has_no_keys() -> None:
    number = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
    signs = Attributes.SIGN | Attributes.FIXED_TPM
    other = Public(HashAlgorithm.SHA256, signs, b"", RsaParameters(None, None, 2048, 0, number.to_bytes(256, "big")))
    point = generate_private_key(SECP256R1()).public_key().public_numbers()
    x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
    good = Public(HashAlgorithm.SHA256, signs, b"", EccParameters(None, None, 3, None, x, y)).to_bytes()
    with pytest.raises(NodeKeyAttributes) as refused:
        known_keys(NodeRow(ak_public=good, ek_public=good, node_key_public=other.to_bytes()))
    assert refused.value.code == "node-key-attributes"
    assert known_keys(NodeRow(ak_public=good, ek_public=good, node_key_public=good)).node_key["kty"] == "EC"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seal_has_a_whole_key(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ChallengeSeal(bytes(size))
    ChallengeSeal(bytes(32))
