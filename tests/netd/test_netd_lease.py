"""Rules are leases: they end with silence, with a fallen standing, and nothing older brings them back."""

import os
import time

import pytest

from umec_core.clock import system_clock
from umec_core.errors import UmecError


def code_of(action, *args, **kwargs):
    with pytest.raises(UmecError) as refused:
        action(*args, **kwargs)
    return refused.value.code


@pytest.fixture
def brief_lab(tmp_path, tools):
    """A host whose leases last two seconds."""
    made = tools.Lab(tmp_path, tools.Keys(), lease=2)
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
    # Nor does a statement from before the lease's time help.
    assert brief_lab.stand(iat=system_clock().timestamp() - 3)["in_force"] is False
    brief_lab.stand()
    one = brief_lab.start(image)["address"]
    run(client.put_traffic(tools.forward(one)))
    run(client.put_dns(tools.name_of(one)))
    assert brief_lab.stand(None)["in_force"] is True
    assert brief_lab.ask("198.51.100.7", "hello") == "hello \n"
    assert brief_lab.dig("cam.a.example") == ("NOERROR", [one])
    time.sleep(2.3)
    status = run(client.status())
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
