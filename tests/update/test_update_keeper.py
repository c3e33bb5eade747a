"""The program that keeps a node's disk as root: what an agent, honest or not, gets onto it."""

import contextlib
import datetime as dt
import hashlib
import json
import os
import socket
import struct
import threading
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from umec_images.nodeimage.authenticode import sign_image
from umec_images.nodeimage.keys import load_certificates, load_signer, make_keys
from umec_images.nodeimage.variables import measured_variables
from umec_images.update import EfiVariables, Phase, confirm, open_disk, survey
from umec_images.update.keeper import Keeper
from umec_images.update.node import Node

NEXT = "BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c"
DB = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"
TRUSTED = '{"standing": "trusted", "certificate": true}'


class Machine:
    """A node that runs: its disk is a file, its firmware's variables a folder, and a restart is counted."""

    def __init__(self, folder: Path, disk: Path, running: bytes) -> None:
        self.folder, self.disk, self.variables = folder, disk, folder / "efivars"
        self.said: list[str] = []
        self.restarts = 0
        self.now = 0.0
        self.started(running)

    def started(self, running: bytes) -> None:
        """Start its keeper, as a start of the machine does, with what runs then."""
        node = Node(self.disk, EfiVariables(self.variables), running, self._restart)
        self.standing = self.folder / "standing"
        self.standing.unlink(missing_ok=True)
        self.keeper = Keeper(
            node, self.folder, self.standing, trial_seconds=100, say=self.said.append, elapsed=lambda: self.now
        )
        self.keeper.settle()

    def _restart(self) -> None:
        self.restarts += 1

    @property
    def status(self) -> dict:
        return json.loads((self.folder / "update.json").read_text())

    @property
    def seen(self):
        with open_disk(self.disk, writing=False) as device:
            return survey(device)

    @contextlib.contextmanager
    def agent(self, user=None):
        """Give the agent's end of a connection; the keeper knows this user alone."""
        users = (os.getuid() if user is None else user,)
        mine, theirs = socket.socketpair()
        mine.settimeout(20)
        answering = threading.Thread(target=self.keeper.answer, args=(theirs, users))
        answering.start()
        agent = Agent(mine)
        try:
            yield agent
        finally:
            with contextlib.suppress(BrokenPipeError):
                agent.file.close()
            mine.close()
            answering.join()
            theirs.close()


class Agent:
    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.file = connection, connection.makefile("rwb")

    def ask(self, **request) -> None:
        self.send(json.dumps(request).encode() + b"\n")

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.file.write(data)
            self.file.flush()

    def hear(self) -> dict:
        return json.loads(self.file.readline())


def take(machine, made, *, manifest=None, attempt=1, **parts) -> dict:
    """Hand an image over as an agent does; `parts` are bytes that are sent in the place of a file."""
    papers = (made.folder / "manifest.json").read_bytes()
    with machine.agent() as agent:
        agent.ask(op="take", manifest=manifest or made.digest, size=len(papers), attempt=attempt)
        agent.send(papers)
        while (said := agent.hear())["ok"] and said["want"] is not None:
            name = said["want"]
            content = parts.get(name.partition(".")[0], (made.folder / name).read_bytes())
            assert said["size"] == (made.folder / name).stat().st_size
            agent.send(content)
            if len(content) < said["size"]:
                agent.connection.shutdown(socket.SHUT_WR)
        return said


def attempted(machine, made) -> dict:
    with machine.agent() as agent:
        agent.ask(op="try", manifest=made.digest)
        return agent.hear()


@pytest.fixture(scope="session")
def db_keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("db") / "keys"
    make_keys(folder, dt.datetime(2026, 11, 22, tzinfo=dt.UTC))
    return folder


@pytest.fixture(scope="session")
def signed(db_keys, image_factory):
    """Makes images whose kernel images are signed with the db key."""
    signer = load_signer(db_keys)
    return lambda folder, *words, **further: image_factory(
        folder, *words, sign=lambda image: sign_image(image, signer), **further
    )


@pytest.fixture(scope="session")
def street(signed, tmp_path_factory):
    """Versions 1 to 3, signed."""
    folder = tmp_path_factory.mktemp("street")
    return {version: signed(folder / str(version), version) for version in (1, 2, 3)}


@pytest.fixture
def machine(tmp_path, street, db_keys, disk_factory) -> Machine:
    """A node on which version 1 runs, and is confirmed."""
    (tmp_path / "efivars").mkdir()
    db = measured_variables(load_certificates(db_keys))["db"]
    (tmp_path / "efivars" / DB).write_bytes(struct.pack("<I", 0x27) + db)
    return Machine(tmp_path, disk_factory(tmp_path / "disk.img", street[1]), street[1].root_hash)


def test_an_image_is_taken_tried_and_confirmed(machine, street):
    assert (machine.status["phase"], machine.status["running"]) == ("none", machine.status["confirmed"])
    assert take(machine, street[2]) == {"ok": True, "want": None, "phase": "staged"}
    assert machine.status["update"] == {"version": 2, "manifest": street[2].digest, "attempt": 1}
    assert not (machine.variables / NEXT).exists()
    assert attempted(machine, street[2])["phase"] == "trial"
    assert machine.restarts == 1
    assert (machine.variables / NEXT).read_bytes() == b"\x07\0\0\0\x45\x4d"
    machine.started(street[2].root_hash)
    assert (machine.status["running"]["version"], machine.status["confirmed"]["version"]) == (2, 1)
    machine.keeper.watch()
    assert machine.seen.confirmed.version == 1
    machine.standing.write_text(TRUSTED)
    machine.keeper.watch()
    assert machine.seen.confirmed.version == 2
    assert (machine.status["phase"], machine.status["code"]) == ("none", None)
    assert (machine.folder / "confirmed").exists()
    machine.now = 1000
    machine.keeper.watch()
    assert machine.restarts == 1


def on_trial(machine, street) -> None:
    take(machine, street[2])
    attempted(machine, street[2])
    machine.restarts = 0
    machine.started(street[2].root_hash)


@pytest.mark.parametrize(
    ("standing", "code"),
    [
        (None, "update-agent-silent"),
        ('{"standing": "untrusted"}', "update-not-trusted"),
        ('{"standing": "degraded", "certificate": true}', "update-not-trusted"),
        ('{"standing": ["trusted"], "certificate": true}', "update-agent-silent"),
        ('{"certificate": true}', "update-agent-silent"),
        ('["trusted"]', "update-agent-silent"),
        ("[" * 4000, "update-agent-silent"),
        (TRUSTED + " " * 4096, "update-agent-silent"),
        ('{"standing": "trusted"}', "update-no-certificate"),
        ('{"standing": "trusted", "certificate": false}', "update-no-certificate"),
        ('{"standing": "trusted", "certificate": null}', "update-no-certificate"),
        ('{"standing": "trusted", "certificate": 1}', "update-no-certificate"),
        ('{"standing": "trusted", "certificate": "true"}', "update-no-certificate"),
    ],
)
def test_a_trial_that_is_not_trusted_in_time_is_left_and_told(machine, street, standing, code):
    on_trial(machine, street)
    if standing is not None:
        machine.standing.write_text(standing)
    machine.now = 99
    machine.keeper.watch()
    assert machine.restarts == 0
    machine.now = 100
    machine.keeper.watch()
    assert machine.restarts == 1
    machine.started(street[1].root_hash)
    status = machine.status
    assert (status["phase"], status["code"], status["update"]["version"]) == ("failed", code, 2)
    assert status["running"]["version"] == 1
    assert take(machine, street[2])["code"] == "update-image-failed"
    assert take(machine, street[2], attempt=2)["ok"]


def test_a_certificate_that_comes_after_the_verdict_and_in_time_is_enough(machine, street):
    on_trial(machine, street)
    machine.standing.write_text('{"standing": "trusted", "certificate": false}')
    machine.now, told = 99, len(machine.said)
    machine.keeper.watch()
    assert (machine.restarts, machine.seen.confirmed.version, len(machine.said)) == (0, 1, told)
    machine.standing.write_text(TRUSTED)
    machine.keeper.watch()
    assert (machine.restarts, machine.seen.confirmed.version) == (0, 2)


def test_what_the_agent_puts_in_the_place_of_its_file_is_not_followed(machine, street):
    on_trial(machine, street)
    other = machine.folder / "other"
    other.write_text(TRUSTED)
    machine.standing.symlink_to(other)
    machine.keeper.watch()
    machine.standing.unlink()
    os.mkfifo(machine.standing)
    machine.keeper.watch()
    assert machine.seen.confirmed.version == 1
    machine.standing.unlink()
    machine.standing.write_text(other.read_text())
    machine.keeper.watch()
    assert machine.seen.confirmed.version == 2


def test_a_trial_that_never_came_up_is_told(machine, street):
    take(machine, street[2])
    attempted(machine, street[2])
    machine.started(street[1].root_hash)
    assert (machine.status["phase"], machine.status["code"]) == ("failed", "update-fell-back")
    assert "version 2 was tried" in machine.status["detail"]


def test_a_trial_whose_copy_on_disk_is_damaged_is_not_confirmed_but_left(machine, street):
    on_trial(machine, street)
    with open_disk(machine.disk, writing=True) as device:
        survey(device).target.write(4096, bytes(512))
    machine.standing.write_text(TRUSTED)
    machine.keeper.watch()
    assert (machine.seen.confirmed.version, machine.restarts) == (1, 0)
    assert any("update-slot-damaged" in line for line in machine.said)
    machine.now = 100
    machine.keeper.watch()
    assert machine.restarts == 1
    machine.started(street[1].root_hash)
    assert (machine.status["phase"], machine.status["code"]) == ("failed", "update-not-confirmed")


def test_a_disk_that_fails_is_told_and_ends_nothing(machine, street):
    on_trial(machine, street)
    machine.standing.write_text(TRUSTED)
    away = machine.disk.rename(machine.folder / "away")
    machine.disk.mkdir()
    machine.keeper.watch()
    assert (machine.restarts, "update-disk-unfit" in machine.said[-1]) == (0, True)
    machine.disk.rmdir()
    away.rename(machine.disk)
    machine.keeper.watch()
    assert (machine.restarts, machine.seen.confirmed.version) == (0, 2)
    machine.disk.rename(away)
    assert take(machine, street[3])["code"] == "update-disk-unfit"
    machine.started(street[2].root_hash)
    assert (machine.status["code"], machine.status["phase"]) == ("update-disk-unfit", None)
    away.rename(machine.disk)
    assert take(machine, street[3])["phase"] == "staged"


def test_a_disk_that_fails_when_a_trial_starts_is_read_again_while_the_trial_lasts(machine, street):
    take(machine, street[2])
    attempted(machine, street[2])
    machine.restarts = 0
    away = machine.disk.rename(machine.folder / "away")
    machine.started(street[2].root_hash)
    machine.standing.write_text(TRUSTED)
    machine.now = 99
    machine.keeper.watch()
    machine.keeper.watch()
    assert (machine.status["code"], machine.keeper.on_trial) == ("update-disk-unfit", False)
    assert ["update-disk-unfit" in line for line in machine.said].count(True) == 1
    away.rename(machine.disk)
    machine.now = 100
    machine.keeper.watch()
    assert (machine.restarts, machine.seen.confirmed.version) == (0, 1)  # whoever started this restarts it now
    machine.now = 99
    machine.keeper.watch()
    assert (machine.status["phase"], machine.status["code"], machine.seen.confirmed.version) == ("none", None, 2)
    assert (machine.folder / "confirmed").exists()


def test_a_disk_that_fails_when_a_trial_starts_keeps_no_trial_from_being_left(machine, street):
    take(machine, street[2])
    attempted(machine, street[2])
    machine.restarts = 0
    away = machine.disk.rename(machine.folder / "away")
    machine.started(street[2].root_hash)
    away.rename(machine.disk)
    machine.keeper.watch()
    assert (machine.status["phase"], machine.restarts) == ("trial", 0)
    machine.now = 100
    machine.keeper.watch()
    assert machine.restarts == 1
    machine.started(street[1].root_hash)
    assert (machine.status["phase"], machine.status["code"]) == ("failed", "update-agent-silent")


def test_older_and_equal_images_and_others_are_refused_before_they_are_sent(machine, street, signed, tmp_path):
    on_trial(machine, street)
    machine.standing.write_text(TRUSTED)
    machine.keeper.watch()
    before = machine.disk.read_bytes()
    other, same = signed(tmp_path / "lamp", 9, name="lamp"), signed(tmp_path / "two", 2, blocks=41)
    refusals = {
        "update-image-older": (street[1], same),
        "update-image-other": (other,),
        "update-image-current": (street[2],),
    }
    for code, refused in refusals.items():
        for made in refused:
            papers = (made.folder / "manifest.json").read_bytes()
            with machine.agent() as agent:
                agent.ask(op="take", manifest=made.digest, size=len(papers), attempt=1)
                agent.send(papers)
                assert agent.hear()["code"] == code
    assert machine.disk.read_bytes() == before
    assert take(machine, street[3])["phase"] == "staged"


def test_a_kernel_image_that_nobody_signed_is_refused(machine, image_maker, signed, tmp_path):
    unsigned = image_maker("unsigned", 5)
    assert take(machine, unsigned)["code"] == "update-signature-other"
    foreign = tmp_path / "foreign"
    make_keys(foreign, dt.datetime(2026, 11, 22, tzinfo=dt.UTC))
    signer = load_signer(foreign)
    stolen = image_maker("stolen", 5, sign=lambda image: sign_image(image, signer))
    assert take(machine, stolen)["code"] == "update-signature-other"
    assert machine.seen.record.phase is Phase.NONE
    assert machine.seen.other is None
    assert take(machine, signed(tmp_path / "good", 5))["phase"] == "staged"


def signature_list(kind: str, content: bytes) -> bytes:
    signature = bytes(16) + content
    return uuid.UUID(kind).bytes_le + struct.pack("<III", 28 + len(signature), 0, len(signature)) + signature


def odd_certificates() -> tuple[bytes, bytes]:
    """Return a certificate of a P-256 key, and one whose serial number is negative."""
    made = []
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "maker")])
        builder = x509.CertificateBuilder().issuer_name(name).subject_name(name).public_key(key.public_key())
        times = builder.not_valid_before(dt.datetime(2020, 1, 1)).not_valid_after(dt.datetime(2040, 1, 1))  # noqa: DTZ001
        made.append(times.serial_number(0x7777777777777777).sign(key, SHA256()).public_bytes(Encoding.DER))
    return made[0], made[1].replace(b"\x77" * 8, b"\x87" * 8, 1)


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
def test_what_else_a_firmware_has_in_its_db_keeps_nothing_from_counting_and_counts_for_nothing(machine, street):
    content = (machine.variables / DB).read_bytes()
    elliptic, negative = odd_certificates()
    hashes, certificates = "c1c41626-504c-4092-aca9-41f936934328", "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
    odd = signature_list(hashes, bytes(32)) + signature_list(certificates, elliptic)
    odd += b"".join(signature_list(certificates, each) for each in (b"no certificate", content[-800:], negative))
    (machine.variables / DB).write_bytes(content[:4] + odd)
    assert take(machine, street[2])["code"] == "update-signature-other"
    assert machine.seen.record.phase is Phase.NONE
    machine.said.clear()
    (machine.variables / DB).write_bytes(content[:4] + odd + content[4:])
    assert take(machine, street[2])["phase"] == "staged"
    assert [line for line in machine.said if "firmware-certificate-unread: 3 of" in line]
    machine.said.clear()
    (machine.variables / DB).write_bytes(content)
    assert take(machine, street[3])["phase"] == "staged"
    assert not any("unread" in line for line in machine.said)


def test_a_machine_whose_firmware_shows_no_db_takes_nothing(machine, street):
    content = (machine.variables / DB).read_bytes()
    for value in (None, b"", content[:-1], content + b"x", struct.pack("<I", 7)):
        (machine.variables / DB).unlink(missing_ok=True)
        if value is not None:
            (machine.variables / DB).write_bytes(value)
        assert take(machine, street[2])["code"] in {"firmware-variables-unusable", "update-signature-other"}
    (machine.variables / DB).write_bytes(content)
    assert take(machine, street[2])["ok"]


def test_what_is_not_the_image_of_the_manifest_never_counts(machine, street):
    made = street[2]
    root, kernel = (made.folder / "root.img").read_bytes(), (made.folder / "uki.efi").read_bytes()
    turned = bytes([root[5000] ^ 1])
    assert take(machine, made, manifest="00" * 32)["code"] == "update-manifest-other"
    assert take(machine, made, uki=kernel[:-1] + b"x")["code"] == "update-image-other"
    assert take(machine, made, root=root[:5000] + turned + root[5001:])["code"] == "update-image-other"
    assert machine.seen.record.phase is Phase.WRITING
    assert attempted(machine, made)["code"] == "update-nothing-staged"
    assert take(machine, made, root=root[:9000])["code"] == "update-request-invalid"
    assert (machine.seen.other, machine.seen.confirmed.version, machine.restarts) == (None, 1, 0)
    assert take(machine, made)["phase"] == "staged"
    assert attempted(machine, street[3])["code"] == "update-nothing-staged"
    assert attempted(machine, made)["ok"]


def test_what_is_in_its_slot_already_is_not_sent_again(machine, street):
    take(machine, street[2])
    papers = (street[2].folder / "manifest.json").read_bytes()
    with machine.agent() as agent:
        agent.ask(op="take", manifest=street[2].digest, size=len(papers), attempt=1)
        agent.send(papers)
        assert agent.hear()["want"] == "uki.efi"
        agent.send((street[2].folder / "uki.efi").read_bytes())
        assert agent.hear() == {"ok": True, "want": None, "phase": "staged"}


def test_an_approval_goes_into_the_slot_of_its_image(machine, signed, tmp_path):
    made = signed(tmp_path / "approved", 2, approval=b'{"approved": 2}')
    assert take(machine, made, approval=b'{"approved": 3}')["code"] == "update-image-other"
    assert take(machine, made)["phase"] == "staged"
    with open_disk(machine.disk, writing=False) as device:
        area = survey(device).target
        assert area.read(area.size - 16 * 1024, 16 * 1024).rstrip(b"\0") == b'{"approved": 2}'
    later = signed(tmp_path / "plain", 3)
    assert take(machine, later)["phase"] == "staged"
    with open_disk(machine.disk, writing=False) as device:
        area = survey(device).target
        assert area.read(area.size - 16 * 1024, 16 * 1024) == bytes(16 * 1024)


def first_answer(machine, papers: bytes) -> dict:
    with machine.agent() as agent:
        agent.ask(op="take", manifest=hashlib.sha256(papers).hexdigest(), size=len(papers), attempt=1)
        agent.send(papers)
        return agent.hear()


def test_what_fell_back_is_refused_before_it_is_sent(machine, street):
    papers = (street[2].folder / "manifest.json").read_bytes()
    assert first_answer(machine, papers)["want"] == "uki.efi"
    take(machine, street[2])
    attempted(machine, street[2])
    machine.started(street[1].root_hash)
    assert first_answer(machine, papers)["code"] == "update-image-failed"


def test_a_kernel_image_that_no_memory_holds_is_not_asked_for(machine, street):
    said = json.loads((street[2].folder / "manifest.json").read_bytes())
    said["files"]["uki.efi"]["size"] = 256 * 1024 * 1024
    assert first_answer(machine, json.dumps(said).encode())["code"] == "update-no-room"
    said["files"]["uki.efi"]["size"] += 1
    assert first_answer(machine, json.dumps(said).encode())["code"] == "update-image-other"


@pytest.mark.parametrize("name", ["uki.efi", "root.img", "root.img and an approval"])
def test_what_does_not_fit_is_refused_by_what_the_manifest_says_before_it_is_sent(machine, street, name):
    said = json.loads((street[2].folder / "manifest.json").read_bytes())
    seen, files = machine.seen, said["files"]
    room = seen.esp.room("EFI/BOOT/OTHER.EFI") if name == "uki.efi" else seen.target.size
    if "approval" in name:
        files["approval"] = {"sha256": "00" * 32, "size": 16 * 1024}
        room -= 16 * 1024
    for size, answer in ((room + 1, "update-no-room"), (2 * room, "update-no-room"), (room, None)):
        files[name.partition(" ")[0]]["size"] = size
        heard = first_answer(machine, json.dumps(said).encode())
        assert heard.get("code") == answer
    assert heard["want"] == ("approval" if "approval" in files else "uki.efi")
    assert machine.seen.record.phase is Phase.NONE


def test_an_approval_that_no_slot_holds_is_not_asked_for(machine, street):
    said = json.loads((street[2].folder / "manifest.json").read_bytes())
    for size, answer in ((16 * 1024 + 1, "update-image-other"), (16 * 1024, None)):
        said["files"]["approval"] = {"sha256": "00" * 32, "size": size}
        assert first_answer(machine, json.dumps(said).encode()).get("code") == answer


def test_while_an_image_is_on_trial_nothing_is_taken(machine, street):
    on_trial(machine, street)
    with machine.agent() as agent:
        agent.ask(op="take", manifest=street[3].digest, size=1, attempt=1)
        assert agent.hear()["code"] == "update-trial-open"
    with open_disk(machine.disk, writing=True) as device:
        confirm(device, street[2].root_hash)
    machine.started(street[2].root_hash)
    assert take(machine, street[3])["ok"]


def test_another_user_is_refused(machine, street):
    with machine.agent(user=os.getuid() + 1) as agent:
        agent.ask(op="try", manifest=street[2].digest)
        assert agent.hear()["code"] == "update-user-other"
    assert attempted(machine, street[2])["code"] == "update-nothing-staged"


@pytest.mark.parametrize(
    "request_line",
    [
        b"",
        b"no json\n",
        b"[" * 900 + b"\n",
        b'{"op": "shell"}\n',
        b'{"op": "try"}\n',
        b'{"op": "try", "manifest": "../x"}\n',
        b'{"op": "try", "manifest": "' + b"ab" * 32 + b'", "more": 1}\n',
        b'{"op": "take", "manifest": "' + b"ab" * 32 + b'", "size": 0, "attempt": 1}\n',
        b'{"op": "take", "manifest": "' + b"ab" * 32 + b'", "size": 1048577, "attempt": 1}\n',
        b'{"op": "take", "manifest": "' + b"ab" * 32 + b'", "size": true, "attempt": 1}\n',
        b'{"op": "take", "manifest": "' + b"ab" * 32 + b'", "size": 1, "attempt": -1}\n',
        b'{"op": "take", "manifest": "' + b"ab" * 32 + b'", "size": 1}\n',
        b'{"op": "try", "manifest": "' + b"ab" * 2000,
    ],
)
def test_what_is_no_request_is_refused(machine, street, request_line):
    with machine.agent() as agent:
        agent.send(request_line)
        agent.connection.shutdown(socket.SHUT_WR)
        assert agent.hear()["code"] == "update-request-invalid"
    assert take(machine, street[2])["ok"]


def test_a_disk_that_is_none_of_a_node_is_told(machine, street):
    machine.disk.write_bytes(bytes(4096))
    machine.started(street[1].root_hash)
    assert (machine.status["code"], machine.status["phase"]) == ("update-disk-unfit", None)
    assert take(machine, street[2])["code"] == "update-disk-unfit"


def test_the_kernel_images_are_told_by_their_digests(machine, street):
    digest = hashlib.sha256((street[1].folder / "uki.efi").read_bytes()).hexdigest()
    assert machine.status["running"] == {"version": 1, "kernel": digest}
