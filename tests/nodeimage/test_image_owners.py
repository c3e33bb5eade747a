"""Images with an owner: what the build puts into them for that, and the approval that the owner signs afterwards."""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from typer.testing import CliRunner

from umec_attest.predict import predict
from umec_attest.sealed import load_owner, verify_approval
from umec_attest.testing.image import make_image
from umec_images.machine.partitions import read_span, spans
from umec_images.nodeimage.approval import place_approval
from umec_images.nodeimage.content import owner_identity, place_system, wanted_modules, wanted_packages
from umec_images.nodeimage.disk import APPROVAL_AREA, MEBIBYTE, Partition, approval_area, write_disk
from umec_images.nodeimage.keys import make_owner_key
from umec_images.nodeimage.recipe import Recipe, parse_recipe, with_owner
from umec_platform.cli.main import build

RECIPE = b"""
name = "lamp"
version = 3
packages = ["python3"]
[kernel]
package = "linux-image"
modules = ["virtio_net"]
"""
PCRS = ("--pcr", "4", "--pcr", "7", "--pcr", "11")
"""Of simulated boots, which measure no others exactly."""


def spki(pem: bytes) -> str:
    key = load_pem_public_key(pem)
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    """The folder of an owner's key."""
    make_owner_key(tmp_path / "owner")
    return tmp_path / "owner"


def owned(owner: Path) -> Recipe:
    return with_owner(parse_recipe(RECIPE), owner / "owner.pem")


def test_an_image_says_who_owns_it(owner: Path, tmp_path: Path) -> None:
    place_system(tmp_path / "root", owned(owner), tmp_path)
    placed = tmp_path / "root/etc/umec/owner.pem"
    assert placed.read_bytes() == (owner / "owner.pem").read_bytes()
    assert owner_identity(owned(owner), tmp_path) == spki(placed.read_bytes())
    load_owner(placed.read_bytes())


def test_an_image_without_an_owner_has_none_of_it(owner: Path, tmp_path: Path) -> None:
    plain = parse_recipe(RECIPE)
    place_system(tmp_path / "root", plain, tmp_path)
    assert not (tmp_path / "root/etc/umec/owner.pem").exists()
    assert owner_identity(plain, tmp_path) is None
    assert (set(wanted_packages(plain)), set(wanted_modules(plain))) == ({"python3"}, {"virtio_net"})
    assert {"dmsetup", "python3"} <= set(wanted_packages(owned(owner)))
    assert {"dm_crypt", "xts", "virtio_net"} <= set(wanted_modules(owned(owner)))


def test_an_owner_of_the_recipe_lies_beside_it(owner: Path) -> None:
    for place in ("/etc/passwd", "../owner.pem"):
        with pytest.raises(Exception, match="owner") as caught:
            parse_recipe(f'owner = "{place}"'.encode() + RECIPE)
        assert getattr(caught.value, "code", None) == "recipe-invalid"
    recipe = parse_recipe(b'owner = "owner.pem"' + RECIPE)
    assert owner_identity(recipe, owner) == spki((owner / "owner.pem").read_bytes())


@pytest.mark.parametrize("kind", ["nothing", "private", "ed25519"])
def test_what_is_no_owner_s_key_makes_no_image(owner: Path, tmp_path: Path, kind: str) -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    files = {
        "nothing": b"no key",
        "private": (owner / "owner.key").read_bytes(),
        "ed25519": other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }
    (tmp_path / "other.pem").write_bytes(files[kind])
    with pytest.raises(Exception, match=r"other\.pem") as caught:
        place_system(tmp_path / "root", with_owner(parse_recipe(RECIPE), tmp_path / "other.pem"), tmp_path)
    assert getattr(caught.value, "code", None) == "recipe-invalid"


def test_an_owner_s_key_is_never_overwritten(owner: Path) -> None:
    before = (owner / "owner.key").read_bytes()
    assert (owner / "owner.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Exception, match="already has") as caught:
        make_owner_key(owner)
    assert getattr(caught.value, "code", None) == "image-keys-invalid"
    assert (owner / "owner.key").read_bytes() == before


# --- approvals ----------------------------------------------------------------------------------------------------


def make_folder(folder: Path, owner: Path | None, *, root: int = 8192, version: int = 3) -> Path:
    """What a build writes, as far as an approval needs it; the boot is a simulated one."""
    make_image(folder)
    (folder / "root.img").write_bytes(b"r" * root)
    partitions = [Partition(name, uuid.uuid4(), MEBIBYTE) for name in ("esp", "root-a", "root-b", "data")]
    write_disk(folder / "disk.img", partitions, "lamp", [], [("root-a", folder / "root.img")])
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for path in folder.iterdir()
        if path.is_file()
    }
    said = {"name": "lamp", "version": version, "root_hash": "00" * 32, "files": files}
    said["owner"] = None if owner is None else spki((owner / "owner.pem").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(said))
    return folder


def approve(folder: Path, owner: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(
        build(), ["nodeimage", "approve", str(folder), "--key", str(owner / "owner.key"), *PCRS, *words, "--json"]
    )
    return done.exit_code, json.loads(done.stdout)


def test_an_approval_is_of_what_the_image_will_measure(owner: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "image", owner)
    status, said = approve(folder, owner)
    assert (status, said["image"], said["version"], said["pcrs"]) == (0, "lamp", 3, [4, 7, 11])
    data = (folder / "approval").read_bytes()
    approval = verify_approval(data, load_owner((owner / "owner.pem").read_bytes()))
    values = predict(folder).pcrs
    assert (approval.image, approval.version) == ("lamp", 3)
    assert dict(approval.pcrs) == {pcr: values[pcr] for pcr in (4, 7, 11)}
    assert approve(folder, owner, "--version", "7")[1]["version"] == 7


def test_an_approval_goes_onto_the_disk_and_into_the_manifest(owner: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "image", owner)
    said = approve(folder, owner)[1]
    disk = folder / "disk.img"
    data, slots = (folder / "approval").read_bytes(), spans(disk)
    assert read_span(disk, slots["root-a"])[-APPROVAL_AREA:] == data.ljust(APPROVAL_AREA, b"\0")
    assert read_span(disk, slots["root-a"])[:8192] == b"r" * 8192
    assert read_span(disk, slots["root-b"]) == bytes(MEBIBYTE)
    manifest = (folder / "manifest.json").read_bytes()
    assert said["manifest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    files = json.loads(manifest)["files"]
    for name in ("approval", "disk.img", "root.img"):
        assert files[name]["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    disk.unlink()  # a fetched image has none
    assert approve(folder, owner)[0] == 0


def test_nobody_but_the_owner_approves(owner: Path, tmp_path: Path) -> None:
    make_owner_key(tmp_path / "thief")
    folder = make_folder(tmp_path / "image", owner)
    status, said = approve(folder, tmp_path / "thief")
    assert (status, said["code"]) == (1, "image-owner-other")
    plain = make_folder(tmp_path / "plain", None)
    assert approve(plain, owner)[1]["code"] == "image-owner-other"
    assert not (folder / "approval").exists()
    assert not (plain / "approval").exists()
    assert approve(folder, owner)[0] == 0


def test_a_version_that_no_tpm_counts_up_to_is_refused(owner: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "image", owner, version=20261122)
    assert "one by one" in approve(folder, owner)[1]["detail"]
    assert approve(folder, owner, "--version", "10001")[0] == 1
    assert approve(folder, owner, "--version", "10000")[0] == 0


def test_what_is_not_predicted_is_not_approved(owner: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "image", owner)
    assert "PCR 10" in approve(folder, owner, "--pcr", "10")[1]["detail"]
    assert not (folder / "approval").exists()


def test_an_approval_does_not_lie_over_the_root_file_system(owner: Path, tmp_path: Path) -> None:
    full = make_folder(tmp_path / "full", owner, root=MEBIBYTE - APPROVAL_AREA + 1)
    before = (full / "disk.img").read_bytes()
    assert approve(full, owner)[1]["code"] == "disk-too-small"
    assert (full / "disk.img").read_bytes() == before
    assert approve(make_folder(tmp_path / "image", owner, root=MEBIBYTE - APPROVAL_AREA), owner)[0] == 0


def test_the_area_of_an_approval_is_bounded(owner: Path, tmp_path: Path) -> None:
    assert approval_area(b"") == bytes(APPROVAL_AREA)
    assert approval_area(b"x" * APPROVAL_AREA) == b"x" * APPROVAL_AREA
    folder = make_folder(tmp_path / "image", owner)
    for bad in (b"x" * (APPROVAL_AREA + 1), b"x\0"):
        with pytest.raises(Exception, match="a text of at most") as caught:
            place_approval(folder, bad)
        assert getattr(caught.value, "code", None) == "image-content-refused"


def test_only_an_image_is_approved(owner: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "image", owner)
    for text in ("no JSON", "[]", '{"files": []}'):
        (folder / "manifest.json").write_text(text)
        assert approve(folder, owner)[1]["code"] == "node-image-manifest-invalid"
        with pytest.raises(Exception, match="manifest") as caught:
            place_approval(folder, b"{}")
        assert getattr(caught.value, "code", None) == "node-image-manifest-invalid"
    (folder / "manifest.json").unlink()
    assert approve(folder, owner)[0] == 1


def test_the_owner_s_key_stays_private(owner: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "image", owner)
    (owner / "owner.key").chmod(0o644)
    assert approve(folder, owner)[1]["code"] == "key-file-exposed"
    (owner / "owner.key").chmod(0o600)
    assert approve(folder, owner)[0] == 0
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    (owner / "owner.key").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert approve(folder, owner)[1]["code"] == "key-file-invalid"
