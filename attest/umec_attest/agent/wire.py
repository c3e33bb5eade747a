"""What the verifier and the authorization server answer, read strictly in what the agent uses.

Members that the agent does not know are ignored: a node in the street must survive a platform newer than itself.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import httpx
from pydantic import AfterValidator, Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from umec_attest.agent.errors import AnswerInvalid

__all__ = [
    "Activated",
    "Certified",
    "Challenge",
    "Enrolment",
    "Finding",
    "NodeToken",
    "PopChallenge",
    "Result",
    "read_answer",
]

MAX_ANSWER: Final = 256 * 1024
"""Bytes; the longest answer is a result with its findings."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


A = TypeVar("A", bound=_Answer)


def _indices(pcrs: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(pcrs)) != len(pcrs):
        raise ValueError("a PCR is named twice")
    return pcrs


class Enrolment(_Answer):
    """The answer to `POST /attest/v1/enrolments`."""

    enrolment: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    credential_blob: Base64Bytes
    encrypted_secret: Base64Bytes
    expires_at: datetime


class Activated(_Answer):
    """The answer to `POST /attest/v1/enrolments/{id}/activation`."""

    node: str
    standing: str
    approved: bool


class Pcrs(_Answer):
    """Which PCRs a quote has to cover."""

    sha256: Annotated[
        tuple[Annotated[int, Field(ge=0, le=23)], ...], Field(min_length=1, max_length=24), AfterValidator(_indices)
    ]


class Challenge(_Answer):
    """The answer to `POST /attest/v1/challenges`."""

    challenge: Annotated[str, Field(min_length=1, max_length=8192)]
    nonce: Annotated[Base64Bytes, Field(min_length=16, max_length=64)]
    pcrs: Pcrs
    boot_log: Literal["full", "digest"]
    deadline: datetime
    round_seconds: Annotated[float, Field(gt=0, le=86400)]


class Finding(_Answer):
    """Something that the verifier did not expect."""

    id: str
    detail: str
    expected: Any = None
    found: Any = None


class Result(_Answer):
    """The answer to `POST /attest/v1/evidence`."""

    verdict: str
    standing: str
    generation: Annotated[int, Field(ge=0)]
    findings: tuple[Finding, ...] = ()
    ear: str | None = None


class PopChallenge(_Answer):
    """The answer to `POST /oauth2/challenge`."""

    attestation_challenge: Annotated[str, Field(min_length=1, max_length=2048)]


class Certified(_Answer):
    """The answer to `POST /identity/v1/certificates`."""

    certificate: Annotated[str, Field(max_length=16384)]
    chain: Annotated[str, Field(max_length=65536)] = ""
    expires_at: datetime


class NodeToken(_Answer):
    """The answer of the token endpoint (RFC 6749, 5.1)."""

    access_token: Annotated[str, Field(min_length=1, max_length=16384)]
    token_type: str
    expires_in: Annotated[int, Field(gt=0)]


def read_answer(kind: type[A], response: httpx.Response) -> A:
    """Return the answer as its type. Raises AnswerInvalid, without repeating what was answered."""
    if len(response.content) > MAX_ANSWER:
        raise AnswerInvalid(f"{response.url.path} answered {len(response.content)} bytes")
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        places = ", ".join(sorted({".".join(str(part) for part in fault["loc"]) for fault in error.errors()}))
        raise AnswerInvalid(f"{response.url.path} answered otherwise than expected, see: {places}") from error
