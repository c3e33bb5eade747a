"""Enrol a node: prove to the verifier that this TPM is that asset, and that the node key lives in it.

1. Read the EK and its certificate, make an AK and a node key, which is bound where the image has an owner.
2. Ask for enrolment; the answer has a secret that only this EK can open, and only for this AK.
3. Open it; the AK certifies the node key, bound to the secret.
4. Send both; keep the wrapped keys.
5. Keep the key of the verifier's log and its newest checkpoint: from now on the log may only grow.
"""

import base64
import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umec_attest.agent.binding import Binding, new_node_key
from umec_attest.agent.device_keys import DeviceKeys, prove_keys, show_keys
from umec_attest.agent.errors import AgentStateInvalid, AnswerInvalid, TicketInvalid
from umec_attest.agent.platform_client import PlatformClient
from umec_attest.agent.state import NodeState, begin_anew, prepare_directory, state_exists
from umec_attest.agent.ticket import Ticket, check_ca, parse_ticket
from umec_attest.agent.tpm import EndorsementKey, Tpm, WrappedKey
from umec_attest.agent.wire import Activated
from umec_attest.agent.witness import LogWitness
from umec_core.clock import system_clock
from umec_core.remote import RemoteRefused, RemoteUnavailable

__all__ = ["Enrolled", "EnrolmentPlan", "enrol", "plan_enrolment"]


@dataclass(frozen=True, slots=True)
class EnrolmentPlan:
    """Who asks whom: `ek_chain` are certificates (DER) that the TPM itself does not have.

    `node` None: the site says who this TPM is.
    """

    node: str | None
    url: str
    ca: str
    tcti: str
    ticket: Ticket | None
    ek_chain: tuple[bytes, ...] = ()
    identity: DeviceKeys | None = None
    binding: Binding | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An enrolled node: `approved` means that its evidence will be judged at once."""

    node: str
    standing: str
    approved: bool
    ek_sha256: str


def plan_enrolment(
    *,
    ticket: str | None,
    node: str | None,
    url: str | None,
    ca: str,
    tcti: str,
    ek_chain: tuple[bytes, ...] = (),
    identity: DeviceKeys | None = None,
    binding: Binding | None = None,
) -> EnrolmentPlan:
    """Put together what a ticket says and what was given; a contradiction is an error.

    Raises TicketInvalid, PlatformUntrusted.
    """
    parsed = None if ticket is None else parse_ticket(ticket)
    if parsed is not None:
        check_ca(parsed, ca)
    return EnrolmentPlan(
        node=_agreed("node", node, None if parsed is None else parsed.asset),
        url=_agreed("url", None if url is None else url.rstrip("/"), None if parsed is None else parsed.url),
        ca=ca,
        tcti=tcti,
        ticket=parsed,
        ek_chain=ek_chain,
        identity=identity,
        binding=binding,
    )


async def enrol(plan: EnrolmentPlan, directory: Path, *, replace: bool = False) -> Enrolled:
    """Enrol the node of this TPM and keep its state in `directory`.

    `replace` lets a new enrolment take the place of an older one. Raises AgentError, RemoteRefused, RemoteUnavailable.
    """
    prepare_directory(directory)
    if state_exists(directory) and not replace:
        raise AgentStateInvalid(f"{directory} already has an enrolled node", advice="--replace forgets it")
    with Tpm(plan.tcti) as tpm:
        ek, ak, node_key = tpm.endorsement_key(), tpm.create_attestation_key(), new_node_key(tpm, plan.binding)  # 1
        async with PlatformClient(plan.url, plan.ca) as platform:
            shown = {} if plan.identity is None else show_keys(tpm, plan.identity)
            answer = await platform.enrol(_request(plan, ek, ak, node_key) | shown)  # 2
            secret = tpm.activate_credential(ak, answer.credential_blob, answer.encrypted_secret)  # 3
            qualifying = hashlib.sha256(secret).digest()
            certified = tpm.certify(node_key, ak, qualifying)
            proofs = {} if plan.identity is None else prove_keys(tpm, plan.identity, ak, qualifying)
            body = {
                "secret": _text(secret),
                "certify_attest": _text(certified.attest),
                "certify_signature": _text(certified.signature),
            }
            activated = await platform.activate(answer.enrolment, body | proofs)  # 4
            begin_anew(directory, _state(plan, activated, ek, ak, node_key))
            with contextlib.suppress(RemoteRefused, RemoteUnavailable, AnswerInvalid):  # else the first round does it
                await LogWitness(directory).look(platform.checkpoint, system_clock())  # 5
    return Enrolled(activated.node, activated.standing, activated.approved, ek.sha256)


def _request(plan: EnrolmentPlan, ek: EndorsementKey, ak: WrappedKey, node_key: WrappedKey) -> dict[str, Any]:
    body: dict[str, Any] = {
        "ek_public": _text(ek.public),
        "ak_public": _text(ak.public),
        "node_key_public": _text(node_key.public),
    }
    if plan.node is not None:
        body["node"] = plan.node
    if plan.ticket is not None:
        body["ticket"] = plan.ticket.text
    if ek.certificate is not None:
        body["ek_certificate"] = _text(ek.certificate)
        body["ek_chain"] = [_text(certificate) for certificate in (*ek.chain, *plan.ek_chain)]
    return body


def _state(
    plan: EnrolmentPlan, activated: Activated, ek: EndorsementKey, ak: WrappedKey, node_key: WrappedKey
) -> NodeState:
    return NodeState(
        node=activated.node,
        url=plan.url,
        ca=plan.ca,
        tcti=plan.tcti,
        ek_public=ek.public,
        ak=ak,
        node_key=node_key,
        keys_since=system_clock(),
    )


def _agreed(name: str, given: str | None, named: str | None) -> str:
    """Return what was given or what the ticket names; both must agree."""
    if given is not None and named is not None and given != named:
        raise TicketInvalid(f"the ticket is for {name} {named}, not {given}")
    value = given if given is not None else named
    if value is None:
        raise TicketInvalid(f"without a ticket, --{name} says what the ticket would")
    return value


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
