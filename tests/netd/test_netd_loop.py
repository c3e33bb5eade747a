"""The whole of it: an admitted instance, a packet, a name, and both gone when the node falls."""

import json
import os
import subprocess
import sys

import pytest

from umec_core.errors import UmecError
from umec_platform.netd import messages

SPEAK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\\n")
print(s.makefile().readline())
"""


def code_of(action, *args, **kwargs):
    with pytest.raises(UmecError) as refused:
        action(*args, **kwargs)
    return refused.value.code


def test_packet_and_name_follow_the_standing(lab, image, tools):
    before = lab.run(lab.client.status())
    assert (before["in_force"], before["standing"], before["instances"]) == (True, "trusted", [])
    one = lab.start(image, secrets={"client.json": "eyJ4IjoxfQ=="}, env={"COLOUR": "blue"})
    assert one["address"] == "10.64.0.2"
    # No rule, no packet: neither to the instance itself nor to the service's address.
    assert lab.ask("10.64.0.2", "hello") is None
    assert lab.ask("198.51.100.7", "hello") is None
    lab.run(lab.client.put_traffic(tools.forward(one["address"])))
    lab.run(lab.client.put_dns(tools.name_of("198.51.100.7")))
    assert lab.ask("198.51.100.7", "hello") == "hello \n"
    assert lab.ask("198.51.100.7", "hello", port=81) is None
    assert lab.ask("10.64.0.2", "hello") is None
    assert lab.dig("cam.a.example") == ("NOERROR", ["198.51.100.7"])
    # The container is what it should be.
    assert lab.ask("198.51.100.7", "cat /run/umec/client.json") == '{"x":1}'
    assert lab.ask("198.51.100.7", "env COLOUR") == "blue\n"
    assert lab.ask("198.51.100.7", "write /new") == "no: Read-only file system\n"
    assert lab.ask("198.51.100.7", "mount").startswith("no: ")
    status = lab.ask("198.51.100.7", "cat /proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "\nUid:\t0\t" not in status
    # The node falls: everything is gone at once, and comes back with the standing.
    assert lab.stand("untrusted")["in_force"] is False
    assert lab.ask("198.51.100.7", "hello") is None
    assert lab.dig("cam.a.example") == ("NXDOMAIN", [])
    assert code_of(lab.run, lab.client.put_traffic(tools.forward(one["address"]))) == "standing-fallen"
    assert lab.stand("trusted")["in_force"] is True
    assert lab.ask("198.51.100.7", "hello") == "hello \n"
    assert lab.dig("cam.a.example") == ("NOERROR", ["198.51.100.7"])
    # What is stopped takes its rules and names along.
    lab.run(lab.client.stop_instance("one"))
    after = lab.run(lab.client.status())
    assert (after["traffic"], after["dns"], after["instances"]) == (0, 0, [])
    assert lab.dig("cam.a.example") == ("NXDOMAIN", [])
    assert not (lab.state / "instances" / "one").exists()


def test_clean_stop_leaves_nothing(lab, image, tools):
    one = lab.start(image)
    lab.run(lab.client.put_traffic(tools.forward(one["address"])))
    resolver = lab.run(lab.client.status())["resolver_pid"]
    assert resolver
    keep = os.open(f"/proc/{lab.host.pid}/ns/net", os.O_RDONLY)
    try:
        lab.stop()
        assert lab.host.returncode == 0, lab.told()

        def look(*command):
            entered = ["nsenter", f"--net=/proc/self/fd/{keep}", *command]
            return subprocess.run(entered, capture_output=True, text=True, check=True, pass_fds=[keep]).stdout

        assert look("nft", "list", "ruleset") == ""
        assert "umb" not in look("ip", "-o", "link")
        assert "umv" not in look("ip", "-o", "link")
        assert look("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    finally:
        os.close(keep)
    assert not lab.socket.exists()
    # Logs stay, and what was seen of the verifier: an older statement must not be taken by the next netd.
    assert {path.name for path in lab.state.iterdir()} == {"logs", "standing.json"}


def test_ordinary_user_in_a_user_namespace(open_folder, probe, tools):
    lab = tools.Lab(open_folder, tools.Keys(), unprivileged=True, allow=0)
    try:
        image = tools.Image(open_folder / "blobs", [tools.tar_of(("probe", probe))])
        # The platform runs outside of netd's user namespace as the user that netd's root is: here, that is `nobody`.
        ask = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", SPEAK]

        def speak(request):
            done = subprocess.run(
                [*ask, str(lab.socket), request.model_dump_json()], capture_output=True, text=True, check=True
            )
            return json.loads(done.stdout)

        statement = lab.keys.statement()
        # Root is not that user: in the user namespace it looks like anybody else from outside.
        assert code_of(lab.run, lab.client.status()) == "peer-refused"
        assert speak(messages.Standing(id="1", statement=statement))["result"]["in_force"] is True
        assert speak(messages.TenantPut(id="2", tenant="a"))["ok"]
        spec = lab.spec(image, secrets={"client.json": "eyJ4IjoxfQ=="})
        one = speak(messages.InstanceStart(id="3", spec=spec))["result"]
        assert speak(messages.TrafficPut(id="4", rule=tools.forward(one["address"])))["ok"]
        assert speak(messages.DnsPut(id="5", rule=tools.name_of(one["address"])))["ok"]
        status = speak(messages.Status(id="6"))["result"]
        assert (status["mapped_root"], status["limits"]) == (True, False)
        assert lab.ask("198.51.100.7", "cat /run/umec/client.json") == '{"x":1}'
        assert lab.dig("cam.a.example") == ("NOERROR", ["10.64.0.2"])
        assert lab.ask("198.51.100.7", "write /new") == "no: Read-only file system\n"
        assert "CapEff:\t0000000000000000" in lab.ask("198.51.100.7", "cat /proc/self/status")
        assert (
            speak(messages.Standing(id="7", statement=lab.keys.statement("untrusted")))["result"]["in_force"] is False
        )
        assert lab.ask("198.51.100.7", "hello") is None
        lab.stop()
        assert lab.host.returncode == 0, lab.told()
        assert {path.name for path in lab.state.iterdir()} == {"logs", "standing.json"}
    finally:
        lab.close()
