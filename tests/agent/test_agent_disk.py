"""The key of a data partition, sealed in software TPMs that really refuse: what opens it, and what does not."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.agent import disk
from umec_attest.agent.disk import open_key, parse_token, render_token, seal_key
from umec_attest.agent.errors import DataTokenInvalid
from umec_attest.agent.image_owner import ImageOwner, read_approval, read_owner
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.tpm.sealing import advance_counter, counter_value, create_sealed
from umec_attest.sealed import sign_approval
from umec_attest.testing.firmware import extend
from umec_attest.testing.swtpm import SoftwareTpm
from umec_core.errors import UmecError

KEY = ec.generate_private_key(ec.SECP256R1())
OWNER = ImageOwner(KEY.public_key(), "lamp")
PCRS = (4, 7, 11)


@pytest.fixture(scope="module")
def device() -> Iterator[SoftwareTpm]:
    with SoftwareTpm() as tpm:
        yield tpm


@pytest.fixture
def tpm(device: SoftwareTpm) -> Iterator[Tpm]:
    """A TPM that was just switched on."""
    device.power_cycle()
    with Tpm(device.tcti) as tpm:
        yield tpm


def approve(tpm: Tpm, version: int | None = None, *, image: str = "lamp", key: Any = KEY) -> bytes:
    """Approve what a TPM has measured."""
    version = tpm.do(counter_value) if version is None else version
    return sign_approval(image=image, version=version, pcrs=tpm.read_pcrs(PCRS), key=key)


def measure(tpm: Tpm, what: bytes) -> None:
    tpm.do(lambda esys: extend(esys, 4, hashlib.sha256(what).digest()))


def refused(code: str, work: Callable[[], object]) -> str:
    with pytest.raises(UmecError) as raised:
        work()
    assert raised.value.code == code, raised.value
    return raised.value.detail


def test_a_key_opens_in_each_boot_of_the_approved_state(device: SoftwareTpm, tpm: Tpm) -> None:
    measure(tpm, b"image 1")
    approval = approve(tpm)
    key, token = seal_key(tpm, OWNER, approval)
    assert len(key) == disk.KEY_SIZE == 64
    device.power_cycle()
    measure(tpm, b"image 1")
    assert open_key(tpm, OWNER, approval, token) == key


def test_two_keys_are_never_the_same(tpm: Tpm) -> None:
    assert seal_key(tpm, OWNER, approve(tpm))[0] != seal_key(tpm, OWNER, approve(tpm))[0]


def test_nothing_is_sealed_in_a_state_that_nobody_approved(tpm: Tpm) -> None:
    approval = approve(tpm)
    measure(tpm, b"something else")
    assert "PCR 4" in refused("approval-pcrs", lambda: seal_key(tpm, OWNER, approval))
    refused("approval-signature", lambda: seal_key(tpm, OWNER, approve(tpm, image="other")))
    seal_key(tpm, OWNER, approve(tpm))


def test_another_state_opens_nothing(tpm: Tpm) -> None:
    approval = approve(tpm)
    key, token = seal_key(tpm, OWNER, approval)
    measure(tpm, b"an intruder's kernel")
    assert "PCR 4" in refused("approval-pcrs", lambda: open_key(tpm, OWNER, approval, token))
    assert open_key(tpm, OWNER, approve(tpm), token) == key  # the owner approved it


def test_an_approval_of_somebody_else_or_for_another_image_opens_nothing(tpm: Tpm) -> None:
    key, token = seal_key(tpm, OWNER, approve(tpm))
    thief = ec.generate_private_key(ec.SECP256R1())
    refused("approval-signature", lambda: open_key(tpm, OWNER, approve(tpm, key=thief), token))
    refused("approval-signature", lambda: open_key(tpm, OWNER, approve(tpm, image="other"), token))
    assert open_key(tpm, OWNER, approve(tpm), token) == key


def test_an_image_that_was_shut_out_opens_nothing(device: SoftwareTpm, tpm: Tpm) -> None:
    first = tpm.do(counter_value)
    measure(tpm, b"image 1")
    old = approve(tpm, first)
    key, token = seal_key(tpm, OWNER, old)
    device.power_cycle()
    measure(tpm, b"image 2")
    new = approve(tpm, first + 1)
    assert open_key(tpm, OWNER, new, token) == key
    tpm.do(lambda esys: advance_counter(esys, first + 1))
    device.power_cycle()
    measure(tpm, b"image 1")
    refused("approval-outdated", lambda: open_key(tpm, OWNER, old, token))
    device.power_cycle()
    measure(tpm, b"image 2")
    assert open_key(tpm, OWNER, new, token) == key  # though the image that sealed it is shut out


def test_another_tpm_opens_nothing(tpm: Tpm) -> None:
    key, token = seal_key(tpm, OWNER, approve(tpm))
    with SoftwareTpm() as thief, Tpm(thief.tcti) as other:
        refused("sealed-elsewhere", lambda: open_key(other, OWNER, approve(other), token))
    assert open_key(tpm, OWNER, approve(tpm), token) == key


def test_what_was_sealed_under_another_system_is_not_opened(device: SoftwareTpm, tpm: Tpm) -> None:
    """Who has disk and box in hand can seal a key of theirs under the owner's policy: the TPM noted in which state."""
    approval = approve(tpm)
    measure(tpm, b"a system of the thief's")
    theirs = tpm.do(lambda esys: create_sealed(esys, b"t" * 64, OWNER.policy, PCRS))
    device.power_cycle()
    token = render_token(theirs, approval)
    assert "not approved" in refused("sealed-elsewhere", lambda: open_key(tpm, OWNER, approval, token))
    good = tpm.do(lambda esys: create_sealed(esys, b"g" * 64, OWNER.policy, PCRS))
    assert open_key(tpm, OWNER, approval, render_token(good, approval)) == b"g" * 64
    # What the TPM says of one object does not count for another, nor does what it never said.
    lent = dataclasses.replace(theirs, creation=good.creation, ticket=good.ticket)
    refused("sealed-elsewhere", lambda: open_key(tpm, OWNER, approval, render_token(lent, approval)))
    made_up = dataclasses.replace(theirs, creation=good.creation)
    refused("sealed-elsewhere", lambda: open_key(tpm, OWNER, approval, render_token(made_up, approval)))


def test_the_state_in_which_it_was_sealed_has_to_be_approved_by_the_owner(tpm: Tpm) -> None:
    approval, thief = approve(tpm), ec.generate_private_key(ec.SECP256R1())
    created = tpm.do(lambda esys: create_sealed(esys, b"k" * 64, OWNER.policy, PCRS))
    for then in (approve(tpm, key=thief), approve(tpm, image="other")):
        token = render_token(created, then)
        refused("approval-signature", lambda token=token: open_key(tpm, OWNER, approval, token))
    assert open_key(tpm, OWNER, approval, render_token(created, approval)) == b"k" * 64


def test_what_another_owner_s_policy_opens_is_not_opened(tpm: Tpm) -> None:
    other = dataclasses.replace(OWNER, image="other")
    created = tpm.do(lambda esys: create_sealed(esys, b"k" * 64, other.policy, PCRS))
    refused("tpm-refused", lambda: open_key(tpm, OWNER, approve(tpm), render_token(created, approve(tpm))))


def test_what_is_no_key_of_this_volume_is_not_given_to_the_kernel(tpm: Tpm) -> None:
    approval = approve(tpm)
    for size in (32, 63, 65):
        short = tpm.do(lambda esys, size=size: create_sealed(esys, b"k" * size, OWNER.policy, PCRS))
        refused("data-token-invalid", lambda short=short: open_key(tpm, OWNER, approval, render_token(short, approval)))


# --- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"type": "luks2-keyring"},
        {"format": 2},
        {"format": True},
        {"sealed": {}},
        {"sealed": None},
        {"creation": "no hex"},
        {"creation": "00" * 4097},
        {"ticket": 7},
        {"approval": ["{}"]},
        {"approval": "é"},
        {"cipher": "cipher_null-ecb"},
    ],
    ids=str,
)
def test_what_is_no_token_is_refused(tpm: Tpm, change: dict[str, Any]) -> None:
    _, token = seal_key(tpm, OWNER, approve(tpm))
    parse_token(token)
    refused("data-token-invalid", lambda: parse_token(json.dumps(json.loads(token) | change).encode()))


def test_a_token_has_a_bounded_size(tpm: Tpm) -> None:
    _, token = seal_key(tpm, OWNER, approve(tpm))
    parse_token(token + b" " * (disk.MAX_TOKEN - len(token)))
    refused("data-token-invalid", lambda: parse_token(token + b" " * (disk.MAX_TOKEN - len(token) + 1)))


def test_a_token_that_would_not_fit_is_not_made(tpm: Tpm) -> None:
    created, _ = parse_token(seal_key(tpm, OWNER, approve(tpm))[1])
    rest = disk.MAX_TOKEN - len(render_token(created, b""))
    assert len(render_token(created, b"a" * rest)) == disk.MAX_TOKEN
    refused("data-token-invalid", lambda: render_token(created, b"a" * (rest + 1)))


@given(
    st.binary(max_size=400) | st.dictionaries(st.text(max_size=9), st.text(max_size=9)).map(json.dumps).map(str.encode)
)
def test_any_bytes_are_a_token_or_its_error(data: bytes) -> None:
    with pytest.raises(DataTokenInvalid):
        parse_token(data)


# --- the program --------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, tpm: Tpm) -> dict[str, Path]:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    made = {"owner": pem, "release": b'ID=umec\nIMAGE_ID="lamp"\n', "approval": approve(tpm)}
    found = {name: tmp_path / name for name in made}
    for name, content in made.items():
        found[name].write_bytes(content)
    return found


def program(device: SoftwareTpm, places: dict[str, Path], *words: str, token: bytes = b"") -> tuple[int, bytes, str]:
    line = [sys.executable, "-I", "-m", "umec_attest.agent.disk", "--tcti", device.tcti]
    line += [word for name, path in places.items() for word in (f"--{name}", str(path))]
    done = subprocess.run([*line, *words], input=token, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr.decode()


def test_the_program_says_the_key_and_nothing_else(device: SoftwareTpm, places: dict[str, Path]) -> None:
    status, made, said = program(device, places, "seal")
    key, token = made.splitlines(keepends=True)
    assert (status, len(bytes.fromhex(key.decode())), said) == (0, 64, "")
    assert json.loads(token)["type"] == "umec-data"
    assert program(device, places, "open", token=token) == (0, key, "")
    assert program(device, places, "open", token=token.ljust(disk.MAX_TOKEN, b"\0")) == (0, key, "")


@pytest.mark.parametrize("fault", [b"x", b"\0x"], ids=["text", "text behind zeros"])
def test_the_program_takes_zeros_behind_a_token_alone(
    device: SoftwareTpm, places: dict[str, Path], fault: bytes
) -> None:
    token = program(device, places, "seal")[1].splitlines()[1]
    status, key, _ = program(device, places, "open", token=token + fault)
    assert (status, key) == (1, b"")
    assert program(device, places, "open", token=token)[0] == 0


def test_the_program_says_why_a_partition_stays_closed(device: SoftwareTpm, places: dict[str, Path]) -> None:
    status, key, said = program(device, places, "open", token=b"{}")
    assert (status, key) == (1, b"")
    assert json.loads(said.removeprefix("umec-node: "))["code"] == "data-token-invalid"
    places["approval"].unlink()
    status, key, said = program(device, places, "open", token=b"{}")
    assert (status, key) == (1, b"")
    assert json.loads(said.removeprefix("umec-node: "))["code"] == "approval-missing"


def test_an_image_says_who_owns_it_and_what_it_is(places: dict[str, Path]) -> None:
    assert read_owner(places["owner"], places["release"]) == OWNER
    places["release"].write_text("IMAGE_ID=\n")
    refused("agent-state-invalid", lambda: read_owner(places["owner"], places["release"]))
    places["release"].unlink()
    refused("agent-state-invalid", lambda: read_owner(places["owner"], places["release"]))


def test_an_approval_is_read_as_far_as_one_is_long(places: dict[str, Path]) -> None:
    assert read_approval(places["approval"]) == places["approval"].read_bytes()
    places["approval"].write_bytes(bytes(1024 * 1024))
    assert len(read_approval(places["approval"])) == 16 * 1024 + 1
