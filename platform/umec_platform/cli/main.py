"""`umec`: one command, a sub-command for each noun, and every one of them answers `--help` and `--json`."""

import importlib
import importlib.util
from typing import Final

import typer

from umec_platform.cli.manual import ROOT, epilog

__all__ = ["build", "main"]

NOUNS: Final = {
    "node": "Nodes: tickets, enrolment, attestation, standing.",
    "secret": "Secrets of nodes: kept by the verifier, or opened by approved states.",
    "evidence": "Evidence of a node, collected or judged offline.",
    "bootlog": "Boot logs: events, replayed PCRs, facts.",
    "image": "Application images: build, sign, verify, promote.",
    "nodeimage": "Node images: build, boot, predicted PCR values.",
    "policy": "Cedar policies: check, test, show, explain.",
    "client": "OAuth 2.0 clients of the authorization server.",
    "app": "Applications: packages and instances.",
    "tenant": "Tenants of a MEC host.",
    "host": "MEC hosts.",
    "service": "MEC services.",
    "audit": "The audit log.",
}
COMMANDS: Final = {
    "up": "up:up",
    "try": "trial:try_out",
    "demo": "demo:demo",
    "demo-vm": "demo:demo_vm",
    "token": "access:token",
    "netd": "netd:netd",
}
"""Commands without a noun, and the module and function of each."""


def build() -> typer.Typer:
    """Return the command with all nouns; what is heavy is imported inside the commands, when they run."""
    root = typer.Typer(
        name="umec",
        help="µMEC: a secure edge platform for city-street computers.",
        epilog=ROOT,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for noun, summary in NOUNS.items():
        if importlib.util.find_spec(f"umec_platform.cli.{noun}") is None:
            continue
        module = importlib.import_module(f"umec_platform.cli.{noun}")
        for command in module.app.registered_commands:
            name = command.name or command.callback.__name__.replace("_", "-")
            command.epilog = epilog(f"{noun} {name}")
        root.add_typer(module.app, name=noun, help=summary, no_args_is_help=True)
    for command, place in COMMANDS.items():
        name, _, function = place.partition(":")
        module = importlib.import_module(f"umec_platform.cli.{name}")
        root.command(name=command, epilog=epilog(command))(getattr(module, function))
    return root


def main() -> None:
    """Run the command line."""
    build()()
