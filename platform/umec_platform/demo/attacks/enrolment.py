"""Enrolment: somebody bought TPMs, and wants to be a node, or to be another one."""

import base64
import secrets
from typing import Final

from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_platform.demo.attacks.stranger import Stranger, succeed
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.hand import ATTEST
from umec_platform.demo.run import code_of

__all__ = ["ATTACKS"]


def stolen_ticket(stranger: Stranger) -> str | None:
    """Use the ticket of one TPM with another."""
    ticket = stranger.ticket_for(stranger.node)
    succeed(stranger.begin(stranger.node, ticket=ticket), "the ticket was refused to its owner")
    return code_of(stranger.begin(stranger.spare, ticket=ticket))


def used_ticket(stranger: Stranger) -> str | None:
    """Use a ticket twice, with the very TPM that it is for."""
    ticket = stranger.ticket_for(stranger.node)
    stranger.enrol(stranger.node, ticket)
    return code_of(stranger.begin(stranger.node, ticket=ticket))


def made_up_ticket(stranger: Stranger) -> str | None:
    """Change the secret of a ticket."""
    ticket = stranger.ticket_for(stranger.node)
    succeed(stranger.begin(stranger.node, ticket=ticket), "the ticket was refused to its owner")
    return code_of(stranger.begin(stranger.node, ticket=ticket[:-8] + secrets.token_hex(4)))


def second_node(stranger: Stranger) -> str | None:
    """Be two nodes with one TPM."""
    ticket = stranger.ticket_for(stranger.node)
    succeed(stranger.begin(stranger.node, ticket=ticket), "the ticket was refused to its owner")
    return code_of(stranger.begin(stranger.node, node="node-z"))


def another_tpm(stranger: Stranger) -> str | None:
    """Enrol under the name of a node that has another TPM; under a free name, that TPM may wait for an operator."""
    succeed(stranger.begin(stranger.spare, node="node-free"), "a good TPM may not ask under a free name")
    return code_of(stranger.begin(stranger.spare, node="node-a"))


def unrestricted_ak(stranger: Stranger) -> str | None:
    """Present a key that signs anything as the attestation key: it could sign made-up quotes."""
    free = {"node": "node-free"}
    succeed(stranger.begin(stranger.spare, **free), "a good TPM may not ask under a free name")
    loose = stranger.spare.enrolment()["node_key_public"]
    return code_of(stranger.begin(stranger.spare, **free, ak_public=loose))


def unknown_maker(stranger: Stranger) -> str | None:
    """Make TPMs of one's own: all is right with them but who vouches for them."""
    succeed(stranger.begin(stranger.spare, node="node-free"), "a good TPM may not ask under a free name")
    run = stranger.run
    with SoftwareTpm(run.folder / "tpm-homemade") as tpm, SoftwareNode(tpm, name="node-free") as node:
        return code_of(stranger.begin(node))


def wrong_secret(stranger: Stranger) -> str | None:
    """Enrol a TPM that one has seen and not got: the sealed secret can only be guessed."""
    ticket = stranger.ticket_for(stranger.node)
    stranger.enrol(stranger.node, ticket)
    opened = stranger.begin(stranger.node, ticket=stranger.ticket_for(stranger.node))
    answer = succeed(opened, "the ticket was refused to its owner").json()
    body = stranger.node.activation(answer) | {"secret": base64.b64encode(bytes(32)).decode()}
    return code_of(stranger.http.post(f"{ATTEST}/enrolments/{answer['enrolment']}/activation", json=body))


TPM: Final = "a genuine TPM of a maker whom the site believes"

ATTACKS: Final[tuple[Attack[Stranger], ...]] = (
    Attack("stolen-ticket", "ticket-ek-mismatch", f"{TPM}, another's ticket", stolen_ticket),
    Attack("ticket-used-twice", "ticket-used", f"{TPM}, its ticket", used_ticket),
    Attack("ticket-made-up", "ticket-unknown", TPM, made_up_ticket),
    Attack("second-node-with-one-tpm", "ek-enrolled-elsewhere", TPM, second_node),
    Attack("another-tpm-under-the-nodes-id", "node-other-ek", TPM, another_tpm),
    Attack("ak-without-restriction", "ak-attributes", TPM, unrestricted_ak),
    Attack("ek-of-unknown-maker", "ek-certificate-path", "TPMs made at home", unknown_maker),
    Attack(
        "secret-guessed",
        "activation-secret-mismatch",
        "another's EK certificate, AK and ticket, and not the TPM",
        wrong_secret,
    ),
)
