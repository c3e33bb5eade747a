"""`RECIPE.toml`: what a node image consists of.

name = "street-node"
version = 3                            a counter that never falls: a node takes no older image
suite = "bookworm"                     of Debian
packages = ["runc"]                    with all that they depend on
exclude = ["adduser"]                  left out, with what only they need
distributions = ["cryptography"]       Python's, of requirements.lock, with what they require
command-line = ["console=ttyS0"]       after what the build says itself
owner = "owner.pem"                    beside the recipe: whose approvals open the data partition; left out: unencrypted

[kernel]
package = "linux-image-cloud-amd64"
modules = ["virtio_net"]               in the root file system, with what they need
first-modules = ["virtio_blk"]         the same, for the initrd: what finds and opens the root file system

[disk]                                 MiB
esp = 64
root = 128
data = 64

[update]
trial-seconds = 900                    from the start on, in which a new image has to be trusted and get its certificate

[site]                                 where the node belongs; the options of `umec nodeimage build` win
url = "https://site.example:8443"
ca = "ca.pem"                          beside the recipe
keys = "keys"                          verifier.jwks.json and decision.jwks.json of the site: for a host

[host]                                 the node runs applications; left out: it attests and runs none
access = ["eth1"]                      interfaces towards the users, the first of which has the address
address = "192.0.2.1/24"
pool = "10.64.0.0/16"                  each tenant gets a /24 of it
services = ["10.0.0.1:8444"]           what every instance may call by TCP: token endpoint and Mp1
lease-seconds = 90.0                   how long rules hold without a statement that the node stands

[[files]]
source = "unbound.conf"                beside the recipe
target = "/etc/unbound/unbound.conf"
"""

import tomllib
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from umec_images.nodeimage.errors import RecipeInvalid

__all__ = [
    "MEASURED",
    "Disk",
    "File",
    "Kernel",
    "Recipe",
    "Site",
    "Update",
    "load_recipe",
    "parse_recipe",
    "with_owner",
    "with_site",
]

MAX_RECIPE: Final = 64 * 1024
"""Bytes; a recipe has some dozens of lines."""
RESERVED: Final = frozenset(
    {"init", "initcall_blacklist", "initrd", "rdinit", "ro", "root", "roothash", "rw", "umec.verity", "umec.version"}
)
"""Words of the command line that a recipe may not say, nor any that begin with `ima`."""
MEASURED: Final = ("ima_policy=tcb", "ima_hash=sha256")
"""Words of every command line: the kernel measures all that it starts, by SHA-256."""
PLACES: Final = ("/etc/", "/opt/", "/srv/", "/usr/share/")
"""Where a recipe's files may lie: nothing is started from there, but what the recipe brings itself."""
OWN: Final = (
    *("/etc/group", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd"),
    *("/etc/resolv.conf", "/etc/umec/", "/etc/ld.so", "/etc/modprobe.d/", "/etc/python", "/etc/ssl/"),
)
"""What begins so is for the build to place, or says what programs of others load."""
MAX_FILE: Final = 16 * 1024 * 1024
"""Bytes of a file that lies beside a recipe."""


def _not_of_the_build(word: str) -> str:
    name = word.partition("=")[0].replace("-", "_")  # the kernel takes both for the same
    if word == "--" or name in RESERVED or name.startswith("ima"):
        raise ValueError("what is started, from where, and what is measured of it, is for the build to say")
    return word


def _without_dots(path: str) -> str:
    if {".", ".."} & set(path.split("/")):
        raise ValueError("a path with . or .. is refused")
    return path


def _free(path: str) -> str:
    if not path.startswith(PLACES) or path.startswith(OWN):
        raise ValueError(f"files of a recipe lie below {', '.join(PLACES)}, and not where the build puts its own")
    return path


def _beside(path: str) -> str:
    if path.startswith("/"):
        raise ValueError("it has to lie beside the recipe")
    return _without_dots(path)


def _with_its_ca(site: "Site | None") -> "Site | None":
    if site is not None:
        _beside(site.ca)
        _beside(site.keys or "keys")
    return site


def _interface_address(text: str) -> str:
    return str(IPv4Interface(text))


def _network(text: str) -> str:
    return str(IPv4Network(text))


def _reachable(text: str) -> str:
    address, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("an address and a port, as 10.0.0.1:8444")
    return f"{IPv4Address(address)}:{int(port)}"


_Name = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
_Package = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]{1,100}$")]
_Distribution = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")]
_Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Word = Annotated[str, Field(pattern=r"^[!#-&(-~]{1,256}$"), AfterValidator(_not_of_the_build)]
"""Without quotes: the kernel takes them away, and what is inside them for a word."""
_Absolute = Annotated[str, Field(pattern=r"^(?:/[A-Za-z0-9._+@-]+)+$", max_length=255), AfterValidator(_without_dots)]
_Interface = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,14}$")]
_Endpoint = Annotated[str, Field(max_length=32), AfterValidator(_reachable)]
_Mebibytes = Annotated[int, Field(ge=1, le=1024 * 1024)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), strict=True
    )


class Kernel(_Part):
    """The kernel package and its modules that are taken along."""

    package: _Package
    modules: list[_Module] = []
    first_modules: list[_Module] = []


class Disk(_Part):
    """Sizes of the partitions, in MiB; `root` is each of the two slots."""

    esp: Annotated[int, Field(ge=33, le=4096)] = 64
    """A FAT32 file system has 65,525 clusters at least."""
    root: _Mebibytes = 128
    data: _Mebibytes = 64


class Update(_Part):
    """How a node of this image is updated to it."""

    trial_seconds: Annotated[int, Field(ge=60, le=24 * 3600)] = 900
    """A node that is not trusted so many seconds after its start goes back to the image before."""


class Site(_Part):
    """Where the node belongs: measured with the root file system that holds it."""

    url: Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.:\[\]-]{1,255}$")]
    ca: str = Field(min_length=1)
    """PEM file beside the recipe; or any, where an option of the build gives it."""
    keys: str | None = None
    """Folder beside the recipe, or any, with the keys of verifier and platform; a host believes no others."""


class Host(_Part):
    """What `umec netd` of the node is told, but for whose word counts (`Site.keys`)."""

    access: Annotated[list[_Interface], Field(min_length=1, max_length=16)]
    address: Annotated[str, AfterValidator(_interface_address)]
    pool: Annotated[str, AfterValidator(_network)] = "10.64.0.0/16"
    services: Annotated[list[_Endpoint], Field(max_length=64)] = []
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 90.0


def _owner_beside(owner: str | None) -> str | None:
    return None if owner is None else _beside(owner)


class File(_Part):
    """A file of the recipe's folder that becomes one of the image."""

    source: Annotated[str, Field(min_length=1), AfterValidator(_beside)]
    target: Annotated[_Absolute, AfterValidator(_free)]
    executable: bool = False


class Recipe(_Part):
    """A whole recipe."""

    name: _Name
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    suite: _Name = "bookworm"
    packages: list[_Package] = Field(min_length=1)
    exclude: list[_Package] = []
    distributions: list[_Distribution] = []
    command_line: list[_Word] = []
    kernel: Kernel
    disk: Disk = Disk()
    update: Update = Update()
    site: Annotated[Site | None, AfterValidator(_with_its_ca)] = None
    owner: Annotated[str | None, AfterValidator(_owner_beside)] = None
    """Public key (PEM) beside the recipe; or any, where an option of the build gives it."""
    host: Host | None = None
    files: list[File] = []


def load_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises RecipeInvalid, naming all faults."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_RECIPE + 1)
    except OSError as error:
        raise RecipeInvalid(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse_recipe(raw)
    except RecipeInvalid as error:
        raise RecipeInvalid(f"{path}: {error.detail}") from error


def parse_recipe(raw: bytes) -> Recipe:
    """Return the recipe in `raw` (TOML). Raises RecipeInvalid, naming all faults."""
    if len(raw) > MAX_RECIPE:
        raise RecipeInvalid(f"it has more than {MAX_RECIPE} bytes")
    try:
        return Recipe.model_validate(tomllib.loads(raw.decode()))
    except ValidationError as error:
        raise RecipeInvalid(_faults(error)) from error
    except (ValueError, RecursionError) as error:
        raise RecipeInvalid(f"it is not TOML: {error}") from error


def with_site(recipe: Recipe, url: str | None, ca: Path | None, keys: Path | None = None) -> Recipe:
    """Return the recipe for a site: what is given goes before what the recipe says. Raises RecipeInvalid."""
    given = {} if recipe.site is None else recipe.site.model_dump(by_alias=True)
    given |= {} if url is None else {"url": url}
    given |= {} if ca is None else {"ca": str(ca)}
    given |= {} if keys is None else {"keys": str(keys)}
    try:
        site = Site.model_validate(given)
    except ValidationError as error:
        raise RecipeInvalid(f"the site: {_faults(error)}") from error
    return recipe.model_copy(update={"site": site})


def with_owner(recipe: Recipe, owner: Path) -> Recipe:
    """Return the recipe with another owner than it says, or none."""
    return recipe.model_copy(update={"owner": str(owner)})


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors())
