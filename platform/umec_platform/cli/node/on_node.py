"""On a node: its TPM, its enrolment, its rounds, and requests in its name."""

import asyncio
import base64
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from umec_core.errors import Invalid, Refused
from umec_platform.cli.files import read_file
from umec_platform.cli.node.agent import asked
from umec_platform.cli.node.parameters import (
    BOOT_LOG,
    NODE_SCOPE,
    RUNTIME_LIST,
    Approval,
    BootLog,
    Json,
    Owner,
    OwnTcti,
    RuntimeList,
    Save,
    Scope,
    State,
    Tcti,
)
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_attest.agent.device_keys import DeviceKey, DeviceKeys
    from umec_attest.agent.loop import Agent
    from umec_attest.agent.wire import Result

__all__ = ["attest", "call", "ek", "enroll", "rotate", "run", "token", "trust_log"]


PERSISTENT: Final = re.compile(r"0x81[0-9a-fA-F]{6}")
"""Handles of persistent objects (TPM 2.0 Part 2, 7.2)."""


class NodeNotTrusted(Refused):
    """The verifier judged the evidence, and it speaks against the node."""

    code = "node-not-trusted"


@refusals
def ek(tcti: Tcti = "device:/dev/tpmrm0", as_json: Json = False) -> None:
    """Show the TPM's endorsement key, which a ticket names by its hash."""
    from umec_attest.agent.tpm import Tpm

    with Tpm(tcti) as tpm:
        found = tpm.endorsement_key()
    shown = {"ek_sha256": found.sha256, "certificate": found.certificate is not None}
    emit(shown, as_json=as_json, human=found.sha256)


@refusals
def enroll(
    state: State,
    ca: Annotated[Path, typer.Option(help="The platform's server CA (PEM).")],
    ticket: Annotated[str | None, typer.Option(envvar="UMEC_TICKET", help="The ticket, or @FILE.")] = None,
    tcti: Tcti = "device:/dev/tpmrm0",
    url: Annotated[str | None, typer.Option(help="The management URL, where no ticket names it.")] = None,
    node: Annotated[str | None, typer.Option(help="The node's id, where no ticket names it.")] = None,
    ek_chain: Annotated[Path | None, typer.Option(help="Certificates above the EK's that the TPM lacks (PEM).")] = None,
    iak: Annotated[str | None, typer.Option(help="HANDLE=FILE: the maker's IAK in the TPM, its certificates.")] = None,
    idevid: Annotated[str | None, typer.Option(help="HANDLE=FILE: the same of the IDevID.")] = None,
    owner: Owner = None,
    approval: Approval = None,
    replace: Annotated[bool, typer.Option("--replace", help="Forget an older enrolment.")] = False,
    as_json: Json = False,
) -> None:
    """Enrol this node: its TPM proves which asset it is, and that the node key lives in it."""
    from umec_attest.agent.binding import load_binding
    from umec_attest.agent.enrol import enrol, plan_enrolment

    plan = plan_enrolment(
        ticket=_ticket_text(ticket),
        node=node,
        url=url,
        ca=_text_of(ca),
        tcti=tcti,
        ek_chain=() if ek_chain is None else _certificates(ek_chain),
        identity=_device_keys(iak, idevid),
        binding=load_binding(owner, approval),
    )
    done = asyncio.run(enrol(plan, state, replace=replace))
    said = {"node": done.node, "standing": done.standing, "approved": done.approved, "ek_sha256": done.ek_sha256}
    wait = "" if done.approved else "; an operator has to approve it: umec node approve " + done.node
    emit(said, as_json=as_json, human=f"{done.node} is enrolled ({done.standing}){wait}")


@refusals
def attest(
    state: State,
    boot_log: BootLog = BOOT_LOG,
    runtime_list: RuntimeList = RUNTIME_LIST,
    save: Save = None,
    tcti: OwnTcti = None,
    once: Annotated[bool, typer.Option("--once", hidden=True)] = True,  # noqa: ARG001 - it never does more
    as_json: Json = False,
) -> None:
    """Do one round: a fresh challenge, a quote, the verdict. Exit status 1 if it speaks against the node."""
    from umec_attest.agent.report import reporter
    from umec_attest.agent.running import Options, with_agent

    async def one(agent: "Agent") -> "Result":
        return await agent.attest()

    _check_verdict(
        with_agent(Options(state, tcti, boot_log, save, runtime_list=runtime_list), reporter(as_json=as_json), one)
    )


@refusals
def run(
    state: State,
    boot_log: BootLog = BOOT_LOG,
    runtime_list: RuntimeList = RUNTIME_LIST,
    save: Save = None,
    tcti: OwnTcti = None,
    rotate_days: Annotated[int, typer.Option(min=0, max=3650, help="New keys after so many days; 0: never.")] = 30,
    owner: Owner = None,
    approval: Approval = None,
    once: Annotated[bool, typer.Option("--once", help="One round with its credentials, then end.")] = False,
    as_json: Json = False,
) -> None:
    """Run the agent: attest round after round, keep certificate and tokens alive. SIGTERM ends it."""
    from umec_attest.agent.control import only_agent
    from umec_attest.agent.report import reporter
    from umec_attest.agent.running import Options, command_line, with_agent
    from umec_attest.agent.state import load_state

    async def one(agent: "Agent") -> "Result":
        result = await agent.attest()
        if result.ear is not None:
            await agent.settle()
        return result

    options = Options(state, tcti, boot_log, save, rotate_days, runtime_list, owner, approval)
    if once:
        _check_verdict(with_agent(options, reporter(as_json=as_json), one))
        return
    load_state(state)
    with only_agent(state):
        pass  # what is wrong is said here, in the voice of all commands
    words = command_line(options, as_json=as_json)
    os.execv(words[0], words)  # noqa: S606 - the same process, without this command line in its memory


@refusals
def rotate(
    state: State,
    boot_log: BootLog = BOOT_LOG,
    runtime_list: RuntimeList = RUNTIME_LIST,
    tcti: OwnTcti = None,
    owner: Owner = None,
    approval: Approval = None,
    as_json: Json = False,
) -> None:
    """Give the node a new attestation key and a new node key; it stays the node that it is. What was begun is ended."""
    from umec_attest.agent.requests import Rotate
    from umec_attest.agent.running import Options

    options = Options(state, tcti, boot_log, runtime_list=runtime_list, owner=owner, approval=approval)
    said = asked(options, Rotate())
    shown = {"standing": said["standing"], "generation": said["generation"]}
    emit(shown, as_json=as_json, human=f"new keys; the node is {said['standing']} in generation {said['generation']}")


@refusals
def trust_log(
    state: State,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was seen, and believe what comes next.")] = False,
    as_json: Json = False,
) -> None:
    """Show what this node saw of the verifier's audit log, and whether it believes it. Exit status 1 if it does not."""
    from umec_attest.agent.witness import LogWitness, shown_log

    witness = LogWitness(state)
    if reset:
        witness.forget()
        emit({"reset": True}, as_json=as_json, human="forgotten: the next round keeps what it sees")
        return
    witness.check()
    seen = witness.seen()
    if seen is None:
        emit({"seen": False}, as_json=as_json, human="nothing was seen yet")
        return
    emit({"seen": True, **shown_log(seen)}, as_json=as_json, human=seen.checkpoint.rstrip())


@refusals
def token(
    state: State,
    resource: Annotated[str, typer.Option(help="The API that the token is for (RFC 8707).")],
    scope: Scope = NODE_SCOPE,
    boot_log: BootLog = BOOT_LOG,
    runtime_list: RuntimeList = RUNTIME_LIST,
    tcti: OwnTcti = None,
    owner: Owner = None,
    approval: Approval = None,
    as_json: Json = False,
) -> None:
    """Print a token that is bound to the certificate of the running agent (without one: of a round of its own)."""
    from umec_attest.agent.requests import Token, checked
    from umec_attest.agent.running import Options

    options = Options(state, tcti, boot_log, runtime_list=runtime_list, owner=owner, approval=approval)
    said = asked(options, checked(Token(resource, scope)))
    emit({"token": said["token"], "expires_at": said["expires_at"]}, as_json=as_json, human=said["token"])


@refusals
def call(
    method: Annotated[str, typer.Argument(help="GET, POST, …")],
    url: Annotated[str, typer.Argument(help="https://…")],
    state: State,
    resource: Annotated[str | None, typer.Option(help="The API; by default the one that the URL lies in.")] = None,
    scope: Scope = NODE_SCOPE,
    data: Annotated[str | None, typer.Option(help="JSON to send, or @FILE.")] = None,
    boot_log: BootLog = BOOT_LOG,
    runtime_list: RuntimeList = RUNTIME_LIST,
    tcti: OwnTcti = None,
    owner: Owner = None,
    approval: Approval = None,
    as_json: Json = False,
) -> None:
    """Send one request in the node's name: its in-memory TLS key, a token bound to it. Exit status 1 unless 2xx."""
    from umec_attest.agent.requests import Call, checked
    from umec_attest.agent.running import Options
    from umec_attest.agent.session import default_resource
    from umec_attest.agent.state import load_state

    request = Call(
        method=method.upper(),
        url=url,
        resource=resource if resource is not None else default_resource(url, load_state(state).url),
        scope=scope,
        content=None if data is None else _content(data),
        headers={} if data is None else {"Content-Type": "application/json"},
    )
    options = Options(state, tcti, boot_log, runtime_list=runtime_list, owner=owner, approval=approval)
    said = asked(options, checked(request))
    body = base64.b64decode(said["content"]).decode(errors="replace")
    emit({"status": said["status"], "body": body}, as_json=as_json, human=f"{said['status']}\n{body}")
    if not 200 <= int(said["status"]) < 300:
        raise typer.Exit(1)


def _check_verdict(result: "Result") -> None:
    if result.verdict == "contraindicated":
        found = ", ".join(finding.id for finding in result.findings)
        raise NodeNotTrusted(f"the evidence speaks against the node: {found or 'see its standing'}")


def _ticket_text(given: str | None) -> str | None:
    return _text_of(Path(given[1:])).strip() if given is not None and given.startswith("@") else given


def _content(given: str) -> bytes:
    data = _text_of(Path(given[1:])) if given.startswith("@") else given
    return data.encode()


def _text_of(path: Path) -> str:
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not text: {error}") from error


def _device_keys(iak: str | None, idevid: str | None) -> "DeviceKeys | None":
    from umec_attest.agent.device_keys import DeviceKeys

    if iak is None:
        if idevid is not None:
            raise Invalid("--idevid comes with --iak, which certifies it")
        return None
    return DeviceKeys(_device_key(iak), None if idevid is None else _device_key(idevid))


def _device_key(text: str) -> "DeviceKey":
    from umec_attest.agent.device_keys import DeviceKey

    handle, _, file = text.partition("=")
    if not PERSISTENT.fullmatch(handle) or not file:
        raise Invalid(f"{text!r} is not HANDLE=FILE with a persistent handle, such as 0x81020001=iak.pem")
    certificate, *chain = _certificates(Path(file))
    return DeviceKey(int(handle, 16), certificate, tuple(chain))


def _certificates(path: Path) -> tuple[bytes, ...]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        read = x509.load_pem_x509_certificates(read_file(path))
    except ValueError as error:
        raise Invalid(f"{path} has no certificates in PEM") from error
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in read)
