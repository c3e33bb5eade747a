"""A CycloneDX bill of materials: every package of an image, by its package URL and its digest."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from umec_images.nodeimage.lock import Lock, LockedPackage
from umec_images.nodeimage.recipe import Recipe

__all__ = ["bill_of_materials"]

_NAMESPACE: Final = uuid.UUID("5c3f1e1b-6d2e-5c0a-9a0e-6a5f0b1b7c12")


def bill_of_materials(recipe: Recipe, lock: Lock, root_hash: bytes, moment: int) -> bytes:
    """Return the bill (CycloneDX 1.5, JSON) of an image with this root hash."""
    components = [_component(each, f"pkg:deb/debian/{_quoted(each)}?distro={recipe.suite}") for each in lock.debian]
    components += [_component(each, f"pkg:pypi/{_quoted(each)}") for each in lock.python]
    image = {"type": "operating-system", "bom-ref": recipe.name, "name": recipe.name, "version": str(recipe.version)}
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, root_hash.hex())}",
        "version": 1,
        "metadata": {"timestamp": datetime.fromtimestamp(moment, UTC).isoformat(), "component": image},
        "components": components,
    }
    return (json.dumps(bill, indent=1) + "\n").encode()


def _component(package: LockedPackage, purl: str) -> dict[str, Any]:
    # The digest is that of a .deb, or ours over the files of a distribution: only the first is one of CycloneDX.
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    if purl.startswith("pkg:deb/"):
        component["hashes"] = [{"alg": "SHA-256", "content": package.sha256}]
    return component


def _quoted(package: LockedPackage) -> str:
    return f"{quote(package.name, safe='')}@{quote(package.version, safe='')}"
