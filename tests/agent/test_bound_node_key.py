"""Node keys that are bound to approved states, in a software TPM that really refuses: also without our own checks."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_EO, TPM2_SE
from tpm2_pytss.types import (
    TPM2B_AUTH,
    TPM2B_OPERAND,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPMT_SYM_DEF,
    TPMT_TK_VERIFIED,
)

from umec_attest.agent.binding import Binding, binding_due, load_binding, new_node_key, sign_by
from umec_attest.agent.tpm import Tpm, WrappedKey, sealing
from umec_attest.agent.tpm.approved import sign_approved
from umec_attest.agent.tpm.endorsement import ek_session, endorsement_key
from umec_attest.agent.tpm.objects import public_area
from umec_attest.agent.tpm.signing import no_ticket, null_scheme
from umec_attest.sealed import (
    COUNTER_HANDLE,
    Approval,
    approval_reference,
    owner_public,
    sign_approval,
    verify_approval,
)
from umec_attest.testing.firmware import boot, extend
from umec_attest.testing.image import Tamper, make_image
from umec_attest.testing.swtpm import SoftwareTpm
from umec_core.errors import UmecError

OWNER = ec.generate_private_key(ec.SECP256R1())
DIGEST = hashlib.sha256(b"a proof of possession").digest()
PCRS = (4, 7, 11)
IMAGE = "edge-node"
RC_POLICY_FAIL = 0x99D
RC_AUTH_UNAVAILABLE = 0x12F
RC_TICKET = 0x4C4
"""TPM_RC_POLICY_FAIL of session 1, TPM_RC_AUTH_UNAVAILABLE, TPM_RC_VALUE of parameter 4 (Part 2, 6.6.3)."""


def refused(code: str, work: Callable[[], object]) -> str:
    with pytest.raises(UmecError) as raised:
        work()
    assert raised.value.code == code, raised.value
    return raised.value.detail


class Board:
    """A board that runs an image: what its TPM has measured, and the papers of its owner."""

    def __init__(self, device: SoftwareTpm, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.image = make_image(folder / "image")
        self.tpm = Tpm(device.tcti)
        self.boot()
        self.floor = self.tpm.do(sealing.counter_value)
        self.own(OWNER)
        self.approve(self.floor)

    def boot(self, tamper: Tamper | None = None, image: Path | None = None) -> None:
        self.tpm.close()
        self.device.power_cycle()
        boot(self.device, image or self.image, tamper=tamper)

    def own(self, key: Any) -> None:
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.folder / "owner.pem").write_bytes(pem)

    def approve(self, version: int, *, image: str = IMAGE, key: Any = OWNER) -> bytes:
        """Approve what the TPM has measured now, and put that where the agent looks."""
        made = sign_approval(image=image, version=version, pcrs=self.tpm.read_pcrs(PCRS), key=key)
        (self.folder / "approval").write_bytes(made)
        return made

    @property
    def binding(self) -> Binding:
        found = load_binding(self.folder / "owner.pem", self.folder / "approval")
        assert found is not None
        return found

    def new_key(self) -> WrappedKey:
        return new_node_key(self.tpm, self.binding)

    def sign(self, key: WrappedKey) -> bytes:
        return sign_by(self.tpm, key, DIGEST, self.binding)

    def force(self, key: WrappedKey, approval: bytes | Approval, *, owner: Any = OWNER) -> bytes:
        """Ask the TPM without any check of our own, as an attacker's software does."""
        known = verify_approval(approval, owner.public_key()) if isinstance(approval, bytes) else approval
        return sign_approved(self.tpm, key, DIGEST, known, owner_public(owner.public_key()).to_bytes())


@pytest.fixture(scope="module")
def device() -> Iterator[SoftwareTpm]:
    with SoftwareTpm() as tpm:
        yield tpm


@pytest.fixture
def board(device: SoftwareTpm, tmp_path: Path) -> Iterator[Board]:
    made = Board(device, tmp_path)
    yield made
    made.tpm.close()


def check(key: WrappedKey, signature: bytes) -> None:
    public = load_der_public_key(key.spki)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    public.verify(encode_dss_signature(r, s), DIGEST, ec.ECDSA(Prehashed(SHA256())))


# --- what it is for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "owner",
    [OWNER, ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["p256", "p384", "rsa2048"],
)
def test_a_bound_key_signs_in_every_boot_of_what_its_owner_approved(board: Board, owner: Any) -> None:
    board.own(owner)
    board.approve(board.floor, key=owner)
    key = board.new_key()
    for _ in range(2):
        check(key, board.sign(key))
        check(key, board.sign(key))
        board.boot()


def test_a_new_image_uses_the_key_of_the_old_one_and_shuts_it_out(board: Board, tmp_path: Path) -> None:
    key, newer = board.new_key(), make_image(tmp_path / "newer", kernel=b"a newer kernel")
    old = board.approve(board.floor)
    board.boot(image=newer)
    refused("approval-pcrs", lambda: board.sign(key))
    board.approve(board.floor + 1)
    check(key, board.sign(key))  # nobody enrolled anew
    board.boot()
    (board.folder / "approval").write_bytes(old)
    check(key, board.sign(key))  # until somebody shuts it out
    board.tpm.do(lambda esys: sealing.advance_counter(esys, board.floor + 1))
    assert f"from {board.floor + 1} on" in refused("approval-outdated", lambda: board.sign(key))
    refused("tpm-refused", lambda: board.force(key, old))
    known = verify_approval(old, OWNER.public_key())
    refused("tpm-refused", lambda: board.force(key, dataclasses.replace(known, version=board.floor + 1)))


# --- a bad boot, and a foreign system on the same board -----------------------------------------------------------


def test_a_bad_boot_cannot_use_the_key(board: Board) -> None:
    key, approval = board.new_key(), (board.folder / "approval").read_bytes()
    check(key, board.force(key, approval))
    board.boot(Tamper.KERNEL)
    assert "PCR 4" in refused("approval-pcrs", lambda: board.sign(key))
    refused("tpm-refused", lambda: board.force(key, approval))
    known = verify_approval(approval, OWNER.public_key())
    measured = {**known.pcrs, **board.tpm.read_pcrs(PCRS)}
    for told in (measured, {7: known.pcrs[7]}):  # the approval of another state, and of less of it
        refused("tpm-refused", lambda told=told: board.force(key, dataclasses.replace(known, pcrs=told)))
    board.boot()
    check(key, board.sign(key))


def test_a_state_that_changes_while_it_runs_ends_it(board: Board) -> None:
    key = board.new_key()
    check(key, board.sign(key))  # the TPM verified the owner's signature, and its ticket is kept
    board.tpm.do(lambda esys: extend(esys, 11, bytes(32)))
    assert "PCR 11" in refused("approval-pcrs", lambda: board.sign(key))


def foreign(esys: ESAPI, key: WrappedKey, work: Callable[[ESYS_TR], Any]) -> Any:
    """What anybody can do who has the TPM and the file with the wrapped key."""
    with endorsement_key(esys) as ek, ek_session(esys) as session:
        public = TPM2B_PUBLIC(publicArea=public_area(key.public))
        handle = esys.load(ek, TPM2B_PRIVATE(key.private), public, session1=session)
    try:
        return work(handle)
    finally:
        esys.flush_context(handle)


def in_session(esys: ESAPI, handle: ESYS_TR, kind: TPM2_SE, prepare: Callable[[ESYS_TR], object]) -> None:
    symmetric = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
    session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, kind, symmetric, TPM2_ALG.SHA256)
    try:
        prepare(session)
        esys.sign(handle, DIGEST, null_scheme(), no_ticket(), session1=session)
    finally:
        esys.flush_context(session)


def own_word(esys: ESAPI, session: ESYS_TR, reference: bytes) -> None:
    """An attacker's own key approves the session's policy, and the TPM says so in a ticket."""
    thief = ec.generate_private_key(ec.SECP256R1())
    policy = bytes(esys.policy_get_digest(session))
    made = sign_approval(image=IMAGE, version=1, pcrs={4: bytes(32)}, key=thief)
    known = verify_approval(made, thief.public_key())
    ticket = TPMT_TK_VERIFIED(tag=0x8022, hierarchy=0x40000001)
    name = owner_public(thief.public_key()).name()
    esys.policy_authorize(session, policy, name, ticket, policy_ref=reference or known.reference)


SESSIONS: dict[str, Callable[[ESAPI, ESYS_TR], object]] = {
    "nothing": lambda _esys, _session: None,
    "the PCRs as they are": lambda esys, session: esys.policy_pcr(session, b"", "sha256:4,7,11"),
    "a password": lambda esys, session: esys.policy_password(session),
    "its auth value": lambda esys, session: esys.policy_auth_value(session),
    "the command": lambda esys, session: esys.policy_command_code(session, 0x15D),
    "the owner hierarchy": lambda esys, session: esys.policy_secret(ESYS_TR.OWNER, session),
    "the endorsement hierarchy": lambda esys, session: esys.policy_secret(ESYS_TR.ENDORSEMENT, session),
    "any of two": lambda esys, session: esys.policy_or(session, [bytes(32), hashlib.sha256(b"").digest()]),
    "the counter": lambda esys, session: esys.policy_nv(
        esys.tr_from_tpmpublic(COUNTER_HANDLE),
        esys.tr_from_tpmpublic(COUNTER_HANDLE),
        session,
        TPM2B_OPERAND(bytes([0xFF] * 8)),
        TPM2_EO.UNSIGNED_LE,
        offset=0,
    ),
    "its own word": lambda esys, session: own_word(esys, session, approval_reference(IMAGE)),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_no_session_that_others_can_make_signs(board: Board, name: str) -> None:
    key = board.new_key()
    board.boot(Tamper.KERNEL)

    def attempt(esys: ESAPI) -> None:
        def prepared(session: ESYS_TR) -> object:
            return SESSIONS[name](esys, session)

        foreign(esys, key, lambda handle: in_session(esys, handle, TPM2_SE.POLICY, prepared))

    with ESAPI(board.device.tcti) as esys, pytest.raises(TSS2_Exception) as raised:
        attempt(esys)
    assert raised.value.rc == (RC_TICKET if name == "its own word" else RC_POLICY_FAIL)
    unbound = board.tpm.create_node_key()
    check(unbound, board.tpm.sign(unbound, DIGEST))  # which anybody who has the TPM may use


def test_no_password_signs(board: Board) -> None:
    key = board.new_key()
    refused("tpm-refused", lambda: board.tpm.sign(key, DIGEST))  # the empty one, though the state is approved
    with ESAPI(board.device.tcti) as esys:

        def by_hmac(handle: ESYS_TR) -> None:
            in_session(esys, handle, TPM2_SE.HMAC, lambda _session: None)

        with pytest.raises(TSS2_Exception) as raised:
            foreign(esys, key, by_hmac)
        assert raised.value.rc == RC_AUTH_UNAVAILABLE

        def with_other_password(handle: ESYS_TR) -> WrappedKey:
            with endorsement_key(esys) as ek:
                private = esys.object_change_auth(handle, ek, TPM2B_AUTH(b"attacker"))
            return WrappedKey(key.public, bytes(private))

        changed = foreign(esys, key, with_other_password)

        def by_other_password(handle: ESYS_TR) -> None:
            esys.tr_set_auth(handle, b"attacker")
            esys.sign(handle, DIGEST, null_scheme(), no_ticket())

        with pytest.raises(TSS2_Exception) as raised:
            foreign(esys, changed, by_other_password)
        assert raised.value.rc == RC_AUTH_UNAVAILABLE
    check(key, board.sign(key))


def test_a_ticket_of_another_signature_is_none(board: Board) -> None:
    """What the TPM verified for one approval says nothing about another."""
    key, good = board.new_key(), verify_approval((board.folder / "approval").read_bytes(), OWNER.public_key())
    board.force(key, good)
    thief = ec.generate_private_key(ec.SECP256R1())
    forged = verify_approval(board.approve(board.floor, key=thief), thief.public_key())
    for owner in (thief, OWNER):
        refused("tpm-refused", lambda owner=owner: board.force(key, forged, owner=owner))
    board.tpm.do(lambda esys: extend(esys, 11, bytes(32)))
    now = verify_approval(board.approve(board.floor, key=thief), thief.public_key())
    mixed = dataclasses.replace(now, signature=good.signature)
    refused("tpm-refused", lambda: board.force(key, mixed))


# --- approvals that are not of this key ---------------------------------------------------------------------------


def test_an_approval_of_another_image_or_owner_is_refused(board: Board) -> None:
    key = board.new_key()
    other = board.approve(board.floor, image="other-node")
    refused("approval-signature", lambda: board.sign(key))
    refused("tpm-refused", lambda: board.force(key, other))
    thief = ec.generate_private_key(ec.SECP256R1())
    foreign_word = board.approve(board.floor, key=thief)
    refused("approval-signature", lambda: board.sign(key))  # not of the owner whose key is in the image
    refused("tpm-refused", lambda: board.force(key, foreign_word, owner=thief))
    board.own(thief)
    refused("approval-signature", lambda: board.sign(key))  # nor is the key bound to that one
    board.own(OWNER)
    board.approve(board.floor)
    check(key, board.sign(key))


def test_without_an_approval_there_is_no_key_and_no_signature(board: Board) -> None:
    key, kept = board.new_key(), (board.folder / "approval").read_bytes()
    refused("approval-missing", lambda: sign_by(board.tpm, key, DIGEST, None))
    (board.folder / "approval").unlink()
    refused("approval-missing", lambda: board.sign(key))
    refused("approval-missing", board.new_key)
    (board.folder / "approval").write_bytes(kept[:-20])
    refused("approval-invalid", board.new_key)
    (board.folder / "approval").write_bytes(kept)
    check(key, board.sign(board.new_key() and key))


def test_no_key_is_made_that_could_not_be_used(board: Board) -> None:
    board.boot(Tamper.CMDLINE)
    refused("approval-pcrs", board.new_key)
    board.boot()
    board.tpm.do(lambda esys: sealing.advance_counter(esys, board.floor + 1))
    refused("approval-outdated", board.new_key)
    board.approve(board.floor + 1)
    check(key := board.new_key(), board.sign(key))


def test_owner_and_approval_go_together(board: Board) -> None:
    owner, approval = board.folder / "owner.pem", board.folder / "approval"
    assert load_binding(None, None) is None
    assert load_binding(owner, approval) is not None
    refused("approval-invalid", lambda: load_binding(owner, None))
    refused("approval-invalid", lambda: load_binding(None, approval))
    refused("approval-invalid", lambda: load_binding(board.folder / "nowhere", approval))
    owner.write_bytes(b"no key")
    refused("approval-invalid", lambda: load_binding(owner, approval))


def test_which_key_has_to_give_way(board: Board) -> None:
    unbound, bound = board.tpm.create_node_key(), board.new_key()
    assert [binding_due(key, board.binding) for key in (unbound, bound)] == [True, False]
    assert [binding_due(key, None) for key in (unbound, bound)] == [False, False]
    check(unbound, board.sign(unbound))  # until it does
    board.approve(board.floor, image="other-node")
    assert binding_due(bound, board.binding)
    (board.folder / "approval").unlink()
    assert not binding_due(unbound, board.binding)  # another cannot be made here


# --- what the kernel does meanwhile -------------------------------------------------------------------------------


def measuring(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let the kernel extend PCR 10 right before the next signatures."""
    sign, left = ESAPI.sign, [times]

    def late(esys: ESAPI, *given: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            extend(esys, 10, bytes(32))
        return sign(esys, *given, **named)

    monkeypatch.setattr(ESAPI, "sign", late)
    return left


def test_a_signature_outlasts_what_the_kernel_measures_meanwhile(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    key = board.new_key()
    left = measuring(monkeypatch, 4)
    check(key, board.sign(key))
    assert left == [0]
    measuring(monkeypatch, 5)
    assert "faster" in refused("tpm-unavailable", lambda: board.sign(key))
    check(key, board.sign(key))


def test_the_tpm_verifies_an_owner_once(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    key, asked = board.new_key(), []
    for name in ("verify_signature", "load_external", "start_auth_session"):
        plain = getattr(ESAPI, name)

        def counted(esys: ESAPI, *given: Any, _plain: Any = plain, _name: str = name, **named: Any) -> Any:
            asked.append(_name)
            return _plain(esys, *given, **named)

        monkeypatch.setattr(ESAPI, name, counted)
    for _ in range(3):
        check(key, board.sign(key))
    assert asked.count("verify_signature") == asked.count("load_external") == 1
    board.tpm.close()  # the TPM may be another boot's
    check(key, board.sign(key))
    assert asked.count("verify_signature") == 2


def test_a_counter_that_somebody_removed_is_made_anew(board: Board) -> None:
    """It counts on from where it was: what was removed opens nothing older."""
    key, old = board.new_key(), (board.folder / "approval").read_bytes()
    board.tpm.do(lambda esys: esys.nv_undefine_space(esys.tr_from_tpmpublic(COUNTER_HANDLE)))
    refused("approval-outdated", lambda: board.sign(key))
    refused("tpm-refused", lambda: board.force(key, old))
    board.approve(board.floor + 1)
    check(key, board.sign(key))
