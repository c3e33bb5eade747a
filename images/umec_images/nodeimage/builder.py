"""Build a node image: from a recipe to the folder that is booted, predicted, signed and published.

1. Packages: resolved, or taken from a lock; fetched by digest.
2. The tree: packages, Python, the recipe's files, the system's own; the kernel's configuration is checked.
3. initrd, squashfs, dm-verity; its root hash goes into the command line.
4. The unified kernel image, signed; the variables of the firmware with the certificates.
5. The disk, and papers: manifest, lock, bill of materials, sizes.
"""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from umec_images.nodeimage import content, disk, fat, initrd, kernel, python, tree
from umec_images.nodeimage.authenticode import Signer, sign_image
from umec_images.nodeimage.catalog import needed
from umec_images.nodeimage.errors import DiskTooSmall, RecipeInvalid
from umec_images.nodeimage.fetch import Sources
from umec_images.nodeimage.keys import SecureBootKeys
from umec_images.nodeimage.lock import Lock, LockedPackage, check_python, locked_packages, render_lock
from umec_images.nodeimage.maker import STUB, check_maker, made_with
from umec_images.nodeimage.recipe import MEASURED, Recipe
from umec_images.nodeimage.sbom import bill_of_materials
from umec_images.nodeimage.target import MANIFEST, check_target, put_in_place
from umec_images.nodeimage.tools import require_file, run
from umec_images.nodeimage.uki import assemble
from umec_images.nodeimage.variables import measured_variables, variable_store
from umec_images.nodeimage.verity import BLOCK, Verity, append_tree

__all__ = ["Built", "Plan", "build_image", "moment"]

MOMENT: Final = 1_735_689_600
"""2025-01-01, in seconds since 1970: the date of everything in an image, unless SOURCE_DATE_EPOCH says another."""
FIRMWARE: Final = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
EMPTY_STORE: Final = "/usr/share/OVMF/OVMF_VARS_4M.fd"
BOOT_FILE: Final = "EFI/BOOT/BOOTX64.EFI"
"""What a firmware starts that has no boot entries (UEFI 2.10 §3.5.1.1)."""
OTHER_FILE: Final = "EFI/BOOT/OTHER.EFI"
"""Where an update puts the next one (`umec_images.update.disk`)."""
UPDATE_FILES: Final = {f"EFI/UMEC/STATE{number}.BIN": bytes(512) for number in range(2)}
"""Where updates keep what they have come to; nothing yet (`umec_images.update.state`)."""

_ESP: Final = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_ROOT: Final = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
_DATA: Final = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is built of what: `folder` is where the recipe's files lie, `locked` the only packages that may be used."""

    recipe: Recipe
    folder: Path
    keys: SecureBootKeys
    signer: Signer
    sources: Sources
    locked: Lock | None = None
    moment: int = MOMENT
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Built:
    """A finished image: its manifest and the sizes of its parts in bytes."""

    folder: Path
    manifest: Mapping[str, Any]
    sizes: Mapping[str, int]


def moment(environment: Mapping[str, str]) -> int:
    """Return the date of everything in an image, in seconds since 1970. Raises RecipeInvalid."""
    said = environment.get("SOURCE_DATE_EPOCH")
    if said is None:
        return MOMENT
    if not (said.isascii() and said.isdecimal() and int(said) < 2**32):
        raise RecipeInvalid("SOURCE_DATE_EPOCH is no number of seconds since 1970")
    return int(said)


def build_image(plan: Plan, target: Path, say: Say) -> Built:
    """Build an image into a folder, which appears when everything is in it. `say` hears how far it is.

    An older image there is replaced; anything else is not: TargetTaken.
    """
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o022)  # modes of folders go into the image
    try:
        built = _build_apart(plan, target, say)
    finally:
        os.umask(before)
    return Built(target, built.manifest, built.sizes)


def _build_apart(plan: Plan, target: Path, say: Say) -> Built:
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        out = Path(scratch) / "image"
        out.mkdir(mode=0o755)
        built = _build(plan, Path(scratch) / "root", out, say)
        put_in_place(out, target, Path(scratch) / "older")
    return built


def _build(plan: Plan, root: Path, out: Path, say: Say) -> Built:
    recipe = plan.recipe
    say("packages: which ones")
    lock = _lock(plan, say)
    say(f"packages: {len(lock.debian)} of Debian, {len(lock.python)} of Python")
    debs = plan.sources.fetch(lock.debian)
    say("root file system: putting it together")
    root.mkdir()
    tree.prepare(root)
    for package in debs:
        tree.unpack(package, root, keep=("boot/",))
    found = kernel.find_kernel(root)
    kernel.check_configuration(found.configuration.read_text(encoding="utf-8"))
    first = initrd.make_initrd(root, found, recipe.kernel.first_modules, content.guest_program("first.sh"), plan.moment)
    linux = found.image.read_bytes()
    _complete(plan, root, found)
    say("root file system: squashfs and dm-verity")
    verity = _squash(root, out / "root.img", recipe, plan.moment)
    command_line = _command_line(recipe, verity)
    say("kernel image: assembling and signing")
    parts = {
        ".osrel": content.os_release(recipe),
        ".cmdline": command_line.encode(),
        ".initrd": first,
        ".linux": linux,
    }
    uki = sign_image(assemble(require_file(STUB).read_bytes(), parts), plan.signer)
    (out / "uki.efi").write_bytes(uki)
    _firmware(plan.keys, out)
    say("disk: writing")
    _disk(recipe, uki, out)
    sizes = {"uki.efi": len(uki), "kernel": len(linux), "initrd": len(first)}
    sizes |= {name: (out / name).stat().st_size for name in ("root.img", "disk.img")}
    sizes |= {f"packages/{each.name}": path.stat().st_size for each, path in zip(lock.debian, debs, strict=True)}
    _papers(plan, lock, verity, sizes, out)
    manifest = _manifest(plan, found.release, verity, command_line, out)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return Built(out, manifest, sizes)


def _lock(plan: Plan, say: Say) -> Lock:
    recipe = plan.recipe
    maker = made_with(host=recipe.host is not None)
    wanted = sorted({*content.wanted_packages(recipe), recipe.kernel.package, *initrd.PACKAGES})
    distributions = python.locked_distributions(recipe.distributions)
    if plan.locked is not None:
        check_python(distributions, plan.locked)
        check_maker(maker, plan.locked, say)
        return Lock(debian=locked_packages(wanted, plan.locked), python=distributions, maker=maker)
    offers = needed(wanted, plan.sources.offers(), recipe.exclude)
    debian = [LockedPackage(name=each.name, version=each.version, sha256=each.sha256) for each in offers]
    return Lock(debian=debian, python=distributions, maker=maker)


def _complete(plan: Plan, root: Path, found: kernel.Kernel) -> None:
    """Everything that is not a file of a Debian package."""
    recipe = plan.recipe
    shutil.rmtree(root / "boot")
    modules = content.wanted_modules(recipe)
    content.place_modules(root, found, modules, kernel.module_order(modules, found))
    if recipe.distributions:
        python.place_distributions(root, recipe.distributions)
        python.place_own(root, host=recipe.host is not None)
    content.place_system(root, recipe, plan.folder)
    content.place_applets(root)
    tree.remove_unwanted(root)
    python.compile_tree(root)


def _squash(root: Path, image: Path, recipe: Recipe, moment: int) -> Verity:
    options = ["-noappend", "-no-progress", "-quiet", "-all-root", "-no-xattrs", "-no-exports", "-comp", "zstd"]
    options += ["-all-time", str(moment), "-mkfs-time", str(moment), "-b", "128K", "-Xcompression-level", "9"]
    run(["mksquashfs", str(root), str(image), *options])
    salt = hashlib.sha256(f"{recipe.name}/{recipe.version}".encode()).digest()
    return append_tree(image, salt)


def _command_line(recipe: Recipe, verity: Verity) -> str:
    words = ["root=/dev/mapper/root", "ro", f"umec.version={recipe.version}", f"roothash={verity.root_hash.hex()}"]
    words += [f"umec.verity={verity.blocks}:{verity.salt.hex()}", *recipe.command_line]
    return " ".join([*words, *MEASURED])


def _firmware(keys: SecureBootKeys, out: Path) -> None:
    code = require_file(FIRMWARE)
    (out / "vars.fd").write_bytes(variable_store(require_file(EMPTY_STORE).read_bytes(), keys))
    (out / "efivars").mkdir()
    for name, value in measured_variables(keys).items():
        (out / "efivars" / name).write_bytes(value)
    version = run(["dpkg-query", "-W", "-f", "${Version}", "ovmf"])
    said = {"code": str(code), "sha256": hashlib.sha256(code.read_bytes()).hexdigest(), "version": version}
    (out / "firmware.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _disk(recipe: Recipe, uki: bytes, out: Path) -> None:
    sizes = recipe.disk
    partitions = [
        disk.Partition("esp", _ESP, sizes.esp * disk.MEBIBYTE),
        disk.Partition("root-a", _ROOT, sizes.root * disk.MEBIBYTE),
        disk.Partition("root-b", _ROOT, sizes.root * disk.MEBIBYTE),
        disk.Partition("data", _DATA, sizes.data * disk.MEBIBYTE),
    ]
    files, size = {BOOT_FILE: uki} | UPDATE_FILES, sizes.esp * disk.MEBIBYTE
    fat.file_system(files | {OTHER_FILE: uki}, size)  # the next kernel image has to fit beside this one
    if recipe.owner is not None and (out / "root.img").stat().st_size > partitions[1].size - disk.APPROVAL_AREA:
        raise DiskTooSmall("the slot has no room for an approval behind root.img", advice="enlarge [disk] root")
    pieces = [("esp", *piece) for piece in fat.file_system(files, size)]
    disk.write_disk(out / "disk.img", partitions, recipe.name, pieces, [("root-a", out / "root.img")])


def _papers(plan: Plan, lock: Lock, verity: Verity, sizes: Mapping[str, int], out: Path) -> None:
    (out / "packages.lock").write_bytes(render_lock(lock))
    (out / "sbom.cdx.json").write_bytes(bill_of_materials(plan.recipe, lock, verity.root_hash, plan.moment))
    (out / "sizes.json").write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")


def _manifest(plan: Plan, release: str, verity: Verity, command_line: str, out: Path) -> dict[str, Any]:
    files = {
        path.relative_to(out).as_posix(): {"sha256": _sha256(path), "size": path.stat().st_size}
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }
    return {
        "name": plan.recipe.name,
        "version": plan.recipe.version,
        "suite": plan.recipe.suite,
        "kernel": release,
        "command_line": command_line,
        "root_hash": verity.root_hash.hex(),
        "verity": {"salt": verity.salt.hex(), "blocks": verity.blocks, "hash_offset": verity.blocks * BLOCK},
        "moment": plan.moment,
        "owner": content.owner_identity(plan.recipe, plan.folder),
        "files": files,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
