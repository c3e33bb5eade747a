"""`umec nodeimage approve`: the owner's word that what an image measures may open what its nodes sealed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from umec_core.errors import Invalid, Refused
from umec_platform.cli.files import read_file, read_object
from umec_platform.cli.output import emit, refusals
from umec_platform.cli.owners import identity_of
from umec_platform.cli.signing import ELSEWHERE, load_owner_key

__all__ = ["OwnerOther", "approve"]

DEFAULT_PCRS: tuple[int, ...] = (4, 7, 9, 11, 12)
"""All that is predicted exactly and not zero in every image: what the firmware started, whose signatures count, what
the kernel was handed, what is in the unified kernel image, and nothing from beside it."""
MAX_STEPS: int = 10_000
"""A node's TPM counts up to the version one by one, some 20 a second, and its memory wears with each."""


class OwnerOther(Refused):
    """The image has another owner than this key, or none: its nodes would not take the approval."""

    code = "image-owner-other"


@refusals
def approve(
    folder: Annotated[Path, typer.Argument(help="What `umec nodeimage build --owner` made.")],
    key: Annotated[str, typer.Option(help=f"The owner's private key (PEM, 0600: P-256, P-384 or RSA), {ELSEWHERE}.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="Nodes that ran it well refuse lower ones (default: the image's version).")
    ] = None,
    pcr: Annotated[
        list[int] | None, typer.Option(help="A PCR that has to be as predicted; by default 4, 7, 9, 11 and 12.")
    ] = None,
    firmware: Annotated[
        list[Path] | None, typer.Option(help="Firmware builds that may boot it, beside the known ones (repeatable).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Approve what an image measures: its nodes open, without any site, what they sealed under its owner.

    The approval becomes a file of the image and of its disk, so the digest of its manifest.json is another one then.
    Once a node is trusted with the image, approvals of lower versions open nothing there any more.
    """
    import hashlib

    from umec_attest.predict import parse_builds, predict
    from umec_attest.sealed import sign_approval
    from umec_images.nodeimage.approval import place_approval
    from umec_images.nodeimage.papers import PAPERS, parse_papers

    papers, signer = parse_papers(read_file(folder / PAPERS)), load_owner_key(key)
    if read_object(folder / PAPERS).get("owner") != identity_of(signer.public_key()):
        raise OwnerOther(f"{folder} was not built with --owner of this key", advice="umec nodeimage build --owner")
    wanted = papers.version if version is None else version
    if wanted > MAX_STEPS:
        raise Invalid(f"a TPM counts up to {wanted} one by one: give a --version of at most {MAX_STEPS}")
    values = predict(folder, [build for path in firmware or [] for build in parse_builds(read_file(path))]).pcrs
    chosen = sorted(set(pcr or DEFAULT_PCRS))
    missing = [index for index in chosen if index not in values]
    if missing:
        raise Invalid(f"nothing is predicted for PCR {', '.join(map(str, missing))}")
    approval = sign_approval(
        image=papers.name, version=wanted, pcrs={index: values[index] for index in chosen}, key=signer
    )
    place_approval(folder, approval)
    manifest = hashlib.sha256(read_file(folder / PAPERS)).hexdigest()
    said: dict[str, Any] = {"image": papers.name, "version": wanted, "pcrs": chosen, "manifest": f"sha256:{manifest}"}
    shown = ", ".join(map(str, chosen))
    human = f"{papers.name}, as version {wanted}, is approved by PCR {shown}; its manifest is now sha256:{manifest}"
    emit(said, as_json=as_json, human=human)
