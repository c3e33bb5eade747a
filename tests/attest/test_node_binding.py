"""What a node key may be bound to, and who says so: what is refused without asking any TPM."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_attest.node_binding import check_binding, is_bound, owner_policy
from umec_attest.reference import parse_draft, render_owner, sign_reference_set, verify_reference_set
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.public import Attributes
from umec_core import dsse

OWNER = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
SIGNER = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
POLICY = owner_policy(OWNER.public_key(), "edge-node")


@pytest.fixture
def node_key(kit: Any) -> Any:
    """An unbound key, as agents make them."""
    return kit.public_of(kit.ec_key(name="node"), attributes=kit.ORIGIN | Attributes.SIGN | Attributes.USER_WITH_AUTH)


@pytest.fixture
def bound(node_key: Any) -> Any:
    return replace(node_key, attributes=node_key.attributes & ~Attributes.USER_WITH_AUTH, auth_policy=POLICY)


def test_a_key_is_bound_as_its_image_asks_for(node_key: Any, bound: Any) -> None:
    check_binding(node_key, None)
    check_binding(bound, POLICY)
    unusable = replace(bound, auth_policy=b"")
    assert [is_bound(key) for key in (node_key, unusable, bound)] == [False, False, True]


def test_an_unbound_key_is_refused_where_there_is_an_owner(node_key: Any, bound: Any, refused: Any) -> None:
    with refused("node-key-unbound"):
        check_binding(node_key, POLICY)
    with refused("node-key-unbound"):
        check_binding(replace(bound, auth_policy=b""), POLICY)
    check_binding(bound, POLICY)


@pytest.mark.parametrize(
    "policy",
    [
        owner_policy(OTHER.public_key(), "edge-node"),
        owner_policy(OWNER.public_key(), "other-node"),
        POLICY[:-1] + bytes([POLICY[-1] ^ 1]),
        POLICY[:-1],
        bytes(32),
    ],
    ids=["owner", "image", "bit", "length", "zeros"],
)
def test_a_key_that_is_bound_to_anything_else_is_refused(bound: Any, refused: Any, policy: bytes) -> None:
    with refused("node-key-policy"):
        check_binding(replace(bound, auth_policy=policy), POLICY)
    with refused("node-key-policy"):
        check_binding(replace(bound, auth_policy=policy), None)  # to whom, nobody here can say
    check_binding(bound, POLICY)


def test_a_policy_beside_a_password_binds_nothing(bound: Any, refused: Any) -> None:
    both = replace(bound, attributes=bound.attributes | Attributes.USER_WITH_AUTH)
    assert not is_bound(both)
    with refused("node-key-policy"):
        check_binding(both, POLICY)
    check_binding(replace(bound, attributes=bound.attributes | Attributes.ADMIN_WITH_POLICY), POLICY)


# --- who says so --------------------------------------------------------------------------------------------------


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def signed(**changes: Any) -> bytes:
    envelope = sign_reference_set(
        name="edge-node",
        subject_sha256="ab" * 32,
        version=1,
        issued=NOW,
        expires=NOW + timedelta(days=1),
        pcrs={HashAlgorithm.SHA256: {4: [bytes(32)]}},
        ignored={},
        key=SIGNER,
    )
    statement = json.loads(dsse.verify(envelope, keys=[SIGNER.public_key()], payload_type=dsse.IN_TOTO))
    statement["predicate"] |= changes
    return bytes(dsse.sign(json.dumps(statement).encode(), dsse.IN_TOTO, SIGNER))


def verified(envelope: bytes) -> Any:
    return verify_reference_set(envelope, signers=[SIGNER.public_key()], now=NOW, minimum_version=0)


@pytest.mark.parametrize(
    "key",
    [OWNER, ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["p256", "p384", "rsa2048"],
)
def test_a_reference_set_names_the_owner(key: Any) -> None:
    assert verified(signed()).owner is None
    assert verified(signed(owner=pem(key))).owner == key.public_key()
    envelope = sign_reference_set(
        name="edge-node",
        subject_sha256="ab" * 32,
        version=1,
        issued=NOW,
        expires=NOW + timedelta(days=1),
        pcrs={HashAlgorithm.SHA256: {4: [bytes(32)]}},
        ignored={},
        owner=key.public_key(),
        key=SIGNER,
    )
    assert verified(envelope).owner == key.public_key()
    assert render_owner(key.public_key()) == pem(key)


@pytest.mark.parametrize(
    "owner",
    [
        "",
        "nobody",
        7,
        "\ud800",
        pem(ed25519.Ed25519PrivateKey.generate()),
        pem(ec.generate_private_key(ec.SECP521R1())),
        pem(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - a weak key is what it tries
        pem(OWNER) + " " * 4096,
    ],
    ids=["empty", "text", "number", "no-text", "ed25519", "p521", "rsa1024", "long"],
)
def test_an_owner_that_is_none_makes_no_set(refused: Any, owner: Any) -> None:
    with refused("reference-invalid"):
        verified(signed(owner=owner))
    draft = {"pcrs": {"sha256": {"4": ["cd" * 32]}}}
    with refused("reference-invalid"):
        parse_draft(json.dumps(draft | {"owner": owner}).encode())
    assert parse_draft(json.dumps(draft | {"owner": pem(OWNER)}).encode()).owner == OWNER.public_key()
