"""What an image has that no package brings: its name, its users, its site, and the programs that start everything."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from umec_core.errors import UmecError
from umec_core.jose import KeySet
from umec_images.nodeimage.elf import applets
from umec_images.nodeimage.errors import RecipeInvalid
from umec_images.nodeimage.kernel import Kernel
from umec_images.nodeimage.recipe import MAX_FILE, Host, Recipe, Site
from umec_images.nodeimage.tools import run
from umec_images.nodeimage.tree import place_file, place_link, read_file

__all__ = [
    "guest_program",
    "os_release",
    "owner_identity",
    "place_applets",
    "place_modules",
    "place_system",
    "wanted_modules",
    "wanted_packages",
]

USERS: Final = {"root": 0, "umec-agent": 900, "unbound": 901, "nobody": 65534}
GROUPS: Final[Mapping[str, tuple[int, str]]] = {
    "root": (0, ""),
    "umec-agent": (900, ""),
    "unbound": (901, ""),
    "tss": (902, "umec-agent"),
    "nogroup": (65534, ""),
}
"""Number and further members."""
BUSYBOX: Final = "usr/bin/busybox"
OWNER: Final = "/etc/umec/owner.pem"
"""Whose approvals open what nodes of the image sealed; where it is, the data partition is encrypted."""
OWNER_PACKAGES: Final = ("dmsetup", "e2fsprogs")
OWNER_MODULES: Final = ("dm_crypt", "ecb", "xts", "aesni_intel")
"""AES-XTS for the volume; where the processor has none of it, the kernel makes it of ECB."""
PROGRAMS: Final = ("approval", "data", "dhcp", "init", "making", "measure", "netd", "unlock", "update")
"""`guest/NAME.sh`, which lie in /usr/lib/umec; `making` is read by others."""
SUBJECT: Final = PublicFormat.SubjectPublicKeyInfo


def guest_program(name: str) -> bytes:
    """Return a program that runs in the image."""
    return files("umec_images.nodeimage").joinpath("guest", name).read_bytes()


def os_release(recipe: Recipe) -> bytes:
    """Return os-release(5): in the root file system, and measured with the kernel."""
    lines = {
        "ID": "umec",
        "ID_LIKE": "debian",
        "NAME": "umec",
        "PRETTY_NAME": f'"{recipe.name} {recipe.version}"',
        "IMAGE_ID": recipe.name,
        "IMAGE_VERSION": str(recipe.version),
        "VERSION_ID": str(recipe.version),
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode()


def place_system(root: Path, recipe: Recipe, folder: Path) -> None:
    """Place what the recipe says and what every image has. `folder` is the recipe's. Raises RecipeInvalid."""
    texts = {
        "/etc/os-release": os_release(recipe),
        "/etc/hostname": b"node\n",
        "/etc/hosts": b"127.0.0.1 localhost\n::1 localhost\n",
        "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/passwd": _passwd(),
        "/etc/group": _group(),
    }
    for target, content in texts.items():
        place_file(root, target, content)
    place_link(root, "/etc/resolv.conf", "/run/resolv.conf")
    place_link(root, "/etc/mtab", "/proc/self/mounts")
    for name in PROGRAMS:
        place_file(root, f"/usr/lib/umec/{name}", guest_program(f"{name}.sh"), executable=True)
    place_file(root, "/etc/umec/ima-policy", guest_program("ima-policy"))
    place_file(root, "/etc/umec/trial-seconds", f"{recipe.update.trial_seconds}\n".encode())
    if recipe.owner is not None:
        place_file(root, OWNER, _owner(recipe.owner, folder).public_bytes(Encoding.PEM, SUBJECT))
    if recipe.site is not None:
        place_file(root, "/etc/umec/site-ca.pem", _read(folder, recipe.site.ca))
        node = {"url": recipe.site.url, "ca": "/etc/umec/site-ca.pem"}
        place_file(root, "/etc/umec/node.json", (json.dumps(node, indent=2) + "\n").encode())
    if recipe.host is not None and recipe.site is not None:
        _place_host(root, recipe.host, recipe.site, folder)
    for each in recipe.files:
        place_file(root, each.target, _read(folder, each.source), executable=each.executable)


def _place_host(root: Path, host: Host, site: Site, folder: Path) -> None:
    """Place what netd reads: its settings, with the keys of those whose word counts, and addresses of interfaces."""
    if site.keys is None:
        raise RecipeInvalid(
            "a host has to know the keys of its site: --site-keys FOLDER, where `umec up` keeps its state"
        )
    settings = {
        "verifier_issuer": f"{site.url}/attest/v1",
        "verifier_jwks": _keys(folder, f"{site.keys}/verifier.jwks.json"),
        "decision_issuer": f"{site.url}/platform/v1",
        "decision_jwks": _keys(folder, f"{site.keys}/decision.jwks.json"),
        "access": host.access,
        "access_address": host.address,
        "pool": host.pool,
        "services": host.services,
        "lease_seconds": host.lease_seconds,
    }
    place_file(root, "/etc/umec/host.json", (json.dumps(settings, indent=2) + "\n").encode())
    place_file(root, "/etc/umec/site", f"{site.url}\n".encode())
    addresses = [host.address, *("" for _ in host.access[1:])]
    lines = "".join(f"{name} {address}\n" for name, address in zip(host.access, addresses, strict=True))
    place_file(root, "/etc/umec/access", lines.encode())


def _keys(folder: Path, name: str) -> dict[str, object]:
    """Return a set of public keys (JWKS)."""
    try:
        found = dict(json.loads(_read(folder, name)))
        KeySet.from_jwks(found)
    except (ValueError, TypeError, UmecError) as error:
        raise RecipeInvalid(f"{name} is no key set: {error}") from error
    return found


def owner_identity(recipe: Recipe, folder: Path) -> str | None:
    """Return the SHA-256 (hex) of the owner's SubjectPublicKeyInfo, or None for no owner. Raises RecipeInvalid."""
    if recipe.owner is None:
        return None
    return hashlib.sha256(_owner(recipe.owner, folder).public_bytes(Encoding.DER, SUBJECT)).hexdigest()


def wanted_packages(recipe: Recipe) -> tuple[str, ...]:
    """Return the packages that the recipe names, and those that its image needs besides."""
    return (*recipe.packages, *(() if recipe.owner is None else OWNER_PACKAGES))


def wanted_modules(recipe: Recipe) -> tuple[str, ...]:
    """Return the modules that are loaded from the root file system."""
    return (*recipe.kernel.modules, *(() if recipe.owner is None else OWNER_MODULES))


def place_applets(root: Path) -> None:
    """Link every command that BusyBox has and no package brings. Raises ContentRefused."""
    for name in applets(read_file(root, BUSYBOX)):
        if not any(
            (root / "usr" / place / name).is_symlink() or (root / "usr" / place / name).exists()
            for place in ("bin", "sbin")
        ):
            place_link(root, f"/usr/bin/{name}", "busybox")


def place_modules(root: Path, kernel: Kernel, wanted: Sequence[str], order: Sequence[str]) -> None:
    """Keep these modules (by their paths) alone, write down which to load, and index them."""
    kept = set(order)
    for path in kernel.modules.values():
        if path not in kept:
            (kernel.folder / path).unlink()
    place_file(root, "/etc/umec/modules", "".join(f"{name}\n" for name in wanted).encode())
    run(["depmod", "-b", str(root), kernel.release])


def _owner(name: str, folder: Path) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        key = load_pem_public_key(_read(folder, name))
    except ValueError as error:
        raise RecipeInvalid(f"{name} holds no public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise RecipeInvalid(f"{name}: an owner's key is RSA, or on P-256 or P-384")
    return key


def _passwd() -> bytes:
    lines = (
        f"{name}:x:{number}:{GROUPS.get(name, (65534, ''))[0]}::{'/root' if number == 0 else '/'}:/usr/sbin/nologin\n"
        for name, number in USERS.items()
    )
    return "".join(lines).encode()


def _group() -> bytes:
    return "".join(f"{name}:x:{number}:{members}\n" for name, (number, members) in GROUPS.items()).encode()


def _read(folder: Path, name: str) -> bytes:
    """Return a file of the recipe's folder; an absolute path is one that an option of the build gave."""
    path = folder / name
    try:
        if not Path(name).is_absolute() and not path.resolve().is_relative_to(folder.resolve()):
            raise RecipeInvalid(f"{path} leads out of the folder of the recipe")
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise RecipeInvalid(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE:
        raise RecipeInvalid(f"{path} has more than {MAX_FILE} bytes")
    return content
