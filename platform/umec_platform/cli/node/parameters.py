"""Options and arguments that several commands of `umec node` have."""

from pathlib import Path
from typing import Annotated, Final

import typer

__all__ = ["BOOT_LOG", "NODE_SCOPE", "BootLog", "Credential", "Json", "Node", "OwnTcti", "Reason", "Save", "Scope"]
__all__ += ["RUNTIME_LIST", "Approval", "Class", "DryRun", "Owner", "RuntimeList", "State", "Tcti"]

NODE_SCOPE: Final = "node:host"
BOOT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
RUNTIME_LIST: Final = Path("/sys/kernel/security/ima/binary_runtime_measurements")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Tcti = Annotated[str, typer.Option(envvar="UMEC_TCTI", help="How to reach the TPM, e.g. device:/dev/tpmrm0.")]
OwnTcti = Annotated[str | None, typer.Option(envvar="UMEC_TCTI", help="Another way to the TPM than at enrolment.")]
State = Annotated[Path, typer.Option(envvar="UMEC_AGENT_STATE", help="The agent's state directory (0700).")]
BootLog = Annotated[Path, typer.Option(help="The boot log (TCG crypto-agile form).")]
RuntimeList = Annotated[
    Path, typer.Option(envvar="UMEC_RUNTIME_LIST", help="The kernel's list of what ran (IMA, binary form).")
]
Owner = Annotated[
    Path | None,
    typer.Option(envvar="UMEC_OWNER", help="Who approves states of this image (PEM): the node key is bound."),
]
Approval = Annotated[
    Path | None,
    typer.Option(envvar="UMEC_APPROVAL", help="That owner's approval of what runs here: the key signs by it."),
]
Save = Annotated[Path | None, typer.Option(help="Keep the evidence of the last round in this folder.")]
Credential = Annotated[Path, typer.Option(envvar="UMEC_CREDENTIAL", help="The operator's credential file.")]
Node = Annotated[str, typer.Argument(help="The node's id.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
Class = Annotated[str, typer.Option("--class", help="standard, or open-box: its reboots have to be announced.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would become of the node, and change nothing.")]
Scope = Annotated[str, typer.Option(help="Scopes of the token, separated by spaces.")]
