"""What the agent measures of starts: written down, extended once, taken back where that was cut short, or refused."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from umec_attest.agent import start_log
from umec_attest.agent.asking import ask
from umec_attest.agent.control import serve_control
from umec_attest.agent.errors import AgentStateInvalid, StartLogDiverged, StartLogFull, StartUndecided, TpmUnavailable
from umec_attest.agent.requests import Start, Status
from umec_attest.agent.start_log import START_LOG, StartLog, read_start_log
from umec_attest.agent.tpm import Tpm
from umec_attest.starts.entry import extended, parse_start
from umec_attest.testing import firmware
from umec_core.jose import sign_jwt
from umec_core.remote import RemoteRefused

KEY = generate_private_key(SECP256R1())
NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
NODE = "kerb-7"
IMAGE = "sha256:" + "ab" * 32
MOST = 1_000_000


def start(instance="cam-1", tenant="acme", now=NOW, **claims):
    said = {
        "iss": "https://edge.example/platform/v1",
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + 120,
        "tenant": tenant,
        "node": NODE,
        "instance": instance,
        "digest": IMAGE,
        **claims,
    }
    return Start(tenant, instance, IMAGE, sign_jwt(said, KEY, typ="umec-admission+jwt"))


@pytest.fixture
def tpm(shared_tpm):
    shared_tpm.power_cycle()
    with Tpm(shared_tpm.tcti) as opened:
        yield opened


@pytest.fixture
def log(tmp_path, tpm):
    return StartLog(tmp_path, tpm)


def measured(folder):
    """The entries of the log, and the PCR that they give."""
    value, entries = bytes(32), []
    for line in (folder / START_LOG).read_bytes().splitlines():
        value = extended(value, line)
        entries.append(parse_start(line))
    return entries, value


def pcr(tpm):
    return tpm.read_pcrs([15])[15]


def test_starts_are_in_the_log_and_in_the_pcr(log, tpm, tmp_path):
    assert read_start_log(tmp_path, 0, most=MOST) == (b"", False)
    assert [log.add(start(f"cam-{n}"), NODE, NOW) for n in range(3)] == [0, 1, 2]
    entries, value = measured(tmp_path)
    assert value == pcr(tpm)
    assert [(entry.number, entry.instance, entry.node, entry.tenant, entry.image, entry.time) for entry in entries] == [
        (n, f"cam-{n}", NODE, "acme", IMAGE, int(NOW.timestamp())) for n in range(3)
    ]
    assert (tmp_path / START_LOG).stat().st_size < 3 * 1024


def test_an_agent_that_starts_again_goes_on(log, tpm, tmp_path):
    log.add(start(), NODE, NOW)
    assert StartLog(tmp_path, tpm).add(start(), NODE, NOW) == 1
    assert log_is_whole(tmp_path, tpm, 2)


def log_is_whole(folder, tpm, count):
    entries, value = measured(folder)
    return value == pcr(tpm) and [entry.number for entry in entries] == list(range(count))


def test_a_boot_begins_a_new_log(log, tpm, tmp_path, shared_tpm):
    log.add(start(), NODE, NOW)
    log.add(start(), NODE, NOW)
    before = measured(tmp_path)[0][0].boot
    shared_tpm.power_cycle()
    with pytest.raises(StartLogDiverged):
        log.add(start(), NODE, NOW)  # nobody told this agent; it looks, and the next start is good
    assert log.add(start(), NODE, NOW) == 0
    assert log_is_whole(tmp_path, tpm, 1)
    assert measured(tmp_path)[0][0].boot > before


def test_what_was_written_and_not_extended_never_was(log, tpm, tmp_path):
    path = tmp_path / START_LOG
    log.add(start(), NODE, NOW)
    whole = path.read_bytes()
    torn = replace(parse_start(whole.strip()), number=1, instance="cam-9").to_bytes() + b"\n"
    for left in (torn, torn[:-1], torn[:100], b"\0" * 100):
        path.write_bytes(whole + left)
        again = StartLog(tmp_path, tpm)
        assert again.add(start("cam-2"), NODE, NOW) >= 1
        assert b"cam-9" not in path.read_bytes()
        assert measured(tmp_path)[1] == pcr(tpm)
        whole = path.read_bytes()
        torn = replace(parse_start(whole.splitlines()[-1]), number=len(whole.splitlines()), instance="cam-9").to_bytes()
        torn += b"\n"


class LossyTpm(Tpm):
    """A TPM whose answer gets lost, before or after it did what it was asked for."""

    lost = None

    def do(self, work):
        lost, self.lost = self.lost, None
        if lost == "before":
            raise TpmUnavailable("no answer")
        done = super().do(work)
        if lost == "after":
            raise TpmUnavailable("no answer")
        return done


@pytest.mark.parametrize(("lost", "counts"), [("before", 1), ("after", 2)])
def test_a_lost_answer_of_the_tpm_leaves_a_log_that_holds(tmp_path, shared_tpm, lost, counts):
    shared_tpm.power_cycle()
    with LossyTpm(shared_tpm.tcti) as tpm:
        log = StartLog(tmp_path, tpm)
        log.add(start(), NODE, NOW)
        tpm.lost = lost
        with pytest.raises(TpmUnavailable):
            log.add(start("cam-2"), NODE, NOW)
        assert log.add(start("cam-3"), NODE, NOW) == counts
        assert log_is_whole(tmp_path, tpm, counts + 1)


def changed(path, how):
    lines = path.read_bytes().splitlines(keepends=True)
    return {
        "gone": None,
        "cut": b"".join(lines[:1]),
        "changed": b"".join(lines).replace(b"cam-1", b"cam-7"),
        "longer": b"".join(lines) + 2 * lines[-1],
        "no start": b"".join(lines) + b"{}\n",
        "of nothing": b"{}\n",
    }[how]


@pytest.mark.parametrize("how", ["gone", "cut", "changed", "longer", "no start", "of nothing"])
def test_no_start_where_log_and_pcr_do_not_fit(log, tpm, tmp_path, how):
    path = tmp_path / START_LOG
    log.add(start("cam-0"), NODE, NOW)
    log.add(start("cam-1"), NODE, NOW)
    good, content = path.read_bytes(), changed(path, how)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(StartLogDiverged):
            StartLog(tmp_path, tpm).add(start(), NODE, NOW)
        assert (path.read_bytes() if path.exists() else None) == content  # whoever looks for why finds it as it was
    path.write_bytes(good)
    assert StartLog(tmp_path, tpm).add(start(), NODE, NOW) == 2


def test_no_start_after_somebody_else_extended_the_pcr(log, tpm):
    log.add(start(), NODE, NOW)
    tpm.do(lambda esys: firmware.extend(esys, 15, hashlib.sha256(b"a start that nobody logs").digest()))
    for _ in range(2):
        with pytest.raises(StartLogDiverged):
            log.add(start(), NODE, NOW)


@pytest.mark.parametrize(
    "asked",
    [
        start(node="kerb-8"),
        replace(start(), tenant="other"),
        replace(start(), instance="cam-2"),
        replace(start(), image="sha256:" + "cd" * 32),
        replace(start(), image="latest"),
        replace(start(), tenant="Acme\n"),
        replace(start(), decision="a.b.c"),
        replace(start(), decision="no decision"),
        replace(start(), decision=start(policies=["x" * 8000]).decision),
        start(now=NOW - timedelta(minutes=3)),
        start(now=NOW + timedelta(minutes=1)),
        start(exp=int(NOW.timestamp()) + 7200),
    ],
)
def test_what_differs_from_its_decision_is_not_measured(log, tpm, tmp_path, asked):
    with pytest.raises(StartUndecided):
        log.add(asked, NODE, NOW)
    assert pcr(tpm) == bytes(32)
    assert not (tmp_path / START_LOG).exists()
    assert log.add(start(), NODE, NOW) == 0


def test_no_tenant_takes_the_room_of_the_others(log, tpm, tmp_path, monkeypatch):
    monkeypatch.setattr(start_log, "MAX_OF_TENANT", 2)
    monkeypatch.setattr(start_log, "MAX_ENTRIES", 4)
    for number in range(2):
        assert log.add(start(), NODE, NOW) == number
    with pytest.raises(StartLogFull, match="acme"):
        log.add(start(), NODE, NOW)
    with pytest.raises(StartLogFull, match="acme"):
        StartLog(tmp_path, tpm).add(start(), NODE, NOW)
    assert log.add(start(tenant="city"), NODE, NOW) == 2
    assert log.add(start(tenant="city"), NODE, NOW) == 3
    with pytest.raises(StartLogFull):
        log.add(start(tenant="other"), NODE, NOW)
    monkeypatch.setattr(start_log, "MAX_ENTRIES", 5)
    monkeypatch.setattr(start_log, "MAX_LOG", (tmp_path / START_LOG).stat().st_size + 100)
    with pytest.raises(StartLogFull):
        log.add(start(tenant="other"), NODE, NOW)
    assert log_is_whole(tmp_path, tpm, 4)


def test_a_log_that_cannot_be_written_or_read_is_an_error(tmp_path, tpm):
    with pytest.raises(AgentStateInvalid):
        StartLog(tmp_path / "missing", tpm).add(start(), NODE, NOW)
    assert pcr(tpm) == bytes(32)
    (tmp_path / START_LOG).mkdir()
    with pytest.raises(AgentStateInvalid):
        read_start_log(tmp_path, 0, most=MOST)


def test_the_log_is_read_in_parts(log, tmp_path):
    for number in range(4):
        log.add(start(f"cam-{number}"), NODE, NOW)
    lines = (tmp_path / START_LOG).read_bytes().splitlines(keepends=True)
    size = len(lines[0])
    assert read_start_log(tmp_path, 0, most=MOST) == (b"".join(lines), False)
    assert read_start_log(tmp_path, 1, most=2 * size) == (b"".join(lines[1:3]), True)
    assert read_start_log(tmp_path, 2, most=2 * size) == (b"".join(lines[2:]), False)
    assert read_start_log(tmp_path, 4, most=MOST) == (b"", False)
    assert read_start_log(tmp_path, 9, most=MOST) == (b"", False)
    with pytest.raises(AgentStateInvalid):
        read_start_log(tmp_path, 0, most=size // 2)


def test_netd_asks_at_the_socket(scene):
    async def work(agent):
        async with serve_control(agent, scene.state):
            assert (await ask(scene.state, start()))["number"] == 0
            with pytest.raises(RemoteRefused) as refused:
                await ask(scene.state, start(node="kerb-8"))
            assert refused.value.code == "start-undecided"
            assert (await ask(scene.state, Status()))["ok"] is True
            assert (await ask(scene.state, start()))["number"] == 1
        assert await ask(scene.state, start()) is None

    scene.play(work, clock=lambda: NOW)
    assert len(measured(scene.state)[0]) == 2
