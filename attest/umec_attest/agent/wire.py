"""What the verifier and the authorization server answer, read strictly in what the agent uses.

Members that the agent does not know are ignored: a node in the street must survive a platform newer than itself.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol, Self, TypeVar

from umec_attest.agent.errors import AnswerInvalid
from umec_attest.agent.fields import FieldInvalid, Fields, read_object
from umec_attest.agent.transport import Answer

__all__ = [
    "Activated",
    "Certified",
    "Challenge",
    "Enrolment",
    "Finding",
    "NodeToken",
    "Pcrs",
    "PopChallenge",
    "Readable",
    "Result",
    "Rotated",
    "RotationPermit",
    "ShownCheckpoint",
    "read_answer",
]

MAX_ANSWER: Final = 256 * 1024
"""Bytes; the longest answer is a result with its findings."""
MAX_BLOB: Final = 4096
"""Bytes of a structure of a TPM."""
MAX_NAME: Final = 256
MAX_TEXT: Final = 16384
MAX_PCRS: Final = 24
HASH_SIZE: Final = 32

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LOGS: Final[dict[str, Literal["full", "digest"]]] = {"full": "full", "digest": "digest"}


class Readable(Protocol):
    """What an answer may be."""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""


A = TypeVar("A", bound=Readable)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The answer to `POST /attest/v1/enrolments`."""

    enrolment: str
    credential_blob: bytes
    encrypted_secret: bytes
    expires_at: datetime

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("enrolment", longest=128, pattern=_IDENTIFIER),
            fields.octets("credential_blob", most=MAX_BLOB),
            fields.octets("encrypted_secret", most=MAX_BLOB),
            fields.instant("expires_at"),
        )


@dataclass(frozen=True, slots=True)
class Activated:
    """The answer to `POST /attest/v1/enrolments/{id}/activation`."""

    node: str
    standing: str
    approved: bool

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("node", longest=MAX_NAME), fields.text("standing", longest=MAX_NAME), fields.flag("approved")
        )


@dataclass(frozen=True, slots=True)
class Pcrs:
    """Which PCRs a quote has to cover: 1 to 24 numbers, each once."""

    sha256: tuple[int, ...]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        indices = fields.integers("sha256", least=0, most=MAX_PCRS - 1)
        if not indices or len(set(indices)) != len(indices):
            raise FieldInvalid("pcrs.sha256")
        return cls(indices)


@dataclass(frozen=True, slots=True)
class Challenge:
    """The answer to `POST /attest/v1/challenges`."""

    challenge: str
    nonce: bytes
    pcrs: Pcrs
    boot_log: Literal["full", "digest"]
    runtime_from: int | None
    """From which entry on the list of what ran is wanted; None: not at all."""
    deadline: datetime
    round_seconds: float
    starts_from: int | None = None
    """From which entry on the log of starts is wanted; None: not at all."""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("challenge", shortest=1, longest=8192),
            fields.octets("nonce", least=16, most=64),
            Pcrs.read(fields.inside("pcrs")),
            fields.one_of("boot_log", _LOGS),
            fields.optional("ima", lambda name: fields.inside(name).integer("from")),
            fields.instant("deadline"),
            fields.number("round_seconds", above=0, most=86400),
            fields.optional("starts", lambda name: fields.inside(name).integer("from")),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the verifier did not expect."""

    id: str
    detail: str
    expected: Any = None
    found: Any = None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("id", longest=MAX_NAME),
            fields.text("detail", longest=MAX_TEXT),
            fields.anything("expected"),
            fields.anything("found"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what is there."""
        shown = {"id": self.id, "detail": self.detail, "expected": self.expected, "found": self.found}
        return {name: value for name, value in shown.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to `POST /attest/v1/evidence`."""

    verdict: str
    standing: str
    generation: int
    findings: tuple[Finding, ...] = ()
    ear: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("verdict", longest=MAX_NAME),
            fields.text("standing", longest=MAX_NAME),
            fields.integer("generation"),
            tuple(Finding.read(one) for one in fields.optional("findings", fields.objects) or ()),
            fields.optional("ear", lambda name: fields.text(name, longest=MAX_TEXT)),
        )


@dataclass(frozen=True, slots=True)
class ShownCheckpoint:
    """The answer to `GET /attest/v1/checkpoint`: a signed note, the log's key (SubjectPublicKeyInfo), a proof."""

    origin: str
    key: bytes
    checkpoint: str
    proof: tuple[bytes, ...]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("origin", shortest=1, longest=MAX_NAME),
            fields.octets("key", most=MAX_BLOB),
            fields.text("checkpoint", longest=MAX_TEXT),
            fields.octets_list("proof", each=HASH_SIZE),
        )


@dataclass(frozen=True, slots=True)
class RotationPermit:
    """The answer to `POST /attest/v1/rotations`."""

    permit: str
    credential_blob: bytes
    encrypted_secret: bytes
    pcrs: Pcrs

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("permit", shortest=1, longest=4096),
            fields.octets("credential_blob", most=MAX_BLOB),
            fields.octets("encrypted_secret", most=MAX_BLOB),
            Pcrs.read(fields.inside("pcrs")),
        )


@dataclass(frozen=True, slots=True)
class Rotated:
    """The answer to `POST /attest/v1/rotations/proof`."""

    standing: str
    generation: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(fields.text("standing", longest=MAX_NAME), fields.integer("generation"))


@dataclass(frozen=True, slots=True)
class PopChallenge:
    """The answer to `POST /oauth2/challenge`."""

    attestation_challenge: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(fields.text("attestation_challenge", shortest=1, longest=2048))


@dataclass(frozen=True, slots=True)
class Certified:
    """The answer to `POST /identity/v1/certificates`."""

    certificate: str
    chain: str
    expires_at: datetime

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("certificate", longest=MAX_TEXT),
            fields.optional("chain", lambda name: fields.text(name, longest=4 * MAX_TEXT)) or "",
            fields.instant("expires_at"),
        )


@dataclass(frozen=True, slots=True)
class NodeToken:
    """The answer of the token endpoint (RFC 6749, 5.1)."""

    access_token: str
    token_type: str
    expires_in: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return it; raises FieldInvalid."""
        return cls(
            fields.text("access_token", shortest=1, longest=MAX_TEXT),
            fields.text("token_type", longest=MAX_NAME),
            fields.integer("expires_in", least=1),
        )


def read_answer(kind: type[A], answer: Answer) -> A:
    """Return the answer as its type. Raises AnswerInvalid, without repeating what was answered."""
    if len(answer.content) > MAX_ANSWER:
        raise AnswerInvalid(f"{answer.path} answered {len(answer.content)} bytes")
    try:
        return kind.read(read_object(answer.content))
    except FieldInvalid as error:
        raise AnswerInvalid(f"{answer.path} answered otherwise than expected, see: {error.place}") from error
