"""Logs of instances: bounded whatever is written, harmless on a terminal, and gone when nobody wants the instance."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umec_core.errors import UmecError
from umec_platform.netd.logs import HALF, MAX_TEXT, LogBook
from umec_platform.netd.messages import InstanceLog, Tenant


def test_a_log_stays_bounded_and_keeps_its_end(tmp_path):
    log = LogBook(tmp_path / "logs").of("one")
    for number in range(3000):
        log.append(f"{number:06d} {'x' * 992}\n".encode())
    sizes = [path.stat().st_size for path in (tmp_path / "logs").iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) <= 2 * (HALF + 1000)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "logs").iterdir())
    assert log.tail(2).splitlines()[-1].startswith("002999 ")
    assert len(log.tail(2).splitlines()) == 2
    assert len(log.tail(1000)) <= MAX_TEXT + 1


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path):
    log = LogBook(tmp_path / "logs").of("one")
    (tmp_path / "logs" / "one.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        log.append(b"x\n")
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "logs" / "one.log").unlink()
    log.append(b"x\n")
    assert log.tail(1) == "x\n"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.integers(min_value=1, max_value=20))
def test_any_octets_give_text_that_commands_no_terminal(data, lines):
    with tempfile.TemporaryDirectory() as folder:
        log = LogBook(Path(folder)).of("one")
        log.append(data)
        text = log.tail(lines)
    assert len(text.split("\n")) - 1 <= lines
    assert not any(one in text for one in "\x1b\r\x00\x07\x9b\u202e")
    assert InstanceLog(id="1", instance="one", lines=lines).model_dump_json()
    text.encode()


def test_logs_outlive_their_instance_until_it_is_not_wanted(clean_lab, image):
    run, client = clean_lab.run, clean_lab.client
    assert run(client.instance_log("one", lines=10))["text"] == ""
    with pytest.raises(UmecError, match="lines"):
        run(client.call(InstanceLog.model_construct(op="instance.log", id="1", instance="one", lines=10**6)))
    for _ in range(2):
        clean_lab.start(image, args=["/probe"])
        run(client.stop_instance("one"))
    assert run(client.instance_log("one", lines=10))["text"] == "probe listens\n" * 2
    tenants = [Tenant(tenant=name) for name in ("a", "b")]
    run(client.sync(tenants=tenants, traffic=[], dns=[], instances=["one"]))
    assert run(client.instance_log("one", lines=1))["text"] == "probe listens\n"
    run(client.sync(tenants=tenants, traffic=[], dns=[], instances=[]))
    assert run(client.instance_log("one", lines=10))["text"] == ""
