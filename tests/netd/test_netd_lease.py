"""Rules are leases: they end with silence, with a fallen standing, and nothing older brings them back."""

import asyncio
import os
import signal
import time

import pytest

from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_platform.netd.messages import Tenant


def code_of(action, *args, **kwargs):
    with pytest.raises(UmecError) as refused:
        action(*args, **kwargs)
    return refused.value.code


@pytest.fixture
def brief_lab(tmp_path, tools):
    """A host whose leases last some seconds: enough for what a test does in one, on a slow machine."""
    made = tools.Lab(tmp_path, tools.Keys(), lease=6)
    try:
        yield made
    finally:
        made.stop()
        made.close()


def test_silence_ends_the_lease(brief_lab, image, tools):
    run, client = brief_lab.run, brief_lab.client
    run(client.put_tenant("a"))
    # Before anybody has spoken for the node nothing is done.
    assert code_of(brief_lab.start, image) == "lease-expired"
    brief_lab.stand()
    one = brief_lab.start(image)["address"]
    brief_lab.stand(None)
    run(client.put_traffic(tools.forward(one)))
    run(client.put_dns(tools.name_of(one)))
    assert brief_lab.stand(None)["in_force"] is True
    assert brief_lab.ask("198.51.100.7", "hello") == "hello \n"
    assert brief_lab.dig("cam.a.example") == ("NOERROR", [one])
    deadline = time.monotonic() + 60
    while (status := run(client.status()))["in_force"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (status["in_force"], status["standing"], status["traffic"]) == (False, "trusted", 1)
    assert brief_lab.ask("198.51.100.7", "hello") is None
    assert brief_lab.dig("cam.a.example") == ("NXDOMAIN", [])
    assert code_of(run, client.put_traffic(tools.forward(one, rule="r2"))) == "lease-expired"
    assert code_of(run, client.put_dns(tools.name_of(one, rule="d2"))) == "lease-expired"
    assert code_of(brief_lab.start, image, instance="two") == "lease-expired"
    # What is taken away stays so, even while nothing is in force.
    run(client.delete_dns("a", "d1"))
    # A statement with no news renews it.
    assert brief_lab.stand(None)["in_force"] is True
    assert brief_lab.ask("198.51.100.7", "hello") == "hello \n"
    assert brief_lab.dig("cam.a.example") == ("NXDOMAIN", [])


def test_an_old_statement_renews_nothing_at_a_netd_that_remembers_nothing(brief_lab):
    old = brief_lab.keys.statement("trusted", iat=system_clock().timestamp() - 7)
    assert code_of(brief_lab.run, brief_lab.client.standing(old)) == "standing-stale"
    assert brief_lab.run(brief_lab.client.status())["standing"] is None
    assert brief_lab.stand(after=0)["in_force"] is True


def test_a_silent_node_keeps_its_rules_until_the_lease_ends_and_gets_nothing_new(tmp_path, image, tools):
    lab = tools.Lab(tmp_path, tools.Keys(), lease=10)
    run, client = lab.run, lab.client
    try:
        # A node of which nothing good was ever said has nothing to keep.
        assert lab.stand("lapsed")["in_force"] is False
        lab.stand()
        run(client.put_tenant("a"))
        one = lab.start(image)["address"]
        rule, name = tools.forward(one), tools.name_of(one)
        run(client.put_traffic(rule))
        run(client.put_dns(name))
        ends = lab.stand(None)["lease_ends"]
        told = lab.stand("lapsed")
        assert (told["in_force"], told["standing"], told["lease_ends"]) == (True, "lapsed", ends)
        assert lab.ask("198.51.100.7", "hello") == "hello \n"
        new = (tools.forward(one, rule="r2", dst="198.51.100.8"), tools.name_of(one, rule="d2", name="two.a.example"))
        assert code_of(run, client.put_traffic(new[0])) == "standing-lapsed"
        assert code_of(run, client.put_dns(new[1])) == "standing-lapsed"
        assert code_of(lab.start, image, instance="two") == "standing-lapsed"
        # The whole state of a platform brings nothing new either, and keeps what is there.
        wanted = {"tenants": [Tenant(tenant="a")], "traffic": [rule, new[0]], "dns": [name, new[1]]}
        told = run(client.sync(**wanted, instances=["one"]))
        assert {one["code"] for one in told["refused"]} == {"standing-lapsed"}
        assert (told["traffic"], told["dns"], told["in_force"]) == (1, 1, True)
        assert lab.ask("198.51.100.7", "hello") == "hello \n"
        assert lab.ask("198.51.100.8", "hello") is None
        # To hear again that it is silent renews nothing.
        deadline = time.monotonic() + 60
        while lab.stand(None)["in_force"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert lab.ask("198.51.100.7", "hello") is None
        assert lab.dig("cam.a.example") == ("NXDOMAIN", [])
        lab.stand("trusted")
        assert run(client.sync(**wanted, instances=["one"]))["refused"] == []
        assert lab.ask("198.51.100.8", "hello") == "hello \n"
        # What has fallen and is silent then has no lease to keep.
        lab.stand("untrusted")
        assert lab.stand("lapsed")["in_force"] is False
    finally:
        lab.stop()
        lab.close()


def test_what_is_in_force_by_half_is_tried_again_until_all_of_it_holds(lab, image, tools):
    run, client = lab.run, lab.client
    one = lab.start(image)["address"]
    run(client.put_traffic(tools.forward(one)))
    run(client.put_dns(tools.name_of(one)))
    lab.stand("untrusted")
    os.kill(lab.resolver(), signal.SIGKILL)
    assert code_of(lab.stand, "trusted") == "resolver-failed"
    assert run(client.status())["in_force"] is False
    deadline = time.monotonic() + 60
    while not run(client.status())["in_force"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert lab.dig("cam.a.example") == ("NOERROR", [one])
    assert lab.ask("198.51.100.7", "hello") == "hello \n"


def test_a_name_that_could_not_be_changed_stays_what_it_was(lab, image, tools):
    run, client = lab.run, lab.client
    one, two = lab.start(image)["address"], lab.start(image, instance="two")["address"]
    run(client.put_dns(tools.name_of(one)))
    for changed in (tools.name_of(two), tools.name_of(two, name="other.a.example")):
        os.kill(lab.resolver(), signal.SIGKILL)
        assert code_of(run, client.put_dns(changed)) == "resolver-failed"
        deadline = time.monotonic() + 60
        while not run(client.status())["in_force"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert lab.dig("cam.a.example") == ("NOERROR", [one])
        assert lab.dig("other.a.example") == ("NXDOMAIN", [])
    run(client.put_dns(changed))
    assert lab.dig("other.a.example") == ("NOERROR", [two])
    assert lab.dig("cam.a.example") == ("NXDOMAIN", [])


@pytest.mark.parametrize("end", ["stop", "sync", None])
def test_a_start_that_was_stopped_meanwhile_comes_to_nothing(lab, tmp_path, probe, tools, end):
    # An image that takes a moment to unpack.
    padding = tools.tar_of(("padding", os.urandom(48 * 1024 * 1024)))
    image = tools.Image(tmp_path / "large", [tools.tar_of(("probe", probe)), padding])

    async def scenario():
        start = asyncio.create_task(lab.client.start_instance(lab.spec(image)))
        while not (lab.state / "instances" / "one").exists():
            assert not start.done()
            await asyncio.sleep(0.005)
        if end == "stop":
            assert (await lab.client.stop_instance("one"))["stopped"]
        elif end == "sync":
            tenants = [Tenant(tenant=name) for name in ("a", "b")]
            await lab.client.sync(tenants=tenants, traffic=[], dns=[], instances=[])
        return await start

    if end is None:
        assert lab.run(scenario())["address"]
        return
    assert code_of(lab.run, scenario()) == "instance-stopped"
    assert lab.run(lab.client.status())["instances"] == []
    assert not (lab.state / "instances" / "one").exists()


def test_statements_that_do_not_count(lab, image, tools):
    keys, run, client = lab.keys, lab.run, lab.client
    one = lab.start(image)["address"]
    run(client.put_traffic(tools.forward(one)))
    old_good = keys.statement(None, iat=system_clock().timestamp() - 1)
    fallen = {"standing": "untrusted", "after": keys.seq}

    def refused(**changes):
        seq = keys.seq
        code = code_of(run, client.standing(keys.statement(**changes)))
        keys.seq = seq
        return code

    # Forged: to fell the node, or to keep it.
    assert refused(**fallen, key=keys.platform) == "standing-invalid"
    assert refused(**fallen, iss="https://elsewhere.example") == "standing-invalid"
    assert refused(**fallen, node="pole-8") == "standing-invalid"
    assert refused(**fallen, iat=system_clock().timestamp() + 60) == "standing-invalid"
    assert refused(standing="untrusted", after=keys.seq + 5, last=keys.seq + 9, standings=[]) == "standing-rollback"
    assert lab.ask("198.51.100.7", "hello") == "hello \n"
    # Rolled back: the newest that was seen counts.
    good_before = keys.statement(None)
    assert lab.stand("quarantined")["in_force"] is False
    for older in (old_good, good_before):
        assert code_of(run, client.standing(older)) == "standing-rollback"
    assert run(client.status())["standing"] == "quarantined"
    assert lab.ask("198.51.100.7", "hello") is None
    # The platform cannot renew it by what it says alone.
    assert lab.stand(None)["in_force"] is False
    assert lab.stand("trusted")["in_force"] is True
    assert lab.ask("198.51.100.7", "hello") == "hello \n"


def test_killed_netd_leaves_nothing_to_its_successor(tmp_path, image, tools):
    keys = tools.Keys()
    first = tools.Lab(tmp_path, keys)
    network = os.open(f"/proc/{first.host.pid}/ns/net", os.O_RDONLY)
    try:
        first.stand()
        first.run(first.client.put_tenant("a"))
        one = first.start(image, secrets={"client.json": "eyJ4IjoxfQ=="})["address"]
        first.run(first.client.put_traffic(tools.forward(one)))
        good = keys.statement(None)
        first.stand("untrusted")
        first.host.kill()
        first.host.wait()
        assert (first.state / "instances" / "one").exists()
        second = tools.Lab(tmp_path, keys, network=network)
        try:
            status = second.run(second.client.status())
            assert (status["in_force"], status["standing"], status["tenants"]) == (False, None, [])
            assert not (second.state / "instances" / "one").exists()
            assert "umb0" not in second.on_host("ip", "-o", "link").stdout
            assert code_of(second.run, second.client.standing(good)) == "standing-rollback"
            assert second.stand("trusted", after=0)["in_force"] is True
            second.run(second.client.put_tenant("a"))
            assert second.start(image)["address"] == one
        finally:
            second.stop()
            second.close()
    finally:
        os.close(network)
        first.close()


def test_kept_standing_that_was_changed(tmp_path, tools):
    (tmp_path / "state").mkdir()
    kept = tmp_path / "state" / "standing.json"
    kept.write_text('{"issued_at": "never", "last": 0}')
    kept.chmod(0o600)
    with pytest.raises(AssertionError, match="netd-failed"):
        tools.Lab(tmp_path, tools.Keys())
    kept.unlink()
    lab = tools.Lab(tmp_path, tools.Keys())
    lab.stop()
    lab.close()


def test_one_netd_for_each_network(lab, tools, tmp_path):
    network = os.open(f"/proc/{lab.host.pid}/ns/net", os.O_RDONLY)
    (tmp_path / "second").mkdir()
    try:
        with pytest.raises(AssertionError, match="netd-running"):
            tools.Lab(tmp_path / "second", lab.keys, network=network)
    finally:
        os.close(network)
    assert lab.run(lab.client.status())["in_force"]
