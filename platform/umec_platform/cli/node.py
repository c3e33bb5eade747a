"""`umec node`: on a node, enrol and attest it; at an operator's desk, admit nodes and judge their standing."""

import asyncio
import base64
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from umec_core.errors import Invalid, Refused
from umec_platform.cli.files import read_file
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_attest.agent.loop import Agent, Report
    from umec_attest.agent.wire import Result

__all__ = ["app"]

app = typer.Typer()

ON_NODE: Final = "On a node"
OPERATOR: Final = "As an operator"
HARNESS: Final = "Without hardware"
NODE_SCOPE: Final = "node:host"
BOOT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Tcti = Annotated[str, typer.Option(envvar="UMEC_TCTI", help="How to reach the TPM, e.g. device:/dev/tpmrm0.")]
OwnTcti = Annotated[str | None, typer.Option(envvar="UMEC_TCTI", help="Another way to the TPM than at enrolment.")]
State = Annotated[Path, typer.Option(envvar="UMEC_AGENT_STATE", help="The agent's state directory (0700).")]
BootLog = Annotated[Path, typer.Option(help="The boot log (TCG crypto-agile form).")]
Save = Annotated[Path | None, typer.Option(help="Keep the evidence of the last round in this folder.")]
Credential = Annotated[Path, typer.Option(envvar="UMEC_CREDENTIAL", help="The operator's credential file.")]
Node = Annotated[str, typer.Argument(help="The node's id.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
Scope = Annotated[str, typer.Option(help="Scopes of the token, separated by spaces.")]


class NodeNotTrusted(Refused):
    """The verifier judged the evidence, and it speaks against the node."""

    code = "node-not-trusted"


# --- on a node ------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=ON_NODE)
@refusals
def ek(tcti: Tcti = "device:/dev/tpmrm0", as_json: Json = False) -> None:
    """Show the TPM's endorsement key, which a ticket names by its hash."""
    from umec_attest.agent.tpm import Tpm

    with Tpm(tcti) as tpm:
        found = tpm.endorsement_key()
    shown = {"ek_sha256": found.sha256, "certificate": found.certificate is not None}
    emit(shown, as_json=as_json, human=found.sha256)


@app.command(rich_help_panel=ON_NODE)
@refusals
def enroll(
    state: State,
    ca: Annotated[Path, typer.Option(help="The platform's server CA (PEM).")],
    ticket: Annotated[str | None, typer.Option(envvar="UMEC_TICKET", help="The ticket, or @FILE.")] = None,
    tcti: Tcti = "device:/dev/tpmrm0",
    url: Annotated[str | None, typer.Option(help="The management URL, where no ticket names it.")] = None,
    node: Annotated[str | None, typer.Option(help="The node's id, where no ticket names it.")] = None,
    ek_chain: Annotated[Path | None, typer.Option(help="Certificates above the EK's that the TPM lacks (PEM).")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Forget an older enrolment.")] = False,
    as_json: Json = False,
) -> None:
    """Enrol this node: its TPM proves which asset it is, and that the node key lives in it."""
    from umec_attest.agent.enrol import enrol, plan_enrolment

    plan = plan_enrolment(
        ticket=_ticket_text(ticket),
        node=node,
        url=url,
        ca=_text_of(ca),
        tcti=tcti,
        ek_chain=() if ek_chain is None else _certificates(ek_chain),
    )
    done = asyncio.run(enrol(plan, state, replace=replace))
    said = {"node": done.node, "standing": done.standing, "approved": done.approved, "ek_sha256": done.ek_sha256}
    wait = "" if done.approved else "; an operator has to approve it: umec node approve " + done.node
    emit(said, as_json=as_json, human=f"{done.node} is enrolled ({done.standing}){wait}")


@app.command(rich_help_panel=ON_NODE)
@refusals
def attest(
    state: State,
    boot_log: BootLog = BOOT_LOG,
    save: Save = None,
    tcti: OwnTcti = None,
    once: Annotated[bool, typer.Option("--once", hidden=True)] = True,  # noqa: ARG001 - it never does more
    as_json: Json = False,
) -> None:
    """Do one round: a fresh challenge, a quote, the verdict. Exit status 1 if it speaks against the node."""

    async def one(agent: "Agent") -> "Result":
        return await agent.attest()

    result = _with_agent(state, tcti, boot_log, save, _reporter(as_json=as_json), one)
    _check_verdict(result)


@app.command(rich_help_panel=ON_NODE)
@refusals
def run(
    state: State,
    boot_log: BootLog = BOOT_LOG,
    save: Save = None,
    tcti: OwnTcti = None,
    once: Annotated[bool, typer.Option("--once", help="One round with its credentials, then end.")] = False,
    as_json: Json = False,
) -> None:
    """Run the agent: attest round after round, keep certificate and tokens alive. SIGTERM ends it."""
    from umec_attest.agent.control import only_agent, serve_control

    async def until_told(agent: "Agent") -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serve_control(agent, state):
            await agent.run(stop)

    async def one(agent: "Agent") -> "Result":
        result = await agent.attest()
        if result.ear is not None:
            await agent.settle()
        return result

    report = _reporter(as_json=as_json)
    if once:
        _check_verdict(_with_agent(state, tcti, boot_log, save, report, one))
        return
    from umec_attest.agent.state import load_state

    load_state(state)
    with only_agent(state):
        _with_agent(state, tcti, boot_log, save, report, until_told)


@app.command(rich_help_panel=ON_NODE)
@refusals
def token(
    state: State,
    resource: Annotated[str, typer.Option(help="The API that the token is for (RFC 8707).")],
    scope: Scope = NODE_SCOPE,
    boot_log: BootLog = BOOT_LOG,
    tcti: OwnTcti = None,
    as_json: Json = False,
) -> None:
    """Print a token that is bound to the certificate of the running agent (without one: of a round of its own)."""
    from umec_attest.agent.control import Token

    said = _asked(state, tcti, boot_log, Token(resource=resource, scope=scope))
    emit({"token": said["token"], "expires_at": said["expires_at"]}, as_json=as_json, human=said["token"])


@app.command(rich_help_panel=ON_NODE)
@refusals
def call(
    method: Annotated[str, typer.Argument(help="GET, POST, …")],
    url: Annotated[str, typer.Argument(help="https://…")],
    state: State,
    resource: Annotated[str | None, typer.Option(help="The API; by default the one that the URL lies in.")] = None,
    scope: Scope = NODE_SCOPE,
    data: Annotated[str | None, typer.Option(help="JSON to send, or @FILE.")] = None,
    boot_log: BootLog = BOOT_LOG,
    tcti: OwnTcti = None,
    as_json: Json = False,
) -> None:
    """Send one request in the node's name: its in-memory TLS key, a token bound to it. Exit status 1 unless 2xx."""
    from pydantic import ValidationError

    from umec_attest.agent.control import Call
    from umec_attest.agent.session import default_resource
    from umec_attest.agent.state import load_state

    wanted = {
        "method": method.upper(),
        "url": url,
        "resource": resource if resource is not None else default_resource(url, load_state(state).url),
        "scope": scope,
        "content": None if data is None else _content(data),
        "headers": {} if data is None else {"Content-Type": "application/json"},
    }
    try:
        request = Call.model_validate(wanted)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        raise Invalid("; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in faults)) from None
    said = _asked(state, tcti, boot_log, request)
    body = base64.b64decode(said["content"]).decode(errors="replace")
    emit({"status": said["status"], "body": body}, as_json=as_json, human=f"{said['status']}\n{body}")
    if not 200 <= int(said["status"]) < 300:
        raise typer.Exit(1)


# --- as an operator -------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=OPERATOR)
@refusals
def ticket(
    asset: Annotated[str, typer.Argument(help="The asset; it becomes the node's id.")],
    tenant: Annotated[str, typer.Option(help="The tenant that the node belongs to.")],
    image: Annotated[str, typer.Option(help="The node image whose reference set applies.")],
    ek_sha256: Annotated[str, typer.Option(help="What `umec node ek` printed on the node.")],
    credential: Credential,
    lifetime: Annotated[int, typer.Option(help="Seconds until the ticket ends.")] = 3600,
    as_json: Json = False,
) -> None:
    """Make an enrolment ticket, good for one TPM and one enrolment."""
    body = {
        "asset": asset,
        "tenant": tenant,
        "image": image,
        "ek_sha256": ek_sha256,
        "lifetime_seconds": lifetime,
    }
    made = _operate(credential, "POST", "tickets", "attest:admin", body)
    emit(made, as_json=as_json, human=str(made["ticket"]))


@app.command("list", rich_help_panel=OPERATOR)
@refusals
def list_nodes(credential: Credential, as_json: Json = False) -> None:
    """List the nodes and their standing."""
    said = _operate(credential, "GET", "nodes", "attest:read")
    rows = [f"{row['node']:<24} {row.get('tenant') or '-':<16} {row['standing']}" for row in said.get("nodes", [])]
    emit(said, as_json=as_json, human="\n".join(rows) if rows else "no nodes")


@app.command(rich_help_panel=OPERATOR)
@refusals
def show(node: Node, credential: Credential, as_json: Json = False) -> None:
    """Show a node."""
    emit(_operate(credential, "GET", f"nodes/{node}", "attest:read"), as_json=as_json)


@app.command(rich_help_panel=OPERATOR)
@refusals
def explain(node: Node, credential: Credential, as_json: Json = False) -> None:
    """Say why a node stands as it does: findings, deciding policies, digests of what was judged."""
    emit(_operate(credential, "GET", f"nodes/{node}/explain", "attest:read"), as_json=as_json)


@app.command(rich_help_panel=OPERATOR)
@refusals
def approve(
    node: Node,
    credential: Credential,
    tenant: Annotated[str | None, typer.Option(help="To whom the node belongs, where no ticket said it.")] = None,
    image: Annotated[str | None, typer.Option(help="Which node image it runs, where no ticket said it.")] = None,
    as_json: Json = False,
) -> None:
    """Approve a node that enrolled without a ticket."""
    named = {"tenant": tenant, "image": image}
    body = {name: value for name, value in named.items() if value is not None}
    _decide(node, "approve", credential, body, as_json=as_json)


@app.command(rich_help_panel=OPERATOR)
@refusals
def quarantine(node: Node, credential: Credential, reason: Reason = "", as_json: Json = False) -> None:
    """Take a node out until it is readmitted, whatever its evidence says."""
    _decide(node, "quarantine", credential, {"reason": reason}, as_json=as_json)


@app.command(rich_help_panel=OPERATOR)
@refusals
def readmit(node: Node, credential: Credential, reason: Reason = "", as_json: Json = False) -> None:
    """Let a quarantined node prove itself again."""
    _decide(node, "readmit", credential, {"reason": reason}, as_json=as_json)


@app.command(rich_help_panel=OPERATOR)
@refusals
def revoke(node: Node, credential: Credential, reason: Reason = "", as_json: Json = False) -> None:
    """Revoke a node for good: only a new enrolment brings it back."""
    _decide(node, "revoke", credential, {"reason": reason}, as_json=as_json)


# --- without hardware -----------------------------------------------------------------------------------------------


@app.command("simulate-boot", rich_help_panel=HARNESS)
@refusals
def simulate_boot(
    tcti: Tcti,
    image: Annotated[Path, typer.Option(help="The node image folder.")],
    log: Annotated[Path, typer.Option(help="Where to write the boot log.")],
    tamper: Annotated[
        str | None, typer.Option(help="Change one stage: cmdline, kernel, initrd, firmware or secure-boot.")
    ] = None,
    power_cycle: Annotated[
        bool, typer.Option("--power-cycle", help="Switch the software TPM off and on first.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Boot a node image as a firmware would: measure it into the TPM and write the boot log."""
    from umec_attest.testing import firmware, swtpm
    from umec_attest.testing.image import Tamper

    stages = {stage.value: stage for stage in Tamper}
    if tamper is not None and tamper not in stages:
        raise Invalid(f"no stage {tamper!r}", advice=f"one of {', '.join(stages)}")
    if power_cycle:
        swtpm.power_cycle(tcti)
    written = firmware.boot(tcti, image, log=log, tamper=None if tamper is None else stages[tamper])
    emit(
        {"log": str(log), "bytes": len(written), "tampered": tamper},
        as_json=as_json,
        human=f"booted {image}; {len(written)} bytes of boot log in {log}",
    )


@app.command("sample-image", rich_help_panel=HARNESS)
@refusals
def sample_image(
    directory: Annotated[Path, typer.Argument(help="The folder to write.")],
    cmdline: Annotated[str, typer.Option(help="The kernel's command line.")] = "root=/dev/mapper/root ro panic=-1",
    as_json: Json = False,
) -> None:
    """Write a small node image folder that `simulate-boot` can boot."""
    from umec_attest.testing.image import make_image

    make_image(directory, cmdline=cmdline)
    emit({"image": str(directory)}, as_json=as_json, human=f"a node image in {directory}")


@app.command("software-tpm", rich_help_panel=HARNESS)
@refusals
def software_tpm(
    directory: Annotated[Path, typer.Argument(help="Where the TPM keeps its state; made at the first start.")],
    as_json: Json = False,
) -> None:
    """Run a software TPM with an endorsement key certificate of its own authority, until SIGTERM."""
    from umec_attest.testing.swtpm import SoftwareTpm

    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    with SoftwareTpm(directory) as tpm:
        root, chain = directory / "ek-root.pem", directory / "ek-chain.pem"
        root.write_text(tpm.authority.root_pem)
        chain.write_text(tpm.authority.chain_pem)
        emit({"tcti": tpm.tcti, "ek_root": str(root), "ek_chain": str(chain)}, as_json=as_json)
        while True:
            signal.pause()


# --- how ------------------------------------------------------------------------------------------------------------


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _with_agent(
    state: Path,
    tcti: str | None,
    boot_log: Path,
    save: Path | None,
    report: "Report | None",
    work: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - whatever `work` returns
    """Give `work` an agent for the enrolled node, and let go of everything afterwards."""
    from umec_attest.agent.loop import Agent
    from umec_attest.agent.state import load_state
    from umec_attest.agent.tpm import Tpm

    stored = load_state(state)

    async def working() -> Any:  # noqa: ANN401
        # One thread is enough for a TPM that does one thing at a time; each more costs memory.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with Tpm(tcti if tcti is not None else stored.tcti) as tpm:
            agent = Agent(stored, tpm, boot_log=boot_log, save=save, report=report)
            try:
                return await work(agent)
            finally:
                await agent.close()

    return asyncio.run(working())


def _asked(state: Path, tcti: str | None, boot_log: Path, request: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """Ask the running agent; where none runs, do a round and answer here."""
    from umec_attest.agent.control import ask, carry_out

    said = asyncio.run(ask(state, request))
    if said is not None:
        return said

    async def own_round(agent: "Agent") -> Mapping[str, Any]:
        await agent.attest()
        await agent.settle()
        return await carry_out(agent, request)

    done: Mapping[str, Any] = _with_agent(state, tcti, boot_log, None, None, own_round)
    return done


def _reporter(*, as_json: bool) -> "Report":
    def report(line: Mapping[str, Any]) -> None:
        emit(line, as_json=as_json, human=_readable(line))

    return report


def _readable(line: Mapping[str, Any]) -> str:
    head = f"{line['at']} {line['node']} round {line['round']}:"
    match line["event"]:
        case "round":
            findings = "".join(f"\n  {finding['id']}: {finding['detail']}" for finding in line["findings"])
            return f"{head} {line['verdict']}, {line['standing']} (generation {line['generation']}){findings}"
        case "certificate":
            return f"{head} new certificate until {line['expires_at']}"
        case _:
            again = f", again in {line['retry_seconds']} s" if "retry_seconds" in line else ""
            return f"{head} {line['code']}: {line['detail']}{again}"


def _check_verdict(result: "Result") -> None:
    if result.verdict == "contraindicated":
        found = ", ".join(finding.id for finding in result.findings)
        raise NodeNotTrusted(f"the evidence speaks against the node: {found or 'see its standing'}")


def _decide(node: str, decision: str, credential: Path, body: Mapping[str, str], *, as_json: bool) -> None:
    said = _operate(credential, "POST", f"nodes/{node}/{decision}", "attest:admin", body)
    emit(said, as_json=as_json, human=f"{node}: {said.get('standing', decision)}")


def _operate(
    credential: Path, method: str, path: str, scope: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    from umec_platform.cli.remote import connected

    async def send() -> dict[str, Any]:
        async with connected(credential) as client:
            base = f"{client.credential.issuer}/attest/v1"
            response = await client.request(method, f"{base}/{path}", resource=base, scopes=(scope,), json=body)
            said = response.json() if response.content else {}
            return said if isinstance(said, dict) else {"answer": said}

    return asyncio.run(send())


def _ticket_text(given: str | None) -> str | None:
    return _text_of(Path(given[1:])).strip() if given is not None and given.startswith("@") else given


def _content(given: str) -> bytes:
    data = _text_of(Path(given[1:])) if given.startswith("@") else given
    return base64.b64encode(data.encode())


def _text_of(path: Path) -> str:
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not text: {error}") from error


def _certificates(path: Path) -> tuple[bytes, ...]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        read = x509.load_pem_x509_certificates(read_file(path))
    except ValueError as error:
        raise Invalid(f"{path} has no certificates in PEM") from error
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in read)
