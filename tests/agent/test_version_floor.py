"""The floor of versions that a TPM still opens for: when it rises, when it does not, and what it shuts out."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm2_pytss import ESAPI, TSS2_Exception

from umec_attest.agent import version_floor
from umec_attest.agent.binding import load_binding
from umec_attest.agent.image_owner import read_owner
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.tpm.sealing import advance_counter, counter_value
from umec_attest.agent.version_floor import VersionFloor, is_confirmed
from umec_attest.sealed import sign_approval
from umec_attest.testing.firmware import extend
from umec_attest.testing.swtpm import SoftwareTpm
from umec_core.errors import UmecError

KEY = ec.generate_private_key(ec.SECP256R1())
THIEF = ec.generate_private_key(ec.SECP256R1())
TRUSTED = {"event": "round", "standing": "trusted"}
ONE, TWO = {"version": 1, "kernel": "11"}, {"version": 2, "kernel": "22"}


@pytest.fixture(scope="module")
def device() -> Iterator[SoftwareTpm]:
    with SoftwareTpm() as tpm:
        yield tpm


@dataclass
class Node:
    """A node whose image has an owner, who approved what it measured; `floor` listens to its agent."""

    folder: Path
    device: SoftwareTpm
    said: list[Mapping[str, object]] = field(default_factory=list)

    def counter(self) -> int:
        with Tpm(self.device.tcti) as tpm:
            return tpm.do(counter_value)

    def approve(self, ahead: int, *, image: str = "lamp", key: ec.EllipticCurvePrivateKey = KEY) -> int:
        """Approve what is measured, as a version so many above the counter; returns that version."""
        with Tpm(self.device.tcti) as tpm:
            version, pcrs = tpm.do(counter_value) + ahead, tpm.read_pcrs((4, 7))
        (self.folder / "approval").write_bytes(sign_approval(image=image, version=version, pcrs=pcrs, key=key))
        return version

    def update(self, running: object, confirmed: object) -> None:
        (self.folder / "update").write_text(json.dumps({"running": running, "confirmed": confirmed}))

    def floor(self) -> VersionFloor:
        names = ("owner", "release", "approval", "update")
        return VersionFloor(self.device.tcti, self.said.append, **{name: self.folder / name for name in names})


@pytest.fixture
def node(device: SoftwareTpm, tmp_path: Path) -> Node:
    device.power_cycle()
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "owner").write_bytes(pem)
    (tmp_path / "release").write_text("IMAGE_ID=lamp\n")
    made = Node(tmp_path, device)
    made.update(TWO, TWO)
    return made


def test_a_trusted_node_shuts_older_versions_out(node: Node) -> None:
    version = node.approve(2)
    floor = node.floor()
    floor.heard(TRUSTED)
    floor.heard(TRUSTED)
    assert node.counter() == version
    assert node.said == [{"event": "older-versions-shut-out", "version": version}]
    node.floor().heard(TRUSTED)  # the next boot has nothing more to do
    assert (node.counter(), len(node.said)) == (version, 1)


@pytest.mark.parametrize(
    "line",
    [{"event": "round", "standing": "untrusted"}, {"event": "round", "standing": "degraded"}, {"event": "certificate"}],
    ids=str,
)
def test_no_other_verdict_does(node: Node, line: dict[str, object]) -> None:
    before = node.counter()
    node.approve(1)
    node.floor().heard(line)
    assert node.counter() == before
    node.floor().heard(TRUSTED)
    assert node.counter() == before + 1


def test_an_image_on_trial_does_not(node: Node) -> None:
    before = node.counter()
    node.approve(1)
    node.update(TWO, ONE)
    floor = node.floor()
    floor.heard(TRUSTED)
    assert node.counter() == before
    node.update(TWO, TWO)
    floor.heard(TRUSTED)
    assert node.counter() == before + 1


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"running": {}, "confirmed": {}}', '{"running": 1, "confirmed": 1}'])
def test_what_nobody_says_is_confirmed_is_not(tmp_path: Path, said: str) -> None:
    update = tmp_path / "update"
    assert not is_confirmed(update)
    update.write_text(said)
    assert not is_confirmed(update)
    update.write_text(json.dumps({"running": ONE, "confirmed": ONE}))
    assert is_confirmed(update)


def test_an_approval_that_does_not_open_shuts_nothing_out(node: Node) -> None:
    before = node.counter()
    for code, change in (
        ("approval-signature", {"key": THIEF}),
        ("approval-signature", {"image": "other"}),
    ):
        node.approve(1, **change)  # type: ignore[arg-type]
        node.floor().heard(TRUSTED)
        assert (node.counter(), node.said.pop().get("code")) == (before, code)
    node.approve(1)
    with Tpm(node.device.tcti) as tpm:
        tpm.do(lambda esys: extend(esys, 4, hashlib.sha256(b"another kernel").digest()))
    node.floor().heard(TRUSTED)
    assert (node.counter(), node.said.pop().get("code")) == (before, "approval-pcrs")
    node.approve(1)
    node.floor().heard(TRUSTED)
    assert node.counter() == before + 1


def test_an_image_without_an_owner_has_nothing_to_shut_out(node: Node) -> None:
    before = node.counter()
    node.approve(1)
    (node.folder / "owner").unlink()
    node.floor().heard(TRUSTED)
    assert (node.counter(), node.said) == (before, [])


def test_a_long_way_up_is_gone_in_steps(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_floor, "STEPS", 2)
    version = node.approve(5)
    floor = node.floor()
    for expected in (version - 3, version - 1, version, version):
        floor.heard(TRUSTED)
        assert node.counter() == expected


def test_a_tpm_that_does_not_answer_is_asked_again_with_the_next_round(node: Node) -> None:
    version = node.approve(2)
    floor = node.floor()
    node.device.kill()
    floor.heard(TRUSTED)
    assert [line.get("code") for line in node.said] == ["tpm-unavailable"]
    node.device.start()
    floor.heard(TRUSTED)
    assert (node.counter(), node.said[1:]) == (version, [{"event": "older-versions-shut-out", "version": version}])


@pytest.mark.parametrize(("response", "reached"), [(0x920, 3), (0x921, 3), (0x149, 1), (0x9A2, 1)], ids=hex)
def test_a_tpm_that_counts_slowly_is_asked_again_and_one_that_refuses_is_not(
    node: Node, monkeypatch: pytest.MonkeyPatch, response: int, reached: int
) -> None:
    def stopping(esys: ESAPI, to: int) -> int:
        now = advance_counter(esys, min(to, counter_value(esys) + 1))
        if now < to:
            raise TSS2_Exception(response)
        return now

    before, floor = node.counter(), node.floor()
    node.approve(3)
    monkeypatch.setattr(version_floor, "advance_counter", stopping)
    for _ in range(4):
        floor.heard(TRUSTED)
    assert node.counter() == before + reached
    code = "tpm-unavailable" if reached == 3 else "tpm-refused"
    assert {line.get("code") for line in node.said if line["event"] == "older-versions-not-shut-out"} == {code}


def test_an_approval_that_was_refused_is_not_asked_for_again(node: Node) -> None:
    before, floor = node.counter(), node.floor()
    node.approve(1, key=THIEF)
    floor.heard(TRUSTED)
    node.approve(1)
    floor.heard(TRUSTED)
    assert (node.counter(), len(node.said)) == (before, 1)
    node.floor().heard(TRUSTED)  # the next start
    assert node.counter() == before + 1


@pytest.mark.parametrize("size", [4096, 4100])
def test_an_owners_file_is_read_no_further_than_a_key_is_long(tmp_path: Path, size: int) -> None:
    owner, release = tmp_path / "owner", tmp_path / "release"
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    owner.write_bytes(pem.rjust(size, b"\n"))
    release.write_text("IMAGE_ID=lamp\n")
    (tmp_path / "approval").touch()
    if size == 4096:
        assert read_owner(owner, release).key == KEY.public_key()
        assert load_binding(owner, tmp_path / "approval") is not None
        return
    for read in (lambda: read_owner(owner, release), lambda: load_binding(owner, tmp_path / "approval")):
        with pytest.raises(UmecError) as refused:
            read()
        assert refused.value.code == "approval-invalid"
