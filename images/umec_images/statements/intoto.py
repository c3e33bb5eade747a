"""in-toto Statement v1 (https://in-toto.io/Statement/v1): subjects with digests, and a predicate of some type.

As the specification demands, unknown members are ignored; what matters is read strictly.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from umec_images.errors import StatementInvalid

__all__ = ["STATEMENT", "Statement", "Subject", "encode_statement", "parse_statement"]

STATEMENT: Final = "https://in-toto.io/Statement/v1"
MAX_STATEMENT: Final = 16 * 1024 * 1024
"""Bytes; a predicate may be the SBOM of a whole image."""
MAX_SUBJECTS: Final = 1024
"""Images of one build, one for each platform; the largest published ones list some hundred files."""
HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
SHA256_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about: a name and lower-case hexadecimal digests by algorithm."""

    name: str
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed statement. Parsing proves nothing: see who signed it."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Any]


def parse_statement(payload: bytes) -> Statement:
    """Return a statement; raises StatementInvalid."""
    if len(payload) > MAX_STATEMENT:
        raise StatementInvalid(f"a statement has at most {MAX_STATEMENT} bytes")
    try:
        value = json.loads(payload, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise StatementInvalid("the statement is not JSON in which every member occurs once") from error
    if not isinstance(value, dict) or value.get("_type") != STATEMENT:
        raise StatementInvalid(f"the statement is not of the type {STATEMENT}")
    subjects, predicate_type, predicate = value.get("subject"), value.get("predicateType"), value.get("predicate", {})
    if not isinstance(subjects, list) or not 1 <= len(subjects) <= MAX_SUBJECTS:
        raise StatementInvalid(f"a statement has 1 to {MAX_SUBJECTS} subjects")
    if not isinstance(predicate_type, str) or not predicate_type:
        raise StatementInvalid("the statement has no predicateType")
    if not isinstance(predicate, dict):
        raise StatementInvalid("the predicate is not a JSON object")
    return Statement(tuple(_subject(subject) for subject in subjects), predicate_type, predicate)


def encode_statement(statement: Statement) -> bytes:
    """Return a statement as JSON, sorted, so that the same statement has the same bytes."""
    value = {
        "_type": STATEMENT,
        "subject": [{"name": subject.name, "digest": dict(subject.digests)} for subject in statement.subjects],
        "predicateType": statement.predicate_type,
        "predicate": statement.predicate,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _subject(value: object) -> Subject:
    if not isinstance(value, dict):
        raise StatementInvalid("a subject is not a JSON object")
    name, digests = value.get("name", ""), value.get("digest")
    if not isinstance(name, str):
        raise StatementInvalid("the name of a subject is not a string")
    if not isinstance(digests, dict) or not digests:
        raise StatementInvalid("a subject has no digest")
    for algorithm, digest in digests.items():
        if not isinstance(digest, str) or not digest:
            raise StatementInvalid(f"the {algorithm[:40]!r} digest of a subject is not a string")
    sha256 = digests.get("sha256")
    if sha256 is not None and (len(sha256) != SHA256_DIGITS or HEX.fullmatch(sha256) is None):
        raise StatementInvalid("the sha256 digest of a subject is not 64 lower-case hexadecimal digits")
    return Subject(name, digests)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
