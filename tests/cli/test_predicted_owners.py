"""What `umec nodeimage predict` says of the owner of an image, and what it refuses to say."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from umec_attest.reference import read_reference_set
from umec_attest.testing.image import make_image
from umec_core.errors import UmecError
from umec_core.keys import load_or_create_key
from umec_platform.cli.nodeimage import app
from umec_platform.cli.owners import check_name, owner_of

OWNER = ec.generate_private_key(ec.SECP256R1()).public_key()
OTHER = ec.generate_private_key(ec.SECP256R1()).public_key()


def pem(folder: Path, key: Any, name: str = "owner.pem") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def predicted(tmp_path: Path, *more: str) -> Any:
    """Sign the set of a simulated image, and read it again."""
    image, key, out = make_image(tmp_path / "image"), tmp_path / "signer.key", tmp_path / "set.json"
    words = ["predict", str(image), "--name", "edge", "--version", "1", "--key", str(key), "--out", str(out), *more]
    ended = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return read_reference_set(out.read_bytes(), signers=[load_or_create_key(key).public_key()])


def test_a_set_says_who_owns_the_image(tmp_path: Path) -> None:
    assert predicted(tmp_path / "a").owner is None
    draft = tmp_path / "draft.json"
    given = predicted(tmp_path / "b", "--owner", str(pem(tmp_path, OWNER)), "--draft", str(draft))
    assert given.owner == OWNER
    assert "BEGIN PUBLIC KEY" in json.loads(draft.read_text())["owner"]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The manifest of an image that was built with an owner, and its root file system."""
    spki = OWNER.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "edge", "owner": hashlib.sha256(spki).hexdigest()}))
    pem(tmp_path / "files" / "etc" / "umec", OWNER)
    (tmp_path / "bare").mkdir()
    return tmp_path


def refused(work: Any) -> None:
    with pytest.raises(UmecError) as raised:
        work()
    assert raised.value.code == "invalid-input"


def test_a_built_image_has_the_owner_that_it_was_built_with(built: Path) -> None:
    assert owner_of(built, built / "files", None) == OWNER
    assert owner_of(built, None, pem(built, OWNER)) == OWNER
    for files, key in ((None, None), (built / "bare", None), (None, OTHER), (built / "files", OTHER)):
        given = None if key is None else pem(built, key)
        refused(lambda files=files, given=given: owner_of(built, files, given))
    check_name(built, "edge")
    refused(lambda: check_name(built, "other"))


def test_an_image_that_was_built_without_one_gets_none(built: Path) -> None:
    (built / "manifest.json").write_text(json.dumps({"name": "edge", "owner": None}))
    assert owner_of(built, built / "bare", None) is None
    refused(lambda: owner_of(built, None, pem(built, OWNER)))
    (built / "manifest.json").unlink()
    assert owner_of(built, None, pem(built, OWNER)) == OWNER  # one for simulated boots says nothing of that
    check_name(built, "any")
