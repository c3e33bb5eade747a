"""An attacker who runs code in a real container: what is there of the host, of netd, and of the other instances."""

import base64
from pathlib import Path

OWN, OTHER, THIRD = "198.51.100.7", "198.51.100.8", "198.51.100.9"
KEY = "/run/umec/client.json"
NOT_THERE = "no: No such file or directory\n"
FORBIDDEN = {"no: Operation not permitted\n", "no: Permission denied\n", "no: Read-only file system\n"}


def started(lab, image, tools, name, tenant, where):
    """Start an instance with a key of its own that answers at an address."""
    secret = base64.b64encode(f"key of {name}".encode()).decode()
    made = lab.start(image, instance=name, tenant=tenant, secrets={"client.json": secret})
    rule = {"rule": f"rule-{name}", "tenant": tenant, "instance": name, "dst": where}
    lab.run(lab.client.put_traffic(tools.forward(made["address"], **rule)))


def test_an_instance_reads_its_own_key_and_nobody_elses(clean_lab, image, tools):
    lab, places = clean_lab, {"one": OWN, "two": OTHER, "three": THIRD}
    for name, tenant in (("one", "a"), ("two", "a"), ("three", "b")):
        started(lab, image, tools, name, tenant, places[name])
    keys = {name: lab.state / "instances" / name / "secrets" / "client.json" for name in places}
    for name, where in places.items():
        assert Path(f"/proc/{lab.netd_pid()}/root{keys[name]}").read_text() == f"key of {name}"
        assert lab.ask(where, f"cat {KEY}") == f"key of {name}"
    for path in keys.values():
        for root in ("", "/proc/1/root", "/run/umec/../.."):
            assert lab.ask(OWN, f"cat {root}{path}") == NOT_THERE
    # Nor by the processes of the others: an instance sees its own only.
    for one in lab.run(lab.client.status())["instances"]:
        assert lab.ask(OWN, f"cat /proc/{one['pid']}/root{KEY}") == NOT_THERE


def test_an_instance_becomes_nothing_more_and_changes_nothing_of_its_host(clean_lab, image, tools):
    lab = clean_lab
    started(lab, image, tools, "one", "a", OWN)
    for path in (lab.socket, lab.state / "unbound" / "control"):
        assert path.is_socket()
        assert lab.ask(OWN, f"unix {path}") == NOT_THERE
    for path in (lab.folder / "verifier.jwks", "/etc/shadow"):
        assert lab.ask(OWN, f"cat {path}") == NOT_THERE
    assert lab.ask(OWN, "write /tmp/mine") == "written\n"
    for path in ("/probe", KEY, "/etc/resolv.conf", "/proc/sys/net/ipv4/ip_forward", "/new"):
        assert lab.ask(OWN, f"write {path}") in FORBIDDEN
    for deed in ("root", "userns", "mount", "device", "raw", "trace"):
        assert lab.ask(OWN, deed) in FORBIDDEN
