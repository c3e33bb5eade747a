"""Every refusal of a running netd that depends on what it holds, beside the same request where that is otherwise."""

import asyncio
import os
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_core.jose import KeySet
from umec_platform.netd.errors import ResolverFailed
from umec_platform.netd.instances import Instances
from umec_platform.netd.leases import LeaseTerms
from umec_platform.netd.messages import Tenant
from umec_platform.netd.resolver import Record, Resolver
from umec_platform.netd.rulebook import RuleBook
from umec_platform.netd.server import listen
from umec_platform.netd.service import NetdService
from umec_platform.netd.settings import NetdSettings
from umec_platform.netd.state import NameBook, TenantNetwork, TenantNetworks, Wanted

TENANTS = [Tenant(tenant="a"), Tenant(tenant="b")]


def code_of(ask, *args, **kwargs):
    with pytest.raises(UmecError) as refused:
        ask(*args, **kwargs)
    return refused.value.code


def large(tools, folder, probe):
    """An image that takes a moment to unpack."""
    return tools.Image(folder / "large", [tools.tar_of(("probe", probe)), tools.tar_of(("pad", os.urandom(48 << 20)))])


async def unpacking(lab, name):
    while not (lab.state / "instances" / name).exists():  # noqa: ASYNC110 - a folder has no event
        await asyncio.sleep(0.005)


def test_what_is_refused_of_instances(lab, image, tools, tmp_path, probe):
    run, client = lab.run, lab.client
    assert code_of(lab.start, image, tenant="c", repository="c/probe") == "tenant-unknown"
    first = lab.start(image)
    assert code_of(lab.start, image) == "instance-exists"
    assert [one["pid"] for one in run(client.status())["instances"]] == [first["pid"]]
    slow = large(tools, tmp_path, probe)

    async def twice():
        start = asyncio.create_task(client.start_instance(lab.spec(slow, instance="two")))
        await unpacking(lab, "two")
        with pytest.raises(UmecError) as refused:
            await client.start_instance(lab.spec(slow, instance="two"))
        return refused.value.code, (await start)["instance"]

    assert run(twice()) == ("instance-exists", "two")
    assert (run(client.stop_instance("none")), run(client.stop_instance("two"))) == (
        {"stopped": False},
        {"stopped": True},
    )
    lab.stand("degraded")
    image.path(image.layers[0]).rename(tmp_path / "layer")
    # A node that may start nothing does not even look at the image.
    assert code_of(lab.start, image, instance="three") == "standing-degraded"
    lab.stand("trusted")
    assert code_of(lab.start, image, instance="three") == "layer-digest"

    async def falls():
        start = asyncio.create_task(client.start_instance(lab.spec(slow, instance="four")))
        await unpacking(lab, "four")
        await client.standing(lab.keys.statement("degraded"))
        with pytest.raises(UmecError) as refused:
            await start
        return refused.value.code

    assert run(falls()) == "standing-degraded"
    assert [one["instance"] for one in run(client.status())["instances"]] == ["one"]


def test_what_is_refused_of_rules_and_names(lab, image, tools):
    run, client = lab.run, lab.client
    own, foreign = lab.start(image)["address"], "address-not-of-tenant"
    two = lab.start(image, instance="two", tenant="b", repository="b/probe")["address"]
    rule, name = tools.forward(own), tools.name_of(own)
    assert code_of(run, client.put_traffic(tools.forward(own, tenant="c", instance="new"))) == "tenant-unknown"
    assert code_of(run, client.put_dns(tools.name_of(own, tenant="c", instance="new"))) == "tenant-unknown"
    assert code_of(run, client.put_traffic(tools.forward(two))) == foreign
    assert code_of(run, client.put_traffic(tools.forward(own, instance="two"))) == foreign
    assert code_of(run, client.put_dns(tools.name_of(two))) == foreign
    assert code_of(run, client.put_dns(tools.name_of(own, instance="two"))) == foreign
    run(client.put_traffic(rule))
    run(client.put_dns(name))
    taken = {"rule": "r2", "tenant": "b", "instance": "two"}
    assert code_of(run, client.put_traffic(tools.forward(two, **taken))) == "rule-overlaps"
    assert code_of(run, client.put_dns(tools.name_of(two, **taken))) == "dns-name-taken"
    for delete, known in ((client.delete_traffic, "r1"), (client.delete_dns, "d1")):
        assert run(delete("a", "none")) == {"deleted": False}
        assert run(delete("b", known)) == {"deleted": False}
        assert run(delete("a", known)) == {"deleted": True}
    # The same as one state: what is refused is listed, and the rest is in force.
    wrong_rules = [
        tools.forward(two, rule="r3"),
        tools.forward(own, rule="r4", instance="two"),
        tools.forward(two, **taken),
    ]
    wrong_names = [
        tools.name_of(two, rule="d3"),
        tools.name_of(own, rule="d4", instance="two"),
        tools.name_of(two, **taken),
    ]
    told = run(client.sync(tenants=TENANTS, traffic=[rule, *wrong_rules], dns=[name, *wrong_names]))
    assert sorted((one["id"], one["code"]) for one in told["refused"]) == [
        ("d3", foreign),
        ("d4", foreign),
        ("r2", "dns-name-taken"),
        ("r2", "rule-overlaps"),
        ("r3", foreign),
        ("r4", foreign),
    ]
    assert (told["traffic"], told["dns"]) == (1, 1)
    assert lab.ask("198.51.100.7", "hello") == "hello \n"
    assert lab.dig("cam.a.example") == ("NOERROR", [own])
    run(client.sync(tenants=TENANTS, traffic=[], dns=[]))
    assert lab.ask("198.51.100.7", "hello") is None
    assert lab.dig("cam.a.example") == ("NXDOMAIN", [])


def test_a_silent_node_gets_nothing_new_also_as_a_whole(lab, image, tools):
    run, client = lab.run, lab.client
    own = lab.start(image)["address"]
    rule, name = tools.forward(own), tools.name_of(own)
    run(client.sync(tenants=TENANTS, traffic=[rule], dns=[name]))
    assert lab.stand("lapsed")["in_force"] is True
    new_rule, new_name = tools.forward(own, dst="198.51.100.8"), tools.name_of(own, name="two.a.example")
    assert code_of(run, client.put_traffic(new_rule)) == "standing-lapsed"
    assert code_of(run, client.put_dns(new_name)) == "standing-lapsed"
    assert run(client.sync(tenants=TENANTS, traffic=[rule], dns=[name]))["refused"] == []
    told = run(client.sync(tenants=TENANTS, traffic=[new_rule], dns=[new_name]))
    assert [one["code"] for one in told["refused"]] == ["standing-lapsed"] * 2
    lab.stand("trusted")
    assert run(client.sync(tenants=TENANTS, traffic=[new_rule], dns=[new_name]))["refused"] == []


def settings(folder, **changes):
    key = generate_private_key(SECP256R1()).public_key()
    fields = {
        "state": folder,
        "terms": LeaseTerms("pole-7", KeySet([key]), "https://site.example/attest/v1"),
        "decision_keys": KeySet([key]),
        "decision_issuer": "https://site.example/platform/v1",
        "access": ("lo",),
        "access_address": IPv4Interface("10.64.0.1/24"),
        "pool": IPv4Network("10.64.0.0/16"),
    }
    return NetdSettings(**{**fields, **changes})


def test_the_hosts_own_address_is_no_tenants(tmp_path):
    inside = NetdService(settings(tmp_path), system_clock, None)
    assert code_of(asyncio.run, inside.open()) == "subnet-refused"
    outside = NetdService(settings(tmp_path, access_address=IPv4Interface("192.0.2.1/24")), system_clock, None)
    assert code_of(asyncio.run, outside.open()) == "link-failed"  # this machine has not that address


def test_somebody_may_speak_to_netd(tmp_path):
    async def scenario(allowed):
        service = NetdService(settings(tmp_path), system_clock, None)
        async with listen(service, tmp_path / "netd.sock", allowed=allowed):
            return (tmp_path / "netd.sock").exists()

    assert code_of(asyncio.run, scenario([])) == "peer-refused"
    assert asyncio.run(scenario([0])) is True


def test_a_subnet_has_253_addresses():
    network = TenantNetwork("a", 0, IPv4Network("10.64.0.0/24"))
    wanted = Wanted(TenantNetworks(IPv4Network("10.64.0.0/16")), RuleBook(), NameBook(), {})
    instances = Instances(None, wanted, None, None, containers=None, rules=None, clock=None)
    for number in range(253):
        address = instances._free_address(network)
        assert address == IPv4Address(f"10.64.0.{number + 2}")
        wanted.instances[str(number)] = SimpleNamespace(address=address)
    assert code_of(instances._free_address, network) == "subnet-refused"


class Control:
    """The control socket of a resolver that answers as it is told."""

    def __init__(self, folder, answer):
        self.path, self.answer, self.over = folder / "control", answer, asyncio.Event()

    async def __aenter__(self):
        self.server = await asyncio.start_unix_server(self.serve, self.path)
        return self

    async def __aexit__(self, *_):
        async with asyncio.timeout(5):
            await self.over.wait()  # a client that does not close is a fault
        self.server.close()

    async def serve(self, reader, writer):
        await reader.readline()
        writer.write(self.answer)
        writer.write_eof()
        await reader.read()  # until the other end has closed
        writer.close()
        self.over.set()


@pytest.mark.parametrize(
    ("answer", "one", "many"),
    [(b"ok\n", True, False), (b"added 1 datas\n", False, True), (b"error\n", False, False), (b"", False, False)],
)
def test_what_a_resolver_says_to_a_change(tmp_path, answer, one, many):
    record = Record("cam.a.example", "A", "10.64.0.2", 5)

    async def tells(ask):
        async with Control(tmp_path, answer):
            try:
                await ask(Resolver(tmp_path, IPv4Address("127.0.0.1")))
            except ResolverFailed:
                return False
            return True

    assert asyncio.run(tells(lambda resolver: resolver.put(record))) is one
    assert asyncio.run(tells(lambda resolver: resolver.replace([record]))) is many


def test_a_resolver_that_is_not_there_or_does_not_answer(tmp_path):
    async def look():
        resolver = Resolver(tmp_path, IPv4Address("127.0.0.1"))
        found = [await resolver._answers()]
        (tmp_path / "control").touch()
        found.append(await resolver._answers())
        (tmp_path / "control").unlink()
        async with Control(tmp_path, b"version: 1\n"):
            found.append(await resolver._answers())
        return found

    assert asyncio.run(look()) == [False, False, True]


def test_a_resolver_that_does_not_start_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    async def start():
        resolver = Resolver(tmp_path / "unbound", IPv4Address("127.0.0.1"))
        try:
            await resolver.start()
        finally:
            await resolver.stop()

    assert code_of(asyncio.run, start()) == "resolver-failed"
