"""A real host attacked by tenants, by a platform that was led astray, and by people on its socket."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_platform.netd.client import NetdClient
from umec_platform.netd.messages import Status, Tenant, TrafficFilter

NOW = int(system_clock().timestamp())


def code_of(action, *args, **kwargs):
    with pytest.raises(UmecError) as refused:
        action(*args, **kwargs)
    return refused.value.code


def talk(lab, data):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(lab.socket))
        one.sendall(data)
        return json.loads(one.makefile().readline())


def test_another_user_is_refused(clean_lab, open_folder):
    # Under another name, in a folder that others may enter.
    link = open_folder / "netd.sock"
    link.hardlink_to(clean_lab.socket)
    code = 'import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b\'{"id":"1","op":"status"}\\n\'); print(s.makefile().readline())'  # noqa: E501
    command = ["/usr/bin/python3", "-c", code, str(link)]
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    refused = json.loads(subprocess.run([*other, *command], capture_output=True, check=True).stdout)
    assert (refused["ok"], refused["code"]) == (False, "peer-refused")
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["ok"]


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"nonsense\n", b'{"id":"1","op":"shell"}\n', b'{"id":"1","op":"status","x":1}\n', b"\xff\n"],
)
def test_lines_that_are_no_requests(clean_lab, line):
    assert talk(clean_lab, line)["code"] == "invalid-input"
    assert talk(clean_lab, b'{"id":"1","op":"status"}\n')["ok"]


def test_line_without_end(clean_lab):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(clean_lab.socket))
        for _ in range(17):
            one.sendall(b"x" * 1024 * 1024)
        assert json.loads(one.makefile().readline())["code"] == "message-too-large"
    assert clean_lab.run(clean_lab.client.status())["in_force"]


def test_nobody_at_the_socket(tmp_path):
    client = NetdClient(tmp_path / "none")
    assert code_of(asyncio.run, client.call(Status(id="1"))) == "netd-unreachable"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": NOW - 1}, "decision-expired"),
        ({"iat": NOW + 86400, "exp": NOW + 86700}, "decision-expired"),
        ({"exp": NOW + 86400}, "decision-expired"),
        ({"node": "pole-8"}, "decision-node"),
        ({"instance": "two"}, "decision-instance"),
        ({"tenant": "b"}, "decision-instance"),
        ({"digest": "sha256:" + "0" * 64}, "decision-digest"),
        ({"repository": "b/probe"}, "decision-digest"),
        ({"iss": "https://elsewhere.example"}, "decision-signature"),
        ({"typ": "JWT"}, "decision-signature"),
        ({"policies": []}, "decision-signature"),
        ({"unknown": 1}, "decision-signature"),
    ],
)
def test_decisions_that_do_not_admit(clean_lab, image, claims, code):
    assert code_of(clean_lab.start, image, claims=claims) == code


def test_decision_of_another_key(clean_lab, image):
    assert code_of(clean_lab.start, image, claims={"key": clean_lab.keys.verifier}) == "decision-signature"
    assert clean_lab.start(image)["address"]


def test_image_that_is_not_the_admitted_one(clean_lab, image):
    path = image.path(image.layers[0])
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert code_of(clean_lab.start, image) == "layer-digest"
    assert not (clean_lab.state / "instances" / "one").exists()
    path.write_bytes(good)
    assert clean_lab.start(image)["address"]
    assert code_of(clean_lab.start, image) == "instance-exists"


def test_degraded_node_keeps_and_starts_nothing(clean_lab, image, tools):
    one = clean_lab.start(image)
    assert clean_lab.stand("degraded")["in_force"]
    clean_lab.run(clean_lab.client.put_traffic(tools.forward(one["address"])))
    assert clean_lab.ask("198.51.100.7", "hello") == "hello \n"
    assert code_of(clean_lab.start, image, instance="two") == "standing-degraded"
    clean_lab.stand("trusted")
    assert clean_lab.start(image, instance="two")["address"] == "10.64.0.3"


def test_what_belongs_to_another_tenant(clean_lab, image, tools):
    run, client = clean_lab.run, clean_lab.client
    one = clean_lab.start(image)["address"]
    two = clean_lab.start(image, instance="two", tenant="b")["address"]
    assert (one, two) == ("10.64.0.2", "10.64.1.2")
    assert code_of(run, client.put_traffic(tools.forward(two))) == "address-not-of-tenant"
    assert code_of(run, client.put_traffic(tools.forward(one, instance="two"))) == "address-not-of-tenant"
    assert code_of(run, client.put_traffic(tools.forward(one, dst="10.64.1.2"))) == "address-not-of-tenant"
    assert code_of(run, client.put_traffic(tools.forward(one, tenant="c", instance="x"))) == "tenant-unknown"
    assert code_of(run, client.put_dns(tools.name_of(two))) == "address-not-of-tenant"
    assert code_of(run, client.put_dns(tools.name_of("198.51.100.7"))) == "address-not-of-tenant"
    assert code_of(run, client.put_dns(tools.name_of("2001:db8::1", kind="AAAA"))) == "address-not-of-tenant"
    run(client.put_traffic(tools.forward(one)))
    run(client.put_dns(tools.name_of("198.51.100.7")))
    theirs = {"tenant": "b", "instance": "two"}
    assert code_of(run, client.put_traffic(tools.forward(two, **theirs))) == "rule-overlaps"
    assert code_of(run, client.put_dns(tools.name_of(two, **theirs))) == "dns-name-taken"
    # Deleting reaches one's own only.
    assert run(client.delete_traffic("b", "r1")) == {"deleted": False}
    assert clean_lab.ask("198.51.100.7", "hello") == "hello \n"
    run(client.put_traffic(tools.forward(two, dst="198.51.100.8", **theirs)))
    run(client.put_dns(tools.name_of(two, name="cam.b.example", **theirs)))
    assert clean_lab.ask("198.51.100.8", "hello") == "hello \n"
    assert code_of(run, client.put_tenant("c", subnet="10.64.0.0/24")) == "subnet-refused"
    assert code_of(run, client.put_tenant("c", subnet="10.65.0.0/24")) == "subnet-refused"


def test_what_an_instance_reaches(clean_lab, image, tools):
    run, client = clean_lab.run, clean_lab.client
    clean_lab.start(image)
    clean_lab.start(image, instance="near")
    clean_lab.start(image, instance="far", tenant="b")
    run(client.put_traffic(tools.forward("10.64.0.2")))
    listener = (
        "import socket,time\n"
        "made=[socket.create_server(('0.0.0.0',port)) for port in (8444,8445)]\n"
        "print('there',flush=True); time.sleep(60)"
    )
    servers = [
        subprocess.Popen(
            ["nsenter", "-t", str(pid), "-n", "/usr/bin/python3", "-c", listener], stdout=subprocess.PIPE, text=True
        )
        for pid in (clean_lab.host.pid, clean_lab.peer.pid)
    ]
    try:
        for server in servers:
            assert server.stdout.readline() == "there\n"

        def call(address, port=80):
            return clean_lab.ask("198.51.100.7", f"call {address} {port}", timeout=2)

        calls = {
            ("10.64.0.3", 80): True,  # its own tenant
            ("10.64.1.2", 80): False,  # another tenant's instance
            (tools.access, tools.service_port): True,  # Mp1
            (tools.access, 8445): False,  # anything else of the host
            ("10.64.0.1", 8445): False,
            ("10.64.1.1", 8445): False,
            ("192.0.2.2", 8445): False,  # out, without a rule
        }
        assert {where: call(*where) == "connected\n" for where in calls} == calls
        out = tools.forward(None, rule="out", action="PASSTHROUGH").model_copy(
            update={"filters": [TrafficFilter(src=["10.64.0.0/24"], dst=["192.0.2.2"], protocol="tcp")]}
        )
        run(client.put_traffic(out))
        assert call("192.0.2.2", 8445) == "connected\n"
        run(client.delete_traffic("a", "out"))
        assert call("192.0.2.2", 8445) != "connected\n"
    finally:
        for server in servers:
            server.kill()
            server.wait()
            server.stdout.close()


@pytest.fixture
def management(clean_lab):
    """A machine at an uplink of the host, which knows the way back; it listens at port 22."""
    listener = (
        "import socket,time\nprint('there',flush=True); input()\n"
        "made=socket.create_server(('0.0.0.0',22)); print('listens',flush=True); time.sleep(60)"
    )
    machine = subprocess.Popen(
        ["unshare", "--net", "/usr/bin/python3", "-c", listener],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert machine.stdout.readline() == "there\n"
        inside = ["nsenter", "-t", str(machine.pid), "-n"]
        link = f"link add uplink type veth peer name eth0 netns {machine.pid}"
        for words in (link, "address add 203.0.113.1/24 dev uplink", "link set uplink up"):
            clean_lab.on_host("ip", *words.split())
        for words in ("address add 203.0.113.2/24 dev eth0", "link set eth0 up", "route add default via 203.0.113.1"):
            subprocess.run([*inside, "ip", *words.split()], check=True)
        machine.stdin.write("go\n")
        machine.stdin.flush()
        assert machine.stdout.readline() == "listens\n"
        yield "203.0.113.2"
    finally:
        machine.kill()
        machine.communicate()


def test_no_rule_opens_the_way_to_the_hosts_uplink(clean_lab, image, tools, management):
    run, client = clean_lab.run, clean_lab.client
    one = clean_lab.start(image)["address"]
    run(client.put_traffic(tools.forward(one)))

    def out(**members):
        wanted = tools.forward(None, rule="out", action="PASSTHROUGH")
        return wanted.model_copy(update={"filters": [TrafficFilter(src=["10.64.0.0/24"], **members)]})

    def call():
        return clean_lab.ask("198.51.100.7", f"call {management} 22", timeout=2)

    assert code_of(run, client.put_traffic(out())) == "rule-too-broad"
    run(client.put_traffic(out(dst=[management])))
    assert call() == "no: Connection timed out\n"
    # The same rule, were this an interface towards the users.
    clean_lab.on_host("nft", "add element inet umec access { uplink }")
    try:
        assert call() == "connected\n"
    finally:
        clean_lab.on_host("nft", "delete element inet umec access { uplink }")
    assert call() == "no: Connection timed out\n"


def test_flow_ends_with_its_rule(clean_lab, image, tools):
    one = clean_lab.start(image)
    clean_lab.run(clean_lab.client.put_traffic(tools.forward(one["address"])))
    code = (
        "import socket,sys\ns=socket.create_connection(('198.51.100.7',80),2); s.settimeout(1)\n"
        "for line in sys.stdin:\n s.sendall(line.encode())\n try: print(s.recv(99).decode().strip(),flush=True)\n"
        " except TimeoutError: print('silence',flush=True)"
    )
    flow = subprocess.Popen(
        ["nsenter", "-t", str(clean_lab.peer.pid), "-n", "/usr/bin/python3", "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def say(word):
        flow.stdin.write(word + "\n")
        flow.stdin.flush()
        return flow.stdout.readline().strip()

    try:
        assert say("first") == "first"
        clean_lab.run(clean_lab.client.delete_traffic("a", "r1"))
        assert say("second") == "silence"
    finally:
        flow.kill()
        flow.communicate()


def test_priorities_and_replacement(clean_lab, image, tools):
    run, client = clean_lab.run, clean_lab.client
    one = clean_lab.start(image)["address"]
    two = clean_lab.start(image, instance="two", env={"WHO": "two"})["address"]
    run(client.put_traffic(tools.forward(one)))
    run(client.put_traffic(tools.forward(None, rule="no", action="DROP", priority=1)))
    assert clean_lab.ask("198.51.100.7", "hello") is None
    run(client.put_traffic(tools.forward(None, rule="no", action="DROP", priority=20)))
    assert clean_lab.ask("198.51.100.7", "hello") == "hello \n"
    run(client.put_traffic(tools.forward(two, instance="two")))
    assert clean_lab.ask("198.51.100.7", "env WHO") == "two\n"
    run(client.put_traffic(tools.forward(two, instance="two", dst="198.51.100.0/25")))
    assert clean_lab.ask("198.51.100.99", "env WHO") == "two\n"


def test_own_address_and_port_of_the_host(clean_lab, image, tools):
    run, client = clean_lab.run, clean_lab.client
    one = clean_lab.start(image)["address"]
    run(client.put_traffic(tools.forward(one, dst=one)))
    assert clean_lab.ask(one, "hello") == "hello \n"
    run(client.put_traffic(tools.forward(None, dst=one, action="PASSTHROUGH")))
    assert clean_lab.ask(one, "hello") == "hello \n"
    run(client.delete_traffic("a", "r1"))
    assert clean_lab.ask(one, "hello") is None


def test_copies(clean_lab, image, tools):
    run, client = clean_lab.run, clean_lab.client
    one = clean_lab.start(image)["address"]
    rule = tools.forward(one, action="DUPLICATE").model_copy(
        update={"filters": [TrafficFilter(dst=["198.51.100.0/24"], protocol="udp")]}
    )
    run(client.put_traffic(rule))

    def received():
        shown = clean_lab.on_host("ip", "-j", "-s", "link", "show", "umv0-2").stdout
        return json.loads(shown)[0]["stats64"]["tx"]["packets"]

    clean_lab.on_client("/usr/bin/python3", "-c", "import socket\nsocket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b'x',('198.51.100.9',9))")  # fmt: skip  # noqa: E501
    time.sleep(0.2)
    before = received()
    send = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor n in range(20): s.sendto(b'x',('198.51.100.9',9))"  # noqa: E501
    clean_lab.on_client("/usr/bin/python3", "-c", send)
    time.sleep(0.2)
    assert received() - before >= 20


def test_synchronisation(clean_lab, image, tools):
    run, client = clean_lab.run, clean_lab.client
    one = clean_lab.start(image)["address"]
    tenants = [Tenant(tenant="a"), Tenant(tenant="b")]
    rules = [tools.forward(one), tools.forward("10.64.1.9", rule="bad"), tools.forward(one, rule="same")]
    names = [tools.name_of("198.51.100.7"), tools.name_of("10.64.1.9", rule="bad", name="x.a.example")]
    told = run(client.sync(tenants=tenants, traffic=rules, dns=names))
    assert (told["traffic"], told["dns"], told["in_force"]) == (1, 1, True)
    assert [(no["kind"], no["id"], no["code"]) for no in told["refused"]] == [
        ("traffic", "bad", "address-not-of-tenant"),
        ("traffic", "same", "rule-overlaps"),
        ("dns", "bad", "address-not-of-tenant"),
    ]
    assert clean_lab.ask("198.51.100.7", "hello") == "hello \n"
    assert clean_lab.dig("cam.a.example") == ("NOERROR", ["198.51.100.7"])
    run(client.sync(tenants=tenants, traffic=[], dns=[]))
    assert clean_lab.ask("198.51.100.7", "hello") is None
    assert clean_lab.dig("cam.a.example") == ("NXDOMAIN", [])
    assert len(run(client.status())["instances"]) == 1
    run(client.sync(tenants=[Tenant(tenant="b")], traffic=[], dns=[]))
    after = run(client.status())
    assert ([one["tenant"] for one in after["tenants"]], after["instances"]) == (["b"], [])


def test_instance_that_ends_by_itself(clean_lab, image):
    clean_lab.start(image, args=["/probe"])
    assert code_of(clean_lab.start, image, instance="none", args=["/nothing-here"]) == "runtime-failed"
    assert not (clean_lab.state / "instances" / "none").exists()
    one = clean_lab.run(clean_lab.client.status())["instances"]
    assert [(entry["instance"], entry["running"]) for entry in one] == [("one", True)]
    assert clean_lab.run(clean_lab.client.instance_log("one", lines=5))["text"] == "probe listens\n"
    kept = clean_lab.state / "logs" / "one.log"
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    netd = clean_lab.netd_pid()
    children = Path(f"/proc/{netd}/task/{netd}/children").read_text().split()
    inside = f"\t{one[0]['pid']}\t"
    [pid] = [int(child) for child in children if inside in Path(f"/proc/{child}/status").read_text()]
    os.kill(pid, 9)
    deadline = time.monotonic() + 60
    while clean_lab.run(clean_lab.client.status())["instances"][0]["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_limits_and_isolation(clean_lab, image):
    if not clean_lab.run(clean_lab.client.status())["limits"]:
        pytest.fail("this host gives no control groups to real root: netd must say so, and the limits are untested")
    clean_lab.start(image, limits={"memory_mib": 16, "pids": 7})
    assert "7\n" in limits_in_force()


def test_limits_of_two_hosts_on_one_machine_do_not_meet(clean_lab, lab, image):
    for one, most in ((clean_lab, 11), (lab, 13)):
        one.start(image, limits={"pids": most})
    assert {"11\n", "13\n"} <= limits_in_force()


def limits_in_force():
    """How many processes an instance `one` may have, on each of the hosts that run here now."""
    groups = Path("/sys/fs/cgroup")
    found = set()
    for path in (*groups.glob("pids/umec-*/one/pids.max"), *groups.glob("umec-*/one/pids.max")):
        with contextlib.suppress(OSError):  # of another test, which ends meanwhile
            found.add(path.read_text())
    return found


def test_many_at_once(clean_lab, image):
    def start(number):
        return clean_lab.start(image, instance=f"i{number}")["address"]

    with ThreadPoolExecutor(4) as pool:
        addresses = list(pool.map(start, range(4)))
    assert sorted(addresses) == [f"10.64.0.{number}" for number in range(2, 6)]


def test_log_names_who_did_what_and_no_secret(clean_lab, image):
    clean_lab.start(image, instance="told", secrets={"client.json": "c2VjcmV0LXZhbHVl"})
    told = clean_lab.told()  # the line is written before the answer; another may be half written
    lines = [json.loads(line) for line in told.splitlines(keepends=True) if line.endswith("}\n")]
    [done] = [line for line in lines if line.get("op") == "instance.start" and line.get("instance") == "told"]
    assert (done["uid"], done["outcome"], done["tenant"]) == (0, "done", "a")
    assert "c2VjcmV0" not in told
