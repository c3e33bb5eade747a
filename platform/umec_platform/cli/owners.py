"""Whose approvals node keys of an image are bound to: what its reference set says of its owner."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from umec_core.errors import Invalid

if TYPE_CHECKING:
    from umec_attest.sealed import OwnerKey

__all__ = ["check_name", "identity_of", "owner_of"]

MANIFEST: Final = "manifest.json"
IN_ROOT: Final = "etc/umec/owner.pem"


def owner_of(folder: Path, files: Path | None, given: Path | None) -> "OwnerKey | None":
    """Return the owner of an image: of `given` (PEM), else of its root file system, unpacked at `files`.

    An image of `umec nodeimage build` says whether it has one, and which; then there is no other. Raises Invalid.
    """
    from umec_attest.sealed import load_owner
    from umec_platform.cli.files import read_file

    inside = None if files is None or not (files / IN_ROOT).is_file() else files / IN_ROOT
    path = given if given is not None else inside
    owner = None if path is None else load_owner(read_file(path))
    if (folder / MANIFEST).exists():
        expected = json.loads(read_file(folder / MANIFEST)).get("owner")
        if expected != (None if owner is None else identity_of(owner)):
            of_image = "no owner" if expected is None else f"the owner {expected}"
            raise Invalid(
                f"the image in {folder} has {of_image}, and its reference set would say otherwise",
                advice="give its --root, which says who owns it, or the --owner that it was built with",
            )
    return owner


def check_name(folder: Path, name: str) -> None:
    """Refuse a set with an owner under another name than that of the built image, which approvals are for.

    Raises Invalid.
    """
    from umec_platform.cli.files import read_file

    built = json.loads(read_file(folder / MANIFEST)).get("name") if (folder / MANIFEST).exists() else name
    if name != built:
        raise Invalid(
            f"approvals are for {built}, as the image in {folder} is called, and no node key could be bound for {name}",
            advice=f"--name {built}",
        )


def identity_of(owner: "OwnerKey") -> str:
    """Return how the manifest.json of a built image names its owner: the SHA-256 (hex) of the public key in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(owner.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
