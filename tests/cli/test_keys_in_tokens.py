"""Commands that sign with a key in a token (SoftHSM), each a program of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from umec_attest.reference import verify_reference_set
from umec_attest.sealed import verify_approval
from umec_core.clock import system_clock
from umec_images.nodeimage.keys import load_certificates

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "5678"
SIGNER = ec.generate_private_key(ec.SECP256R1())
DATABASE = rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of programs that find a token with the keys `signer` and `db`."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    said = {**os.environ, "SOFTHSM2_CONF": str(settings), "UMEC_PKCS11_MODULE": MODULE, "UMEC_PKCS11_PIN": PIN}
    _run(["softhsm2-util", "--init-token", "--free", "--label", "city", "--so-pin", "1234", "--pin", PIN], said)
    for number, (name, key) in enumerate({"signer": SIGNER, "db": DATABASE}.items()):
        file = folder / f"{name}.pem"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        line = ["softhsm2-util", "--import", str(file), "--token", "city", "--label", name, "--id", f"0{number}"]
        _run([*line, "--pin", PIN], said)
        file.unlink()
    return said


def _run(line: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, check=True, capture_output=True, text=True, env=environment)


def umec(token: dict[str, str], *arguments: str) -> dict[str, Any]:
    line = [sys.executable, "-m", "umec_platform.cli", *arguments, "--json"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=token)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_what_is_signed_in_a_token_verifies_like_what_a_file_signs(token: dict[str, str], tmp_path: Path) -> None:
    draft, signed, approval = (tmp_path / name for name in ("draft.json", "set.dsse", "approval"))
    draft.write_text(json.dumps({"image_sha256": "cd" * 32, "pcrs": {"sha256": {"4": ["ab" * 32]}}}))
    key = "pkcs11:token=city;object=signer"
    words = [str(draft), "--name", "edge", "--version", "1", "--out", str(signed)]
    umec(token, "nodeimage", "sign", *words, "--key", key)
    found = verify_reference_set(
        signed.read_bytes(), signers=[SIGNER.public_key()], now=system_clock(), minimum_version=0
    )
    assert (found.name, found.version) == ("edge", 1)
    predicted = tmp_path / "predicted.json"
    predicted.write_text(json.dumps({"pcrs": {"sha256": {"4": "ab" * 32}}}))
    words = ["--image", "edge", "--version", "1", "--predicted", str(predicted), "--pcr", "4", "--out", str(approval)]
    umec(token, "secret", "approve", *words, "--key", key)
    assert verify_approval(approval.read_bytes(), SIGNER.public_key()).image == "edge"
    umec(token, "secret", "approve", *words[:-1], str(tmp_path / "again"), "--key", key.replace("pkcs11", "PKCS11"))
    assert verify_approval((tmp_path / "again").read_bytes(), SIGNER.public_key()).image == "edge"
    for scheme in ("PKCS11", "Pkcs11"):
        words = [str(draft), "--name", "edge", "--version", "2", "--out", str(tmp_path / "second")]
        assert umec(token, "nodeimage", "sign", *words, "--key", key.replace("pkcs11", scheme))["version"] == 2
    for other, code in (("db", "pkcs11-key-unfit"), ("nobody", "pkcs11-key-missing")):
        words = [str(draft), "--name", "edge", "--version", "1", "--out", str(tmp_path / "none")]
        said = umec(token, "nodeimage", "sign", *words, "--key", key.replace("signer", other))
        assert said["code"] == code
    assert not (tmp_path / "none").exists()


def test_the_key_of_db_stays_in_its_token(token: dict[str, str], tmp_path: Path) -> None:
    made = umec(token, "nodeimage", "keys", str(tmp_path / "keys"), "--key", "pkcs11:token=city;object=db")
    assert sorted(made["files"]) == ["KEK.crt", "KEK.key", "PK.crt", "PK.key", "db.crt"]
    assert not (tmp_path / "keys/db.key").exists()
    assert load_certificates(tmp_path / "keys").database.public_key() == DATABASE.public_key()
    said = umec(token, "nodeimage", "keys", str(tmp_path / "none"), "--key", "pkcs11:token=city;object=signer")
    assert said["code"] == "pkcs11-key-unfit"


def test_a_key_in_a_token_does_not_become_an_owner_s(token: dict[str, str], tmp_path: Path) -> None:
    folder, key = tmp_path / "owner", "pkcs11:token=city;object=signer"
    said = umec(token, "nodeimage", "keys", str(folder), "--owner", "--key", key)
    assert said["code"] == "invalid-input"
    assert not folder.exists()
    assert sorted(umec(token, "nodeimage", "keys", str(folder), "--owner")["files"]) == ["owner.key", "owner.pem"]
