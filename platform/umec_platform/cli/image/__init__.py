"""`umec image`: application images from their files to production."""

from collections.abc import Callable
from typing import Final

import typer

from umec_platform.cli.image.attach import attach, sign, tree
from umec_platform.cli.image.authority import rotate_authority
from umec_platform.cli.image.build import build, push
from umec_platform.cli.image.deny import allow, denials, deny, minimum
from umec_platform.cli.image.promote import promote
from umec_platform.cli.image.verify import verify, verify_bundle

__all__ = ["app"]

COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "build": build,
    "push": push,
    "sign": sign,
    "verify": verify,
    "verify-bundle": verify_bundle,
    "attach": attach,
    "tree": tree,
    "promote": promote,
    "deny": deny,
    "allow": allow,
    "denials": denials,
    "minimum": minimum,
    "rotate-authority": rotate_authority,
}

app = typer.Typer()

for name, command in COMMANDS.items():
    app.command(name)(command)
