"""`umec node`: on a node, enrol and attest it; at an operator's desk, admit nodes and judge their standing.

parameters   options that several commands have
on_node      the commands of a node, which need no server package
agent        how they get at the agent that runs, or at one of their own
desk         the commands of an operator
explain      why a node stands as it does, for a reader
image        which image a node should have
reboots      boots of open boxes, which are announced
sealing      secrets that the node's TPM opens
harness      a node without hardware
"""

from collections.abc import Callable
from typing import Final

import typer

from umec_platform.cli.node.desk import (
    allow,
    allow_version,
    approve,
    disallow,
    explain,
    list_nodes,
    quarantine,
    readmit,
    revoke,
    show,
    ticket,
)
from umec_platform.cli.node.harness import sample_image, simulate_boot, software_tpm
from umec_platform.cli.node.image import image
from umec_platform.cli.node.on_node import attest, call, ek, enroll, rotate, run, token, trust_log
from umec_platform.cli.node.reboots import announce_own_reboot, announce_reboot, clear_reset
from umec_platform.cli.node.sealing import seal, unseal

__all__ = ["app"]

PANELS: Final[dict[str, dict[str, Callable[..., None]]]] = {
    "On a node": {
        "ek": ek,
        "enroll": enroll,
        "attest": attest,
        "run": run,
        "token": token,
        "call": call,
        "rotate": rotate,
        "trust-log": trust_log,
        "seal": seal,
        "unseal": unseal,
        "announce-own-reboot": announce_own_reboot,
    },
    "As an operator": {
        "ticket": ticket,
        "allow": allow,
        "disallow": disallow,
        "list": list_nodes,
        "show": show,
        "explain": explain,
        "approve": approve,
        "quarantine": quarantine,
        "readmit": readmit,
        "revoke": revoke,
        "image": image,
        "announce-reboot": announce_reboot,
        "clear-reset": clear_reset,
        "allow-version": allow_version,
    },
    "Without hardware": {
        "simulate-boot": simulate_boot,
        "sample-image": sample_image,
        "software-tpm": software_tpm,
    },
}

app = typer.Typer()

for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
