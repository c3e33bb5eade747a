"""Link 1 for a machine that boots: an image from a recipe, its PCR values from its files alone."""

import hashlib
import json
import os
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from umec_platform.demo.command import umec
from umec_platform.demo.run import MANAGEMENT, Run

__all__ = ["NAME", "build", "fetch", "publish"]

RECIPE: Final = Path(__file__).parents[4] / "images" / "recipes" / "minimal.toml"
NAME: Final = "minimal"
"""The recipe's."""
BUILD_SECONDS: Final = 900.0
"""Half a minute's work for an idle machine, and at the first time as much as the packages take to come."""
DAYS: Final = 30


def fetch() -> Path:
    """Have all packages of the recipe in the cache, by building it once; return the lock that names them.

    The lock also pins what is installed beside this program, and our own modules: where these are others, so is the
    place.
    """
    cache = Path(os.environ.get("UMEC_CACHE") or Path.home() / ".cache" / "umec" / "nodeimage")
    place = cache / "demo-vm" / hashlib.sha256(b"owned" + RECIPE.read_bytes() + _installed() + _own()).hexdigest()[:16]
    lock = place / "image" / "packages.lock"
    if not lock.exists():
        options = ["--out", str(lock.parent), "--cache", str(cache), "--owner", str(_owner(place) / "owner.pem")]
        umec("nodeimage", "build", str(RECIPE), *options, seconds=BUILD_SECONDS)
    return lock


def build(run: Run, lock: Path, version: int) -> Path:
    """Build a version of the image for this run's site, of the locked packages, and approve it; return its folder."""
    image, keys, recipe = run.folder / f"image-{version}", run.folder / "secure-boot", run.folder / f"{version}.toml"
    recipe.write_text(RECIPE.read_text().replace("\nversion = 1\n", f"\nversion = {version}\n"))
    if not keys.exists():
        umec("nodeimage", "keys", str(keys))
    options = ["--out", str(image), "--locked", str(lock), "--cache", str(lock.parents[3]), "--keys", str(keys)]
    owner = _owner(run.folder)
    options += ["--site-url", MANAGEMENT, "--site-ca", run.ca, "--owner", str(owner / "owner.pem")]
    built = umec("nodeimage", "build", str(recipe), *options, seconds=BUILD_SECONDS)
    umec("nodeimage", "approve", str(image), "--key", str(owner / "owner.key"))
    run.timeline.note(
        f"{built['name']} version {built['version']}: Linux {built['kernel']}, root hash {built['root_hash'][:16]}…"
    )
    return image


def _owner(place: Path) -> Path:
    """Return the folder of the key of who owns the image: its approvals open the data of nodes."""
    folder = place / "owner"
    if not folder.exists():
        umec("nodeimage", "keys", str(folder), "--owner")
    return folder


def publish(run: Run, image: Path, version: int) -> None:
    """Link 1: predict the PCR values and what may run, sign them, and give them to the verifier."""
    statement = run.folder / f"reference-{version}.dsse"
    with run.timeline.link(1, "PCR values predicted from the image, signed, taken by the verifier") as evidence:
        options = ["--name", NAME, "--version", str(version), "--days", str(DAYS), "--out", str(statement)]
        options += ["--key", str(run.folder / "reference-signer.key"), "--root", str(image / "root.img")]
        predicted = umec("nodeimage", "predict", str(image), *options)
        taken = run.operator("nodeimage", "publish", str(statement))
        evidence.data = statement.read_bytes()
        evidence.note = f"{taken['image']} version {taken['version']}, PCR {_numbers(predicted['pcrs']['sha256'])}"
    (run.folder / f"predicted-{version}.json").write_text(json.dumps(predicted))


def _own() -> bytes:
    """Return the digests of all files of our own packages: those that go into an image are in its lock."""
    files = (path for path in RECIPE.parents[2].glob("*/umec_*/**/*") if path.suffix != ".pyc" and path.is_file())
    return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sorted(files))


def _installed() -> bytes:
    """Return the hashes of all files of all distributions here, as their installer wrote them down."""
    return "".join(sorted(each.read_text("RECORD") or "" for each in distributions())).encode()


def _numbers(pcrs: dict[str, str]) -> str:
    return ", ".join(sorted(pcrs, key=int))
