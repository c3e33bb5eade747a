"""Starts of instances are measured into the node's TPM before they take place; where they are not, there is none."""

import asyncio
import contextlib
import threading
from datetime import UTC, datetime

import pytest

from umec_attest.agent.control import serve_control
from umec_attest.agent.loop import Agent
from umec_attest.agent.start_log import START_LOG
from umec_attest.agent.state import NodeState
from umec_attest.agent.tpm import Tpm
from umec_attest.starts.entry import extended, parse_start
from umec_attest.testing.swtpm import SoftwareTpm
from umec_core.errors import UmecError

NODE = "pole-7"


@pytest.fixture(scope="module")
def software_tpm():
    with SoftwareTpm() as tpm:
        yield tpm


@contextlib.contextmanager
def agent(folder, device, node=NODE):
    """The agent of an enrolled node, which answers at its socket in the meantime."""
    ready, ended = threading.Event(), threading.Event()

    async def serve():
        with Tpm(device.tcti) as tpm:
            ak = tpm.create_attestation_key()
            now = datetime.now(UTC)  # noqa: TID251 - of keys that were made now
            state = NodeState(node, "https://site.example:8443", "", device.tcti, b"ek", ak, ak, now)
            served = Agent(state, tpm, directory=folder)
            async with serve_control(served, folder):
                ready.set()
                await asyncio.to_thread(ended.wait)
            await served.close()

    serving = threading.Thread(target=asyncio.run, args=(serve(),))
    serving.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        ended.set()
        serving.join(30)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "agent"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def measured(tmp_path, tools, folder):
    """A host whose starts the agent of `folder` measures."""
    keys = tools.Keys()
    (tmp_path / "host").mkdir()
    lab = tools.Lab(tmp_path / "host", keys, agent=folder)
    try:
        lab.stand()
        for tenant in ("a", "b"):
            lab.run(lab.client.put_tenant(tenant))
        yield lab
    finally:
        lab.stop()
        lab.close()


def code_of(ask, *args, **kwargs):
    with pytest.raises(UmecError) as refused:
        ask(*args, **kwargs)
    return refused.value.code


def log(folder):
    path = folder / START_LOG
    return [parse_start(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def running(lab):
    return [one["instance"] for one in lab.run(lab.client.status())["instances"] if one["running"]]


def test_each_start_is_measured_and_without_that_there_is_none(measured, image, folder, software_tpm):
    lab = measured
    assert code_of(lab.start, image) == "start-unmeasured"  # no agent answers
    assert (running(lab), log(folder)) == ([], [])
    with agent(folder, software_tpm):
        lab.start(image)
        assert running(lab) == ["one"]
        lab.start(image, instance="two", tenant="b", repository="b/probe")
        lab.run(lab.client.stop_instance("one"))
        lab.start(image)
        told = [(entry.node, entry.tenant, entry.instance, entry.image) for entry in log(folder)]
        assert told == [
            (NODE, "a", "one", image.digest),
            (NODE, "b", "two", image.digest),
            (NODE, "a", "one", image.digest),
        ]
        value = bytes(32)
        for line in (folder / START_LOG).read_bytes().splitlines():
            value = extended(value, line)
        with Tpm(software_tpm.tcti) as tpm:
            assert tpm.read_pcrs([15])[15] == value
        # what is refused before is not measured
        assert code_of(lab.start, image, instance="three", claims={"node": "pole-8"}) == "decision-node"
        assert code_of(lab.start, image) == "instance-exists"
        assert len(log(folder)) == 3
    assert code_of(lab.start, image, instance="three") == "start-unmeasured"
    assert running(lab) == ["two", "one"]


def test_what_the_agent_refuses_does_not_start(measured, image, folder, software_tpm):
    software_tpm.power_cycle()
    with agent(folder, software_tpm, node="pole-8"):  # of another node than netd's
        assert code_of(measured.start, image) == "start-unmeasured"
        assert (running(measured), log(folder)) == ([], [])
    with agent(folder, software_tpm):
        measured.start(image)
        assert running(measured) == ["one"]
