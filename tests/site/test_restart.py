"""A site that stops, dies and starts again: it finds what it had, loses no verdict, and brings back what stood."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time

import httpx
import pytest

pytestmark = pytest.mark.system

UMEC = [sys.executable, "-m", "umec_platform.cli"]
LISTENERS = ("MANAGEMENT_PORT", "MP1_PORT", "REGISTRY_PORT")


# --- (1) a site of one's own, without settings -----------------------------------------------------------------------


class Site:
    """`umec up` as somebody types it, but for its folder and its ports."""

    def __init__(self, folder):
        self.state, self.log = folder / "state", folder / "site.log"
        known = {name: value for name, value in os.environ.items() if not name.startswith("UMEC_")}
        self.ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        ours = {f"UMEC_{name}": str(port) for name, port in self.ports.items()}
        self.environment = {**known, **ours, "UMEC_STATE": str(self.state)}

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*UMEC, "up"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
        deadline = time.monotonic() + 40
        while not (self.state / "operator.json").exists() or {self.ready(name) for name in LISTENERS} != {200}:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def ready(self, listener):
        trust = ssl.create_default_context(cafile=str(self.state / "server-ca.pem"))
        try:
            return httpx.get(
                f"https://127.0.0.1:{self.ports[listener]}/readyz", verify=trust, trust_env=False
            ).status_code
        except httpx.TransportError:
            return None

    def interrupt(self):
        """Ctrl-C: the exit status, and the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20), time.monotonic() - began

    def umec(self, *arguments):
        line = [*UMEC, *arguments, "--credential", str(self.state / "operator.json"), "--json"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=self.environment)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_a_site_without_settings_makes_what_it_needs_and_finds_it_again(tmp_path):
    site = Site(tmp_path)
    site.start()
    try:
        credential = site.state / "operator.json"
        assert credential.stat().st_mode & 0o777 == 0o600
        assert site.state.stat().st_mode & 0o777 == 0o700
        authority, operator = (site.state / "server-ca.pem").read_bytes(), credential.read_bytes()
        status, made = site.umec("tenant", "add", "harbour")
        assert (status, made["id"]) == (0, "harbour")

        status, seconds = site.interrupt()
        assert (status, seconds < 10) == (0, True)
        assert "Traceback" not in site.log.read_text()

        site.start()
        assert (site.state / "server-ca.pem").read_bytes() == authority
        assert credential.read_bytes() == operator
        status, found = site.umec("tenant", "list")
        assert status == 0
        assert "harbour" in json.dumps(found)
        assert site.interrupt()[0] == 0
        assert "Traceback" not in site.log.read_text()
    finally:
        site.process.kill()
        site.process.wait()


# --- (2), (3) a street whose site is killed, or restarted ------------------------------------------------------------


@pytest.fixture(scope="module")
def street(in_sandbox):
    """What was seen on one street, with one application, through a restart and through a kill."""
    return in_sandbox("street.py", seconds=300)[-1]


def test_after_a_restart_everything_comes_back_by_itself(street):
    seen = street["restart"]
    assert (seen["status"], seen["stop_seconds"] < 10, seen["traceback"]) == (0, True, False)
    assert seen["while_down"] == [None, None, False]
    assert (seen["same_instance"], seen["named"]) == (True, True)
    assert seen["states"] == [{"operationalState": "STARTED"}] * 2
    assert (seen["services"], seen["rules"]) == (["ACTIVE"], ["ACTIVE"])
    assert seen["wrote"]


def test_after_its_netd_was_killed_an_instance_comes_back_by_itself(street):
    assert street["netd"]["services"] == ["ACTIVE"]
    assert street["netd"]["back_seconds"] < 40


def test_a_verdict_whose_effect_a_kill_cut_off_is_made_up_for(street):
    seen = street["kill"]
    # The attack is real: before, the token worked; the kill came after the verdict and before its effect.
    assert (seen["honest"], seen["unwritten"]) == (200, [["trusted"], [0]])
    assert seen["netd_ended_seconds"] < 20
    assert (seen["standing"], seen["services"]) == (["untrusted"], ["SUSPENDED"])
    assert seen["asked"] > 10
    assert seen["answered"] == []
    assert seen["netd"] == {"in_force": False, "traffic": 0, "dns": 0, "instances": [], "standing": "untrusted"}
    # Until the feed has spoken nobody is believed; after that it is known who fell.
    assert seen["live_token_at_once"] in {"standing-stale", "standing-fallen"}
    assert seen["live_token"] == "standing-fallen"
    assert seen["new_token"] is not None
    assert seen["why"] == "host-not-trusted"
