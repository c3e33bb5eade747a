"""Reboots of open boxes: announced before, by an operator or the node itself, and cleared by an operator afterwards."""

import base64
import json
from typing import Annotated, Any

import typer

from umec_core.errors import Refused
from umec_platform.cli.node.agent import asked
from umec_platform.cli.node.desk import operate
from umec_platform.cli.node.parameters import (
    BOOT_LOG,
    NODE_SCOPE,
    RUNTIME_LIST,
    Approval,
    BootLog,
    Credential,
    Json,
    Node,
    Owner,
    OwnTcti,
    Reason,
    RuntimeList,
    State,
)
from umec_platform.cli.output import emit, refusals

__all__ = ["announce_own_reboot", "announce_reboot", "clear_reset"]

Within = Annotated[int, typer.Option(min=1, help="Seconds in which the node is back with evidence of the new boot.")]
Resets = Annotated[int, typer.Option(min=1, help="How many times it boots, e.g. for an update of its firmware.")]


class AnnouncementRefused(Refused):
    """The verifier does not take the announcement."""

    code = "announcement-refused"


@refusals
def announce_reboot(
    node: Node,
    credential: Credential,
    within: Within = 900,
    resets: Resets = 1,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Announce that an open box will boot: once, and soon. What nobody announced degrades it."""
    body = {"seconds": within, "resets": resets, "reason": reason}
    said = operate(credential, "POST", f"nodes/{node}/announce-reboot", "attest:admin", body)
    emit(said, as_json=as_json, human=_announced(said))


@refusals
def clear_reset(node: Node, credential: Credential, reason: Reason = "", as_json: Json = False) -> None:
    """Say that somebody has looked at an open box after a boot that nobody announced."""
    said = operate(credential, "POST", f"nodes/{node}/clear-reset", "attest:admin", {"reason": reason})
    emit(said, as_json=as_json, human=f"{node}: {said['standing']}, trusted with its next good round")


@refusals
def announce_own_reboot(
    state: State,
    within: Within = 900,
    resets: Resets = 1,
    reason: Reason = "",
    boot_log: BootLog = BOOT_LOG,
    runtime_list: RuntimeList = RUNTIME_LIST,
    tcti: OwnTcti = None,
    owner: Owner = None,
    approval: Approval = None,
    as_json: Json = False,
) -> None:
    """Announce, on an open box, that it is about to boot; before a shutdown that somebody planned."""
    from umec_attest.agent.requests import Call, checked
    from umec_attest.agent.running import Options
    from umec_attest.agent.state import load_state

    api = f"{load_state(state).url}/attest/v1"
    content = json.dumps({"seconds": within, "resets": resets, "reason": reason}).encode()
    call = Call("POST", f"{api}/reboots", api, NODE_SCOPE, content, {"Content-Type": "application/json"})
    options = Options(state, tcti, boot_log, runtime_list=runtime_list, owner=owner, approval=approval)
    answer = asked(options, checked(call))
    said: dict[str, Any] = json.loads(base64.b64decode(answer["content"]))
    if answer["status"] != 200:
        raise AnnouncementRefused(f"{said.get('code')}: {said.get('detail')}", advice=said.get("advice"))
    emit(said, as_json=as_json, human=_announced(said))


def _announced(said: dict[str, Any]) -> str:
    return f"{said['node']}: a boot is announced until {said['reboot_announced_until']}"
