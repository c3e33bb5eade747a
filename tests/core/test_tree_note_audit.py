"""RFC 6962 trees, C2SP checkpoints, and the audit log that stands on both."""

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from umec_core import note
from umec_core.audit import AuditCheckpointInvalid, AuditError, AuditGap, AuditRewritten, canonical, verify_export
from umec_core.note import NoteError, NoteOrigin, NoteSignature, sign_checkpoint, verify_checkpoint
from umec_core.tree import (
    EMPTY_ROOT,
    ConsistencyInvalid,
    InclusionInvalid,
    Tree,
    TreeRange,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

KEY = generate_private_key(SECP256R1())
ORIGIN = "umec/test"

# The inputs and roots of the reference implementation of Certificate Transparency (merkle_tree_test).
INPUTS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def grown(size: int) -> Tree:
    tree = Tree()
    for number in range(size):
        tree.append(str(number).encode())
    return tree


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962 writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(naive_root(leaves[:split]), naive_root(leaves[split:]))


def test_roots_are_those_of_the_reference_implementation() -> None:
    tree = Tree()
    assert tree.root() == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for entry, root in zip(INPUTS, ROOTS, strict=True):
        tree.append(entry)
        assert tree.root().hex() == root


@given(st.integers(1, 70), st.data())
def test_every_leaf_is_proven_and_no_other(size: int, data: Any) -> None:
    tree = grown(70)
    index = data.draw(st.integers(0, size - 1))
    path, root, leaf = tree.inclusion(index, size), tree.root(size), leaf_hash(str(index).encode())
    assert root == naive_root([str(number).encode() for number in range(size)])
    verify_inclusion(leaf, index, size, path, root)
    wrong = [
        (leaf_hash(b"other"), index, size, path, root),
        (leaf, index, size, [*path, root], root),
        (leaf, index, size, path, tree.root(size - 1) if size > 1 else EMPTY_ROOT),
        (leaf, size, size, path, root),
        (leaf, -1, size, path, root),
    ]
    if path:
        wrong += [(leaf, index, size, path[:-1], root), (leaf, index, size, [b"\0" * 32, *path[1:]], root)]
    for arguments in wrong:
        with pytest.raises(InclusionInvalid):
            verify_inclusion(*arguments)
    for other, why in (([*path, root], "longer"), (path[:-1], "shorter")):
        if other != path:
            with pytest.raises(InclusionInvalid, match=why):
                verify_inclusion(leaf, index, size, other, root)


@given(st.integers(1, 70), st.data())
def test_every_growth_is_proven_and_no_other(second: int, data: Any) -> None:
    tree = grown(70)
    first = data.draw(st.integers(1, second))
    proof, old, new = tree.consistency(first, second), tree.root(first), tree.root(second)
    verify_consistency(first, second, proof, old, new)
    wrong = [
        (first, second, [*proof, old], old, new),
        (first, second, proof, b"\0" * 32, new),
        (first, second, proof, old, b"\0" * 32),
        (0, second, proof, old, new),
        (second + 1, second, proof, old, new),
    ]
    if proof:
        wrong += [(first, second, proof[:-1], old, new), (first, second, [b"\0" * 32, *proof[1:]], old, new)]
    for arguments in wrong:
        with pytest.raises(ConsistencyInvalid):
            verify_consistency(*arguments)
    if first < second:
        for other, why in (([*proof, old], "longer"), (proof[:-1], "shorter|empty")):
            with pytest.raises(ConsistencyInvalid, match=why):
                verify_consistency(first, second, other, old, new)
        with pytest.raises(ConsistencyInvalid):
            verify_consistency(first, second, [], old, new)


def test_a_proof_of_growth_is_not_empty() -> None:
    tree = grown(8)
    with pytest.raises(ConsistencyInvalid, match="empty"):
        verify_consistency(3, 8, [], tree.root(3), tree.root(8))
    verify_consistency(3, 8, tree.consistency(3, 8), tree.root(3), tree.root(8))


def test_what_is_not_in_the_tree_is_not_given() -> None:
    tree = grown(3)
    for ask in (lambda: tree.inclusion(3), lambda: tree.root(4), lambda: tree.consistency(0), lambda: tree.root(-1)):
        with pytest.raises(TreeRange) as refused:
            ask()
        assert refused.value.code == "tree-range"


def test_the_example_of_the_signed_note_specification() -> None:
    # From the documentation of golang.org/x/mod/sumdb/note.
    encoded = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    key = Ed25519PublicKey.from_public_bytes(encoded[1:])
    text = (
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert note._key_id("PeterNeumann", key).hex() == "c74f20a3"
    body, [(name, blob)] = note._parse(text)
    assert name == "PeterNeumann"
    note._check(key, blob[4:], body.encode())
    with pytest.raises(NoteSignature):
        note._check(key, blob[4:], body.replace("answer", "problem").encode())


@pytest.mark.parametrize("key", [KEY, Ed25519PrivateKey.generate()], ids=["ecdsa", "ed25519"])
def test_checkpoints(key: Any) -> None:
    text = sign_checkpoint(ORIGIN, 7, bytes(range(32)), key)
    checkpoint = verify_checkpoint(text, ORIGIN, key.public_key())
    assert (checkpoint.size, checkpoint.root) == (7, bytes(range(32)))
    cosigned = text + "— witness.example/w1 " + base64.b64encode(b"wxyz-signature").decode() + "\n"
    assert verify_checkpoint(cosigned, ORIGIN, key.public_key()) == checkpoint
    refused = {
        text.replace("\n7\n", "\n8\n"): "note-signature-invalid",
        text.replace("\n7\n", "\n07\n"): "note-malformed",
        text.replace(ORIGIN, "umec/other"): "note-origin",
        text[:-1]: "note-malformed",
        text.split("\n\n")[0] + "\n": "note-malformed",
        text.replace("—", "-"): "note-malformed",
    }
    for wrong, code in refused.items():
        with pytest.raises(NoteError) as error:
            verify_checkpoint(wrong, ORIGIN, key.public_key())
        assert error.value.code == code
    with pytest.raises(NoteSignature):
        verify_checkpoint(text, ORIGIN, generate_private_key(SECP256R1()).public_key())
    with pytest.raises(NoteOrigin):
        verify_checkpoint(text, "umec/other", key.public_key())


def noted(body: str, *lines: str) -> str:
    """A note with this body under our key, and further lines of signatures."""
    signature = KEY.sign(body.encode(), ECDSA(SHA256()))
    ours = base64.b64encode(note._key_id(ORIGIN, KEY.public_key()) + signature).decode()
    return "\n".join([body, f"— {ORIGIN} {ours}", *lines]) + "\n"


BODY = f"{ORIGIN}\n7\n{base64.b64encode(bytes(32)).decode()}\n"
COSIGNED = "— witness " + base64.b64encode(b"wxyz-signature").decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (noted(f"{ORIGIN}\n7\n{base64.b64encode(bytes(31)).decode()}\n"), "32 bytes"),
        (noted(f"{ORIGIN}\n7\n"), "32 bytes"),
        (noted(f"{ORIGIN}\n"), "its size"),
        (noted(BODY + "x" * note.MAX_NOTE + "\n"), "an empty line"),
        (noted(BODY)[:-1] + "X", "an empty line"),
        (noted(BODY).rpartition("\n\n")[2], "an empty line"),
        (noted(BODY + "a\tb\n"), "control characters"),
        (noted(BODY, *[COSIGNED] * note.MAX_SIGNATURES), "at most"),
        (noted(BODY, COSIGNED + " more"), "a dash"),
        (noted(BODY, COSIGNED.replace("witness", "wit+ness")), "a dash"),
        (noted(BODY, "— witness " + base64.b64encode(b"wxyz").decode()), "behind its key id"),
    ],
)
def test_notes_of_another_shape_under_the_right_key(text: str, why: str) -> None:
    with pytest.raises(NoteError, match=why) as refused:
        verify_checkpoint(text, ORIGIN, KEY.public_key())
    assert refused.value.code == "note-malformed"
    good = noted(BODY + "an extension\n", *[COSIGNED] * (note.MAX_SIGNATURES - 1))
    assert verify_checkpoint(good, ORIGIN, KEY.public_key()).size == 7


@pytest.mark.parametrize(
    ("origin", "size", "root"), [("a b", 0, 32), ("a+b", 0, 32), ("", 0, 32), ("a", -1, 32), ("a", 0, 31)]
)
def test_what_is_no_checkpoint_is_not_signed(origin: str, size: int, root: int) -> None:
    with pytest.raises(NoteError) as refused:
        sign_checkpoint(origin, size, bytes(root), KEY)
    assert refused.value.code == "note-malformed"
    assert sign_checkpoint("a", 0, bytes(32), KEY)


@given(st.text())
def test_any_text_is_a_checkpoint_or_one_error(text: str) -> None:
    with pytest.raises(NoteError):
        verify_checkpoint(text, ORIGIN, KEY.public_key())


def export_of(count: int) -> dict[str, Any]:
    entries = [
        {"index": number, "actor": "a", "at": datetime(2026, 1, 1, tzinfo=UTC).isoformat(), "facts": {"n": [number]}}
        for number in range(count)
    ]
    return signed(entries)


def signed(entries: list[dict[str, Any]], key: Any = KEY) -> dict[str, Any]:
    tree = Tree()
    for entry in entries:
        tree.append(canonical(entry).encode())
    return {
        "origin": ORIGIN,
        "entries": entries,
        "checkpoint": sign_checkpoint(ORIGIN, tree.size, tree.root(), key),
    }


def test_an_audit_log_that_was_touched_is_found_out() -> None:
    good = export_of(9)
    entries = good["entries"]
    changed = [*entries[:4], {**entries[4], "actor": "b"}, *entries[5:]]
    cases: list[tuple[dict[str, Any], type[AuditError], str]] = [
        ({**good, "entries": changed}, AuditRewritten, "audit-rewritten"),
        ({**good, "entries": entries[:-1]}, AuditGap, "audit-gap"),
        ({**good, "entries": entries[:4] + entries[5:]}, AuditGap, "audit-gap"),
        ({**good, "entries": [entries[1], entries[0], *entries[2:]]}, AuditGap, "audit-gap"),
        ({**good, "entries": [*entries, {**entries[0], "index": 9}]}, AuditRewritten, "audit-rewritten"),
        ({**good, "origin": "umec/other"}, AuditCheckpointInvalid, "audit-checkpoint-invalid"),
        ({**good, "checkpoint": "nothing"}, AuditCheckpointInvalid, "audit-checkpoint-invalid"),
        (signed(entries, generate_private_key(SECP256R1())), AuditCheckpointInvalid, "audit-checkpoint-invalid"),
        ({**good, "more": 1}, AuditGap, "audit-gap"),
        ({**good, "entries": [{**entries[0], "x": 1.5}, *entries[1:]]}, AuditRewritten, "audit-rewritten"),
    ]
    for export, kind, code in cases:
        with pytest.raises(kind) as error:
            verify_export(export, KEY.public_key())
        assert error.value.code == code
    assert verify_export(good, KEY.public_key()).size == 9
    assert verify_export(export_of(0), KEY.public_key()).size == 0


def test_an_older_checkpoint_convicts_who_signs_another_past() -> None:
    old = export_of(5)
    verify_export(export_of(9), KEY.public_key(), old["checkpoint"])
    rewritten = [{**export_of(9)["entries"][0], "actor": "b"}, *export_of(9)["entries"][1:]]
    with pytest.raises(AuditRewritten):
        verify_export(signed(rewritten), KEY.public_key(), old["checkpoint"])
    with pytest.raises(AuditGap):
        verify_export(export_of(3), KEY.public_key(), old["checkpoint"])
    verify_export(signed(rewritten), KEY.public_key())  # without it, nobody could tell


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "value", [{"a": 1.5}, {"a": {"b": [1.5]}}, {1: "a"}, {"a": {None: 1}}, {"a": b""}, {"a": {"b"}}]
)
def test_what_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical(value)
    assert canonical({"b": [1, None, True, "é"], "a": {}}) == '{"a":{},"b":[1,null,true,"é"]}'


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), JSON, max_size=4))
def test_canonical_json_reads_back_and_has_one_form(value: dict[str, Any]) -> None:
    import json  # noqa: PLC0415

    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(dict(reversed(value.items()))) == text
