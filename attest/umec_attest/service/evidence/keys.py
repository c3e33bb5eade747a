"""The keys of an enrolled node, parsed once: they are checked at enrolment and the same in every round."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from umec_attest.errors import NodeKeyAttributes
from umec_attest.service.evidence.state import NodeState
from umec_attest.service.tables import NodeRow
from umec_attest.tpm.names import Hierarchy, qualified_name
from umec_attest.tpm.public import Public, parse_public
from umec_core.jose import public_jwk

__all__ = ["KnownKeys", "known_keys"]

REMEMBERED: Final = 32_768
"""Nodes whose parsed keys are kept, at some 5 KB; those of more nodes are parsed again."""


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """AK, its Name in hex, the Qualified Name of its parent (the EK), and the node key as JWK."""

    ak: Public
    ak_name: str
    parent: bytes
    node_key: Mapping[str, str]


def known_keys(node: NodeRow | NodeState) -> KnownKeys:
    """Return the parsed keys of a node as its row has them now."""
    return _parsed(node.ak_public, node.ek_public, node.node_key_public)


@lru_cache(maxsize=REMEMBERED)
def _parsed(ak_public: bytes, ek_public: bytes, node_key_public: bytes) -> KnownKeys:
    ak, node_key = parse_public(ak_public), parse_public(node_key_public).key()
    if not isinstance(node_key, EllipticCurvePublicKey):
        raise NodeKeyAttributes("a node key is on P-256")
    parent = qualified_name(parse_public(ek_public), Hierarchy.ENDORSEMENT)
    return KnownKeys(ak, ak.name().hex(), parent, MappingProxyType(public_jwk(node_key)))
