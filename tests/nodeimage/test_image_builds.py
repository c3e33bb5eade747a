"""The minimal image, really built: twice to the same bytes, from a lock, and as other programs read it."""

import hashlib
import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from umec_images.nodeimage.builder import Plan, build_image
from umec_images.nodeimage.errors import PackageNotLocked, TargetTaken
from umec_images.nodeimage.fetch import Sources
from umec_images.nodeimage.keys import load_certificates, load_signer, make_keys
from umec_images.nodeimage.lock import load_lock
from umec_images.nodeimage.recipe import Recipe, load_recipe

pytestmark = pytest.mark.vm

MINIMAL = Path(__file__).parents[2] / "images" / "recipes" / "minimal.toml"
CACHE = Path.home() / ".cache" / "umec" / "nodeimage"
FILES = {
    *("uki.efi", "root.img", "disk.img", "vars.fd", "firmware.json", "manifest.json", "sbom.cdx.json"),
    *("packages.lock", "sizes.json", "efivars"),
}


def plan_of(keys: Path, recipe: Recipe, **further) -> Plan:
    return Plan(
        recipe=recipe,
        folder=MINIMAL.parent,
        keys=load_certificates(keys),
        signer=load_signer(keys),
        sources=Sources(CACHE, recipe.suite, None),
        **further,
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("secure-boot") / "keys"
    make_keys(folder, datetime(2026, 1, 1, tzinfo=UTC))
    return folder


@pytest.fixture(scope="module")
def image(keys, tmp_path_factory) -> Path:
    said: list[str] = []
    built = build_image(plan_of(keys, load_recipe(MINIMAL)), tmp_path_factory.mktemp("built") / "image", said.append)
    assert said
    return built.folder


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def program(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_everything_of_the_contract_is_there_and_in_the_manifest(image):
    assert {path.name for path in image.iterdir()} == FILES
    manifest = json.loads((image / "manifest.json").read_text())
    found = digests(image)
    del found["manifest.json"]
    assert {name: each["sha256"] for name, each in manifest["files"].items()} == found
    assert manifest["root_hash"] in manifest["command_line"]


def test_the_same_inputs_give_the_same_bytes(image, keys, tmp_path):
    again = build_image(plan_of(keys, load_recipe(MINIMAL)), tmp_path / "again", lambda _: None)
    assert digests(again.folder) == digests(image)


def test_a_lock_gives_the_same_bytes_without_any_list_of_packages(image, keys, tmp_path):
    (tmp_path / "cache").mkdir()
    shutil.copytree(CACHE / "debs", tmp_path / "cache/debs", copy_function=shutil.copyfile)
    plan = plan_of(keys, load_recipe(MINIMAL), locked=load_lock(image / "packages.lock"))
    nowhere = Sources(tmp_path / "cache", "bookworm", "file:///nothing-is-here")
    built = build_image(
        Plan(plan.recipe, plan.folder, plan.keys, plan.signer, nowhere, plan.locked), tmp_path / "again", lambda _: None
    )
    assert digests(built.folder) == digests(image)


def test_a_recipe_that_wants_more_than_the_lock_is_refused(image, keys, tmp_path):
    recipe = load_recipe(MINIMAL)
    more = recipe.model_copy(update={"packages": [*recipe.packages, "nftables"]})
    with pytest.raises(PackageNotLocked, match="nftables") as caught:
        build_image(plan_of(keys, more, locked=load_lock(image / "packages.lock")), tmp_path / "x", lambda _: None)
    assert caught.value.code == "package-not-locked"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_never_replaced(keys, tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(TargetTaken) as caught:
        build_image(plan_of(keys, load_recipe(MINIMAL)), tmp_path, lambda _: None)
    assert caught.value.code == "image-folder-taken"
    assert (tmp_path / "precious").read_text() == "x"


def test_veritysetup_verifies_the_root_file_system(image, tmp_path):
    manifest = json.loads((image / "manifest.json").read_text())
    offset = f"--hash-offset={manifest['verity']['hash_offset']}"
    root = shutil.copyfile(image / "root.img", tmp_path / "root.img")
    program("veritysetup", "verify", root, root, manifest["root_hash"], offset)
    with root.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    assert subprocess.run(
        ["veritysetup", "verify", root, root, manifest["root_hash"], offset], capture_output=True, check=False
    ).returncode


def test_sbverify_believes_the_signature(image, keys):
    assert "OK" in program("sbverify", "--cert", keys / "db.crt", image / "uki.efi")


def test_other_programs_read_disk_and_efi_partition(image, tmp_path):
    table = json.loads(program("sfdisk", "--json", image / "disk.img"))["partitiontable"]
    assert [each["name"] for each in table["partitions"]] == ["esp", "root-a", "root-b", "data"]
    esp = table["partitions"][0]
    with (image / "disk.img").open("rb") as disk:
        disk.seek(esp["start"] * 512)
        (tmp_path / "esp").write_bytes(disk.read(esp["size"] * 512))
    program("fsck.vfat", "-n", tmp_path / "esp")
    program("mcopy", "-i", tmp_path / "esp", "::EFI/BOOT/BOOTX64.EFI", tmp_path / "uki.efi")
    assert (tmp_path / "uki.efi").read_bytes() == (image / "uki.efi").read_bytes()


def test_no_program_of_the_root_file_system_is_set_uid_and_all_is_dated_once(image, tmp_path):
    program("unsquashfs", "-q", "-n", "-d", tmp_path / "root", image / "root.img")
    moment = json.loads((image / "manifest.json").read_text())["moment"]
    for path in (tmp_path / "root").rglob("*"):
        found = path.lstat()
        assert found.st_mode & 0o6000 == 0
        assert found.st_mtime == moment or path.is_symlink()
    names = {path.name for path in (tmp_path / "root/usr/bin").iterdir()}
    assert not names & {"apt-get", "dpkg-query", "perl"}
