"""Enrolment tickets: what an operator hands to whoever installs a node."""

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umec_attest.agent.errors import PlatformUntrusted, TicketInvalid
from umec_core.errors import UmecError
from umec_core.jose import base64url_decode

__all__ = ["Ticket", "check_ca", "parse_ticket"]

MAX_TICKET: Final = 8192


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    asset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    ca_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    url: Annotated[str, Field(pattern=r"^https://[^/?#\s@]+$", max_length=512)]
    secret: Annotated[str, Field(min_length=1, max_length=512)]


@dataclass(frozen=True, slots=True)
class Ticket:
    """For which asset, at which platform, under which server CA; `text` is what the verifier wants to see again."""

    asset: str
    url: str
    ca_sha256: str
    text: str = field(repr=False)


def parse_ticket(text: str) -> Ticket:
    """Read a ticket: base64url of a JSON object. Raises TicketInvalid, which never repeats the secret."""
    text = text.strip()
    if len(text) > MAX_TICKET:
        raise TicketInvalid(f"a ticket has at most {MAX_TICKET} characters")
    try:
        wire = _Wire.model_validate_json(base64url_decode(text.rstrip("=")))
    except (UmecError, ValidationError) as error:
        raise TicketInvalid("this is no ticket", advice="copy all of it, in one line") from error
    return Ticket(wire.asset, wire.url, wire.ca_sha256, text)


def check_ca(ticket: Ticket, ca_pem: str) -> None:
    """Check that the server CA is the one that the ticket pins (SHA-256 of the certificate's DER).

    Raises PlatformUntrusted.
    """
    try:
        certificates = x509.load_pem_x509_certificates(ca_pem.encode())
    except ValueError as error:
        raise PlatformUntrusted("the file of the platform CA has no certificate in PEM") from error
    pins = [hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest() for certificate in certificates]
    if pins != [ticket.ca_sha256]:
        raise PlatformUntrusted(
            f"the platform CA has SHA-256 {', '.join(pins)}, the ticket pins {ticket.ca_sha256}",
            advice="get the CA file from whoever gave you the ticket",
        )
