"""What is sealed to a TPM, against a software TPM that really refuses: also software that skips our own checks."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_EO, TPM2_SE, TPMA_NV
from tpm2_pytss.types import (
    TPM2B_NV_PUBLIC,
    TPM2B_OPERAND,
    TPM2B_PUBLIC,
    TPMS_NV_PUBLIC,
    TPMT_SYM_DEF,
    TPMT_TK_VERIFIED,
)

from umec_attest.agent.tpm import Tpm, sealing
from umec_attest.agent.tpm.objects import public_area
from umec_attest.agent.unseal_local import load_sealed, seal_locally, shut_out_older, unseal_locally
from umec_attest.sealed import (
    COUNTER_HANDLE,
    Approval,
    SealedSecret,
    approval_reference,
    counter_name,
    counter_public,
    load_owner,
    owner_public,
    policy_authorize,
    policy_counter_timer,
    policy_nv,
    policy_pcr,
    seal_for_boot,
    sign_approval,
    verify_approval,
)
from umec_attest.sealed.policies import CLOCK_OFFSET, EMPTY, RESET_COUNT_OFFSET, Comparison
from umec_attest.testing.firmware import boot, extend
from umec_attest.testing.image import make_image
from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_attest.tpm.attest import parse_attest
from umec_attest.tpm.public import parse_public
from umec_core.errors import UmecError

SECRET = bytes(range(64))
OWNER = ec.generate_private_key(ec.SECP256R1())
PCRS = (4, 7, 11)
READABLE = TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE


@pytest.fixture(scope="module")
def device() -> Iterator[SoftwareTpm]:
    with SoftwareTpm() as tpm:
        yield tpm


@pytest.fixture
def tpm(device: SoftwareTpm) -> Iterator[Tpm]:
    """A TPM without our counter that was just switched on."""
    device.power_cycle()
    with Tpm(device.tcti) as tpm:
        tpm.do(forget_counter)
        yield tpm


@pytest.fixture
def node(device: SoftwareTpm) -> Iterator[SoftwareNode]:
    device.power_cycle()
    with SoftwareNode(device) as node:
        yield node


def forget_counter(esys: ESAPI) -> None:
    _, capability = esys.get_capability(1, COUNTER_HANDLE, 1)
    handles: Any = capability.data.handles
    if handles.count and handles.handle[0] == COUNTER_HANDLE:
        esys.nv_undefine_space(esys.tr_from_tpmpublic(COUNTER_HANDLE))


def refused(code: str, work: Callable[[], object]) -> str:
    with pytest.raises(UmecError) as raised:
        work()
    assert raised.value.code == code, raised.value
    return raised.value.detail


# --- digests: ours are those of the TPM ---------------------------------------------------------------------------


def trial(esys: ESAPI, work: Callable[[ESYS_TR], None]) -> bytes:
    symmetric = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
    session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.TRIAL, symmetric, TPM2_ALG.SHA256)
    try:
        work(session)
        return bytes(esys.policy_get_digest(session))
    finally:
        esys.flush_context(session)


@pytest.mark.parametrize("pcrs", [(0,), (4, 7, 11), tuple(range(16))])
def test_the_policy_of_pcrs_is_the_tpm_s(tpm: Tpm, pcrs: tuple[int, ...]) -> None:
    tpm.do(lambda esys: extend(esys, 4, hashlib.sha256(b"a kernel").digest()))
    values = tpm.read_pcrs(pcrs)
    digest = hashlib.sha256(b"".join(values[pcr] for pcr in sorted(values))).digest()
    named = "sha256:" + ",".join(map(str, pcrs))
    assert tpm.do(lambda esys: trial(esys, lambda session: esys.policy_pcr(session, digest, named))) == policy_pcr(
        EMPTY, values
    )


@pytest.mark.parametrize(
    ("comparison", "theirs", "offset", "size"),
    [(Comparison.EQUAL, TPM2_EO.EQ, RESET_COUNT_OFFSET, 8), (Comparison.AT_MOST, TPM2_EO.UNSIGNED_LE, CLOCK_OFFSET, 8)],
)
def test_the_policy_of_time_is_the_tpm_s(
    tpm: Tpm, comparison: Comparison, theirs: TPM2_EO, offset: int, size: int
) -> None:
    operand = (12345).to_bytes(size, "big")

    def work(esys: ESAPI) -> bytes:
        return trial(
            esys, lambda session: esys.policy_counter_timer(session, TPM2B_OPERAND(operand), theirs, offset=offset)
        )

    assert tpm.do(work) == policy_counter_timer(EMPTY, operand, offset, comparison)


def test_the_policy_of_the_counter_is_the_tpm_s(tpm: Tpm) -> None:
    operand = (7).to_bytes(8, "big")
    tpm.do(sealing.counter_value)

    def work(esys: ESAPI) -> bytes:
        counter = esys.tr_from_tpmpublic(COUNTER_HANDLE)
        return trial(
            esys,
            lambda session: esys.policy_nv(counter, counter, session, TPM2B_OPERAND(operand), TPM2_EO.UNSIGNED_LE),
        )

    assert tpm.do(work) == policy_nv(EMPTY, counter_name(), operand, Comparison.AT_MOST)


@pytest.mark.parametrize(
    "key",
    [OWNER, ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["p256", "p384", "rsa2048"],
)
def test_the_policy_of_an_owner_is_the_tpm_s(tpm: Tpm, key: Any) -> None:
    public = owner_public(key.public_key())
    reference = approval_reference("edge-node")

    def work(esys: ESAPI) -> bytes:
        handle = esys.load_external(TPM2B_PUBLIC(publicArea=public_area(public.to_bytes())), hierarchy=ESYS_TR.OWNER)
        _, name, _ = esys.read_public(handle)
        assert bytes(name) == public.name()
        ticket = TPMT_TK_VERIFIED(tag=0x8022, hierarchy=0x40000001)
        digest = trial(
            esys, lambda session: esys.policy_authorize(session, bytes(32), name, ticket, policy_ref=reference)
        )
        esys.flush_context(handle)
        return digest

    assert tpm.do(work) == policy_authorize(public.name(), reference)


# --- what the verifier releases -----------------------------------------------------------------------------------


def released(node: SoftwareNode, **changes: Any) -> SealedSecret:
    made = node.quote(bytes(32))
    given: dict[str, Any] = {"pcrs": made.pcrs, "clock": parse_attest(made.quote.attest).clock_info}
    return seal_for_boot(parse_public(node.ek_public), SECRET, **{**given, **changes})


def opened(node: SoftwareNode, secret: SealedSecret) -> bytes:
    return node.tpm.do(lambda esys: sealing.unseal_released(esys, secret))


def test_a_released_secret_opens_in_this_boot_and_state(node: SoftwareNode) -> None:
    secret = released(node)
    assert opened(node, secret) == SECRET
    assert opened(node, secret) == SECRET
    node.tpm.do(lambda esys: extend(esys, 10, bytes(32)))  # what the running system measures does not end it
    assert opened(node, secret) == SECRET
    node.tpm.do(lambda esys: extend(esys, 4, bytes(32)))
    refused("tpm-refused", lambda: opened(node, secret))


def test_a_recorded_release_opens_in_no_later_boot(device: SoftwareTpm, node: SoftwareNode) -> None:
    secret = released(node)
    assert opened(node, secret) == SECRET
    device.power_cycle()  # the same PCRs: nothing was measured before either
    refused("tpm-refused", lambda: opened(node, secret))
    assert opened(node, released(node)) == SECRET


def test_a_recorded_release_opens_not_after_a_hibernation(device: SoftwareTpm, node: SoftwareNode) -> None:
    """The TPM's power was off, the box may have been open, and resetCount is as before."""
    secret = released(node)
    assert opened(node, secret) == SECRET
    device.hibernate()
    again = released(node)
    assert (again.reset_count, again.restart_count) == (secret.reset_count, secret.restart_count + 1)
    refused("tpm-refused", lambda: opened(node, secret))
    assert opened(node, again) == SECRET


def test_a_recorded_release_opens_for_a_minute_only(node: SoftwareNode) -> None:
    assert released(node).clock_until - released(node, window=0).clock_until in range(59_000, 60_001)
    refused("tpm-refused", lambda: opened(node, released(node, window=-1)))
    assert opened(node, released(node, window=30_000)) == SECRET


@pytest.mark.parametrize("change", ["reset_count", "restart_count", "clock_until", "pcrs"])
def test_what_comes_with_a_release_cannot_be_softened(device: SoftwareTpm, node: SoftwareNode, change: str) -> None:
    secret = released(node, window=-1) if change == "clock_until" else released(node)
    if change == "reset_count":
        device.power_cycle()
        secret = dataclasses.replace(secret, reset_count=secret.reset_count + 1)
    elif change == "restart_count":
        device.hibernate()
        secret = dataclasses.replace(secret, restart_count=secret.restart_count + 1)
    elif change == "clock_until":
        secret = dataclasses.replace(secret, clock_until=secret.clock_until + 60_000)
    else:
        node.tpm.do(lambda esys: extend(esys, 4, bytes(32)))
        secret = dataclasses.replace(secret, pcrs=tuple(pcr for pcr in secret.pcrs if pcr != 4))
    refused("tpm-refused", lambda: opened(node, secret))


@pytest.mark.parametrize("part", ["public", "duplicate", "encrypted_seed"])
def test_a_release_that_was_changed_on_its_way_opens_nothing(node: SoftwareNode, part: str) -> None:
    secret = released(node)
    value = getattr(secret, part)
    changed = dataclasses.replace(secret, **{part: value[:-1] + bytes([value[-1] ^ 1])})
    refused("tpm-refused", lambda: opened(node, changed))
    assert opened(node, secret) == SECRET


def test_a_release_for_one_tpm_opens_in_no_other(node: SoftwareNode, software_node: SoftwareNode) -> None:
    secret = released(node)
    refused("tpm-refused", lambda: opened(software_node, secret))
    assert opened(node, secret) == SECRET


def test_every_kind_of_endorsement_key_takes_a_secret(software_tpm: SoftwareTpm) -> None:
    """RSA-2048, P-256 and P-384, of the low and the high range; a certificate says which one the agent uses."""
    made_with, nothing = (0x01C00002, 0x01C00016), b"\x30\x82\x00\x00"
    with ESAPI(software_tpm.tcti) as esys:
        for index in made_with:
            esys.nv_undefine_space(esys.tr_from_tpmpublic(index), auth_handle=ESYS_TR.PLATFORM)
    sizes = []
    for index in (0x01C00002, 0x01C0000A, 0x01C00012, 0x01C00014, 0x01C00016):
        area = TPMS_NV_PUBLIC(nvIndex=index, nameAlg=TPM2_ALG.SHA256, attributes=READABLE, dataSize=len(nothing))
        with ESAPI(software_tpm.tcti) as esys:
            esys.nv_write(esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=area)), nothing)
        with SoftwareNode(software_tpm) as node:
            assert opened(node, released(node)) == SECRET
            sizes.append(parse_public(node.ek_public).key().key_size)
        with ESAPI(software_tpm.tcti) as esys:
            esys.nv_undefine_space(esys.tr_from_tpmpublic(index))
    assert sizes == [2048, 256, 2048, 256, 384]


def test_a_secret_crosses_the_bus_encrypted(node: SoftwareNode, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[Any] = []
    unseal = ESAPI.unseal

    def seen(esys: ESAPI, handle: ESYS_TR, **given: Any) -> Any:
        sessions.append(esys.trsess_get_attributes(given["session2"]))
        return unseal(esys, handle, **given)

    monkeypatch.setattr(ESAPI, "unseal", seen)
    assert opened(node, released(node)) == SECRET
    assert [int(attributes) & 0x40 for attributes in sessions] == [0x40]  # TPMA_SESSION.encrypt


# --- what an owner's approvals open -------------------------------------------------------------------------------


def approved(tpm: Tpm, version: int, *, image: str = "edge-node", key: Any = OWNER) -> bytes:
    """Approve what the TPM has measured now."""
    return sign_approval(image=image, version=version, pcrs=tpm.read_pcrs(PCRS), key=key)


def version_now(tpm: Tpm) -> int:
    return tpm.do(sealing.counter_value)


def measure(tpm: Tpm, kernel: bytes) -> None:
    tpm.do(lambda esys: extend(esys, 11, hashlib.sha256(kernel).digest()))


@pytest.mark.parametrize(
    "key",
    [OWNER, ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["p256", "p384", "rsa2048"],
)
def test_an_approval_opens_what_was_sealed_for_its_owner(tpm: Tpm, tmp_path: Path, key: Any) -> None:
    path = seal_locally(tpm, tmp_path, "disk", SECRET, image="edge-node", owner=key.public_key())
    assert path.stat().st_mode & 0o777 == 0o600
    assert SECRET not in path.read_bytes()
    assert unseal_locally(tpm, tmp_path, "disk", approved(tpm, version_now(tpm), key=key)) == SECRET


def test_a_new_image_opens_what_the_old_one_sealed_and_shuts_it_out(
    device: SoftwareTpm, tpm: Tpm, tmp_path: Path
) -> None:
    image_a, image_b = make_image(tmp_path / "a"), make_image(tmp_path / "b", kernel=b"a newer kernel")
    boot(device, image_a)
    seal_locally(tpm, tmp_path, "disk", SECRET, image="edge-node", owner=OWNER.public_key())
    first = tpm.do(sealing.counter_value)
    old = approved(tpm, first)
    assert unseal_locally(tpm, tmp_path, "disk", old) == SECRET
    device.power_cycle()
    boot(device, image_b)
    refused("approval-pcrs", lambda: unseal_locally(tpm, tmp_path, "disk", old))
    new = approved(tpm, first + 3)
    assert unseal_locally(tpm, tmp_path, "disk", new) == SECRET
    device.power_cycle()
    boot(device, image_a)
    assert unseal_locally(tpm, tmp_path, "disk", old) == SECRET  # until somebody shuts it out
    refused("approval-pcrs", lambda: shut_out_older(tpm, tmp_path, "disk", new))
    device.power_cycle()
    boot(device, image_b)
    assert shut_out_older(tpm, tmp_path, "disk", new) == first + 3
    assert unseal_locally(tpm, tmp_path, "disk", new) == SECRET
    device.power_cycle()
    boot(device, image_a)
    assert f"from {first + 3} on" in refused("approval-outdated", lambda: unseal_locally(tpm, tmp_path, "disk", old))
    refused("tpm-refused", lambda: by_force(tpm, tmp_path, old))


def by_force(tpm: Tpm, directory: Path, approval: bytes | Approval, *, owner: Any = OWNER) -> bytes:
    """Ask the TPM without any check of our own, as an attacker's software does."""
    known = verify_approval(approval, owner.public_key()) if isinstance(approval, bytes) else approval
    sealed, public = load_sealed(directory, "disk"), owner_public(owner.public_key()).to_bytes()
    return tpm.do(lambda esys: sealing.unseal(esys, sealed.key, known, public))


@pytest.fixture
def sealed(tpm: Tpm, tmp_path: Path) -> Path:
    seal_locally(tpm, tmp_path, "disk", SECRET, image="edge-node", owner=OWNER.public_key())
    return tmp_path


def test_a_state_that_nobody_approved_opens_nothing(tpm: Tpm, sealed: Path) -> None:
    approval = approved(tpm, version_now(tpm))
    assert by_force(tpm, sealed, approval) == SECRET
    measure(tpm, b"an attacker's kernel")
    assert "PCR 11" in refused("approval-pcrs", lambda: unseal_locally(tpm, sealed, "disk", approval))
    refused("tpm-refused", lambda: by_force(tpm, sealed, approval))
    known = verify_approval(approval, OWNER.public_key())
    without = dataclasses.replace(known, pcrs={4: known.pcrs[4]})
    refused("tpm-refused", lambda: by_force(tpm, sealed, without))


def test_an_approval_by_somebody_else_opens_nothing(tpm: Tpm, sealed: Path) -> None:
    thief = ec.generate_private_key(ec.SECP256R1())
    version = version_now(tpm)
    forged = approved(tpm, version, key=thief)
    refused("approval-signature", lambda: unseal_locally(tpm, sealed, "disk", forged))
    refused("tpm-refused", lambda: by_force(tpm, sealed, forged, owner=thief))
    path = sealed / "sealed" / "disk.json"
    members = json.loads(path.read_text())
    pem = thief.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    path.write_text(json.dumps({**members, "owner": pem}))
    refused("tpm-refused", lambda: unseal_locally(tpm, sealed, "disk", forged))
    path.write_text(json.dumps(members))
    assert unseal_locally(tpm, sealed, "disk", approved(tpm, version)) == SECRET


def test_an_approval_for_another_image_opens_nothing(tpm: Tpm, sealed: Path) -> None:
    other = approved(tpm, version_now(tpm), image="other-node")
    refused("approval-signature", lambda: unseal_locally(tpm, sealed, "disk", other))
    refused("tpm-refused", lambda: by_force(tpm, sealed, other))


@pytest.mark.parametrize("part", ["policy", "reference", "signature", "version"])
def test_an_approval_that_was_changed_opens_nothing(tpm: Tpm, sealed: Path, part: str) -> None:
    known = verify_approval(approved(tpm, version_now(tpm)), OWNER.public_key())
    assert by_force(tpm, sealed, known) == SECRET
    changes: dict[str, Any] = {
        "policy": known.policy[:-1] + bytes([known.policy[-1] ^ 1]),
        "reference": known.reference[:-1] + bytes([known.reference[-1] ^ 1]),
        "signature": known.signature[:-1] + bytes([known.signature[-1] ^ 1]),
        "version": known.version + 1,
    }
    changed = dataclasses.replace(known, **{part: changes[part]})
    refused("tpm-refused", lambda: by_force(tpm, sealed, changed))


def test_the_ticket_of_another_session_or_reference_authorizes_nothing(tpm: Tpm, sealed: Path) -> None:
    """What the TPM says about a signature counts for what was signed, and for nothing else."""
    known = verify_approval(approved(tpm, version_now(tpm), image="other-node"), OWNER.public_key())
    swapped = dataclasses.replace(known, reference=approval_reference("edge-node"))
    refused("tpm-refused", lambda: by_force(tpm, sealed, swapped))


def test_the_counter_goes_up_only_also_when_it_is_made_anew(tpm: Tpm) -> None:
    value = tpm.do(lambda esys: sealing.advance_counter(esys, sealing.counter_value(esys) + 2))
    assert tpm.do(sealing.counter_value) == value
    assert tpm.do(lambda esys: sealing.advance_counter(esys, value - 1)) == value
    tpm.do(forget_counter)
    assert tpm.do(sealing.counter_value) > value


def test_something_else_in_the_counter_s_place_is_not_used(tpm: Tpm, sealed: Path) -> None:
    approval = approved(tpm, version_now(tpm))
    tpm.do(forget_counter)

    def impostor(esys: ESAPI) -> None:
        area, _ = TPMS_NV_PUBLIC.unmarshal(counter_public(written=False))
        area.attributes = 0x02040004  # an ordinary index: it can be written back
        index = esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=area))
        esys.nv_write(index, bytes(8))

    tpm.do(impostor)
    assert "is not our counter" in refused("tpm-refused", lambda: unseal_locally(tpm, sealed, "disk", approval))
    refused("tpm-refused", lambda: by_force(tpm, sealed, approval))


def test_what_is_sealed_is_kept_apart_and_never_overwritten(tpm: Tpm, tmp_path: Path) -> None:
    def seal(name: str = "disk", secret: bytes = SECRET, image: str = "edge-node") -> Path:
        return seal_locally(tpm, tmp_path, name, secret, image=image, owner=OWNER.public_key())

    refused("agent-state-invalid", lambda: seal("../disk"))
    refused("approval-invalid", lambda: seal(image="Edge Node"))
    for size in (15, 129):
        refused("secret-size", lambda size=size: seal(secret=bytes(size)))  # type: ignore[misc]
    refused("agent-state-invalid", lambda: load_sealed(tmp_path, "disk"))
    path = seal()
    assert "exists already" in refused("agent-state-invalid", seal)
    good = path.read_text()
    for change in (
        {"format": 2},
        {"image": "Edge Node"},
        {"owner": 1},
        {"more": 1},
        {"key": {"public": "", "private": ""}},
    ):
        path.write_text(json.dumps({**json.loads(good), **change}))
        refused("agent-state-invalid", lambda: load_sealed(tmp_path, "disk"))
    path.write_text(good)
    path.chmod(0o640)
    refused("key-file-exposed", lambda: load_sealed(tmp_path, "disk"))
    path.chmod(0o600)
    assert load_sealed(tmp_path, "disk").image == "edge-node"


def test_an_owner_has_a_key_that_is_good_enough() -> None:
    def pem(key: Any) -> bytes:
        return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    assert load_owner(pem(OWNER)) == OWNER.public_key()
    refused("approval-invalid", lambda: load_owner(b"no key"))
    refused("approval-invalid", lambda: load_owner(pem(ed25519.Ed25519PrivateKey.generate())))
    refused("approval-invalid", lambda: load_owner(pem(ec.generate_private_key(ec.SECP521R1()))))
    refused("key-weak", lambda: load_owner(pem(rsa.generate_private_key(65537, 1024))))  # noqa: S505 - what is refused
    refused("key-weak", lambda: load_owner(pem(rsa.generate_private_key(3, 2048))))
