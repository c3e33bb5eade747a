"""The next image is taken by the digest of its manifest, and by nothing else."""

import hashlib
import json

import pytest
from typer.testing import CliRunner

from umec_images.nodeimage.artifact.errors import PapersInvalid
from umec_images.nodeimage.errors import RootOther
from umec_images.update import check_root_file, verify_image
from umec_images.update.errors import ImageOther, ManifestOther
from umec_platform.cli.main import build


@pytest.fixture
def made(image_maker):
    return image_maker("image", 2)


def digest_of(folder, change=None):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if change is not None:
        change(manifest)
        path.write_text(json.dumps(manifest))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_image_is_what_its_manifest_says(made):
    image = verify_image(made.folder, made.digest)
    assert (image.kernel.name, image.kernel.version, image.kernel.root_hash) == ("street-node", 2, made.root_hash)
    assert image.root_size == (made.folder / "root.img").stat().st_size


def test_a_manifest_with_another_digest_is_refused(made):
    for digest in ("00" * 32, "", made.digest.upper(), f"sha256:{made.digest}"):
        with pytest.raises(ManifestOther, match="was asked for") as caught:
            verify_image(made.folder, digest)
        assert caught.value.code == "update-manifest-other"


@pytest.mark.parametrize("name", ["uki.efi", "root.img"])
def test_a_file_with_other_bytes_is_refused(made, name):
    path = made.folder / name
    good = path.read_bytes()
    for content in (good[:-1] + bytes([good[-1] ^ 1]), good + b"\0", b""):
        path.write_bytes(content)
        with pytest.raises(ImageOther, match=name) as caught:
            verify_image(made.folder, made.digest)
        assert caught.value.code == "update-image-other"
    path.unlink()
    with pytest.raises(ImageOther, match="No such file"):
        verify_image(made.folder, made.digest)
    path.write_bytes(good)
    verify_image(made.folder, made.digest)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ImageOther, match=r"manifest\.json") as caught:
        verify_image(tmp_path, "00" * 32)
    assert caught.value.code == "update-image-other"


def test_a_manifest_without_a_part_is_refused(made):
    digest = digest_of(made.folder, lambda manifest: manifest["files"].pop("root.img"))
    with pytest.raises(ImageOther, match=r"names no root\.img") as caught:
        verify_image(made.folder, digest)
    assert caught.value.code == "update-image-other"


def test_a_manifest_that_is_none_is_refused(made):
    digest = digest_of(made.folder, lambda manifest: manifest.update(version="2"))
    with pytest.raises(PapersInvalid) as caught:
        verify_image(made.folder, digest)
    assert caught.value.code == "node-image-manifest-invalid"


@pytest.mark.parametrize(("name", "value"), [("version", 3), ("name", "lamp")])
def test_a_manifest_that_says_something_else_than_what_is_signed_is_refused(made, name, value):
    digest = digest_of(made.folder, lambda manifest: manifest.update({name: value}))
    with pytest.raises(ImageOther, match="the kernel image street-node 2") as caught:
        verify_image(made.folder, digest)
    assert caught.value.code == "update-image-other"
    verify_image(made.folder, digest_of(made.folder, lambda manifest: manifest.update(name="street-node", version=2)))


def replaced(folder, name, content):
    (folder / name).write_bytes(content)

    def change(manifest):
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}

    return digest_of(folder, change)


def test_something_else_than_a_kernel_image_is_refused(made):
    with pytest.raises(ImageOther, match=r"uki\.efi: this is no kernel image") as caught:
        verify_image(made.folder, replaced(made.folder, "uki.efi", b"MZ" + bytes(1000)))
    assert caught.value.code == "update-image-other"


@pytest.mark.parametrize("size", [40 * 4096, 42 * 4096 + 512])
def test_a_root_of_another_size_is_refused(made, size):
    with pytest.raises(ImageOther, match="opens 40 blocks") as caught:
        verify_image(made.folder, replaced(made.folder, "root.img", bytes(size)))
    assert caught.value.code == "update-image-other"


def test_a_file_that_no_memory_holds_is_refused(made):
    with (made.folder / "uki.efi").open("r+b") as file:
        file.truncate(256 * 1024 * 1024 + 1)
    with pytest.raises(ImageOther, match="has more than") as caught:
        verify_image(made.folder, made.digest)
    assert caught.value.code == "update-image-other"


def test_what_may_run_is_said_of_the_root_that_the_kernel_image_opens(made, image_maker, tmp_path):
    root, damaged = made.folder / "root.img", tmp_path / "damaged.img"
    content = bytearray(root.read_bytes())
    content[5] ^= 1
    damaged.write_bytes(content)
    runner, words = CliRunner(), ["nodeimage", "predict", str(made.folder), "--json", "--root"]
    for other in (image_maker("other", 3).folder / "root.img", damaged, tmp_path, tmp_path / "absent"):
        with pytest.raises(RootOther, match="not the root") as caught:
            check_root_file(made.folder, other)
        assert caught.value.code == "node-image-root-other"
        assert json.loads(runner.invoke(build(), [*words, str(other)]).stdout)["code"] == "node-image-root-other"
    check_root_file(made.folder, root)
    assert json.loads(runner.invoke(build(), [*words, str(root)]).stdout)["code"] == "image-folder-invalid"  # next
