"""`umec image rotate-authority`: new keys for the signing authority of a site."""

import re
from pathlib import Path
from typing import Annotated

import typer

from umec_core.errors import Invalid
from umec_platform.cli.image.common import AsJson
from umec_platform.cli.output import emit, refusals

__all__ = ["rotate_authority"]


@refusals
def rotate_authority(
    state: Annotated[Path, typer.Argument(help="The authority's folder: images/authority in the site's state.")],
    registry: Annotated[str, typer.Option(envvar="UMEC_REGISTRY", help="The registry's URL, https://HOST:PORT.")],
    as_json: AsJson = False,
) -> None:
    """Retire the signing authority's keys and make new ones, while the site is down.

    What the old keys signed until now stays good; what anybody signs with them from now on is refused.
    """
    if not (state / "ca.pem").is_file():
        raise Invalid(f"{state} holds no signing authority", advice="It is images/authority in the site's state.")
    if re.fullmatch(r"https?://[^/?#\s]+", registry.rstrip("/")) is None:
        raise Invalid("the registry is named by its URL, https://HOST:PORT")
    from umec_core.clock import system_clock
    from umec_images.authority.rotation import rotate

    made = rotate(state, url=registry.rstrip("/"), now=system_clock())
    retired = len(made.retired.get("certificateAuthorities", ()))
    since = made.since.strftime("%Y-%m-%dT%H:%M:%SZ")
    human = f"new keys since {since}; {retired} retired authorities are believed for what they signed in their time"
    emit({"since": since, "retired": retired}, as_json=as_json, human=human)
