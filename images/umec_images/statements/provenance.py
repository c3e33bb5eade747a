"""SLSA provenance v1 (https://slsa.dev/provenance/v1): which builder made it, by which kind of build."""

from dataclasses import dataclass
from typing import Final

from umec_images.errors import StatementInvalid
from umec_images.statements.intoto import Statement

__all__ = ["PROVENANCE", "Provenance", "parse_provenance"]

PROVENANCE: Final = "https://slsa.dev/provenance/v1"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What provenance says about a build: `builder` and `build_type` are URIs."""

    builder: str
    build_type: str


def parse_provenance(statement: Statement) -> Provenance:
    """Return the provenance in a statement; raises StatementInvalid."""
    if statement.predicate_type != PROVENANCE:
        raise StatementInvalid(f"the predicate is {statement.predicate_type[:100]!r}, expected {PROVENANCE}")
    match statement.predicate:
        case {
            "buildDefinition": {"buildType": str(build_type), "externalParameters": dict()},
            "runDetails": {"builder": {"id": str(builder)}},
        } if build_type and builder:
            return Provenance(builder, build_type)
    raise StatementInvalid("provenance names its buildType, its externalParameters and its builder's id; this does not")
