"""Enrolment tickets: what an operator hands to whoever installs a node."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from umec_attest.agent.errors import PlatformUntrusted, TicketInvalid
from umec_attest.agent.fields import FieldInvalid, read_object
from umec_attest.agent.state import NODE, URL
from umec_core.errors import UmecError
from umec_core.jose import base64url_decode

__all__ = ["Ticket", "check_ca", "parse_ticket"]

MAX_TICKET: Final = 8192
SHA256: Final = re.compile(r"[0-9a-f]{64}")


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
        fields = read_object(base64url_decode(text.rstrip("=")))
        asset = fields.text("asset", longest=63, pattern=NODE)
        ca_sha256 = fields.text("ca_sha256", longest=64, pattern=SHA256)
        url = fields.text("url", longest=512, pattern=URL)
        fields.text("secret", shortest=1, longest=512)
        fields.end()
    except (UmecError, FieldInvalid) as error:
        raise TicketInvalid("this is no ticket", advice="copy all of it, in one line") from error
    return Ticket(asset, url, ca_sha256, text)


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
