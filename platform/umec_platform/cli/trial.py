"""`umec try`: a whole site to try things out on, for as long as a shell is open."""

import sys
from typing import Annotated

import typer

from umec_platform.cli.output import refusals

__all__ = ["try_out"]


@refusals
def try_out(
    command: Annotated[
        list[str] | None, typer.Argument(help="What to run there, after `--`; a shell if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say in one JSON object what there is.")] = False,
) -> None:
    """Open a shell on a site of its own, in namespaces of its own, with everything that an application needs.

    The site has one node, a device beside it, a tenant, and a credential for each part that one plays. The TPM of the
    node and its boot are SIMULATED. When the shell ends, everything ends with it; files in your own folders stay.
    """
    from umec_platform.demo.sandbox import enter

    arguments = ["--json"] if as_json else ["--text"]
    sys.exit(enter([*arguments, *(command or ())], module="umec_platform.trial"))
