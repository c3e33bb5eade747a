"""`umec nodeimage build` and `umec nodeimage keys`: a node image from a recipe, and the keys that a firmware trusts."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_core.errors import Invalid
from umec_platform.cli.output import emit, refusals
from umec_platform.cli.signing import load_image_key

if TYPE_CHECKING:
    from umec_images.nodeimage.recipe import Recipe

__all__ = ["build", "keys"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "umec" / "nodeimage"
MEGABYTE = 1_000_000


@refusals
def build(
    recipe: Annotated[Path, typer.Argument(help="The recipe (TOML).")],
    out: Annotated[Path, typer.Option(help="The folder that becomes the image; an older image there is replaced.")],
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the Secure Boot keys (default: OUT.keys, made if missing).")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="db's private key in a token (pkcs11:…), instead of db.key in that folder.")
    ] = None,
    locked: Annotated[Path | None, typer.Option(help="packages.lock of an older build: these packages only.")] = None,
    mirror: Annotated[
        str | None, typer.Option(envvar="UMEC_MIRROR", help="Debian mirror, the only source then.")
    ] = None,
    cache: Annotated[Path, typer.Option(envvar="UMEC_CACHE", help="Where fetched packages are kept.")] = CACHE,
    site_url: Annotated[str | None, typer.Option(help="The site's management URL, instead of the recipe's.")] = None,
    site_ca: Annotated[Path | None, typer.Option(help="The site's server CA (PEM), instead of the recipe's.")] = None,
    site_keys: Annotated[
        Path | None, typer.Option(help="For a host: folder of the site's verifier.jwks.json and decision.jwks.json.")
    ] = None,
    owner: Annotated[
        Path | None, typer.Option(help="Who approves states of the image (public key, PEM), instead of the recipe's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Build a node image from a recipe and Debian's packages; the same inputs give the same bytes.

    With --site-url and --site-ca the image is for that site, and its nodes enroll there. With --owner its nodes encrypt
    their data, which opens in the states alone that `umec nodeimage approve` approves.
    """
    from umec_images.nodeimage.builder import Plan, build_image, moment
    from umec_images.nodeimage.fetch import Sources
    from umec_images.nodeimage.keys import load_certificates, load_signer
    from umec_images.nodeimage.lock import load_lock
    from umec_images.nodeimage.recipe import load_recipe

    wanted = _for_owner(_for_site(load_recipe(recipe), site_url, site_ca, site_keys), owner)
    own = out.with_name(f"{out.name}.keys")
    folder = keys or own
    if keys is None and not own.exists():
        _make(own, key)
        _say(f"keys: made in {own}; keep them, an image signed with others does not boot there")
    plan = Plan(
        recipe=wanted,
        folder=recipe.parent,
        keys=load_certificates(folder),
        signer=load_signer(folder, load_image_key(key)),
        sources=Sources(cache, wanted.suite, mirror),
        locked=None if locked is None else load_lock(locked),
        moment=moment(os.environ),
    )
    built = build_image(plan, out, _say)
    shown: dict[str, Any] = {
        "folder": str(out),
        "name": built.manifest["name"],
        "version": built.manifest["version"],
        "kernel": built.manifest["kernel"],
        "root_hash": built.manifest["root_hash"],
        "sha256": {name: built.manifest["files"][name]["sha256"] for name in ("uki.efi", "root.img", "disk.img")},
        "sizes": {name: size for name, size in built.sizes.items() if "/" not in name},
    }
    lines = [f"{shown['name']} version {shown['version']}, Linux {shown['kernel']}: {out}"]
    lines += [f"  {name:<8} {size / MEGABYTE:8.1f} MB" for name, size in shown["sizes"].items()]
    lines += [f"  {name:<8} sha256:{digest}" for name, digest in shown["sha256"].items()]
    emit(shown, as_json=as_json, human="\n".join(lines))


@refusals
def keys(
    folder: Annotated[Path, typer.Argument(help="Where the keys go; keys that are there are never overwritten.")],
    owner: Annotated[
        bool, typer.Option("--owner", help="Make owner.key and owner.pem instead: who approves states of images.")
    ] = False,
    key: Annotated[
        str | None, typer.Option(help="db's private key in a token (pkcs11:…): only its certificate is made.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make Secure Boot keys: PK, KEK and db, RSA-2048, each with a certificate of its own; or an owner's key, P-256."""
    if owner and key is not None:
        raise Invalid(
            "--key is db's, and --owner makes a key of its own",
            advice="for an owner's key in a token, give `umec nodeimage build --owner` its public key (PEM)",
        )
    emit({"folder": str(folder), "files": _make_owner(folder) if owner else _make(folder, key)}, as_json=as_json)


def _make(folder: Path, key: str | None) -> list[str]:
    from umec_core.clock import system_clock
    from umec_images.nodeimage.keys import make_keys

    return [path.name for path in make_keys(folder, system_clock(), load_image_key(key))]


def _make_owner(folder: Path) -> list[str]:
    from umec_images.nodeimage.keys import make_owner_key

    return [path.name for path in make_owner_key(folder)]


def _for_site(recipe: "Recipe", url: str | None, ca: Path | None, keys: Path | None) -> "Recipe":
    from umec_images.nodeimage.recipe import with_site

    if url is None and ca is None and keys is None:
        return recipe
    return with_site(recipe, url, None if ca is None else ca.absolute(), None if keys is None else keys.absolute())


def _for_owner(recipe: "Recipe", owner: Path | None) -> "Recipe":
    from umec_attest.sealed import load_owner
    from umec_images.nodeimage.recipe import with_owner
    from umec_platform.cli.files import read_file

    if owner is None:
        return recipe
    load_owner(read_file(owner))
    return with_owner(recipe, owner.absolute())


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
