"""Log lines: one JSON object each, ours and those of libraries, and nothing of libraries below a warning."""

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from umec_core.telemetry import configure_logging
configure_logging(json=True)
structlog.get_logger("umec.test").info("hello", node="node-1")
logging.getLogger("uvicorn.error").info("too much")
logging.getLogger("uvicorn.error").warning("a library %s", "warns")
try:
    raise ValueError("deep inside")
except ValueError:
    structlog.get_logger("umec.test").exception("failed")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran


def test_every_line_is_json() -> None:
    ran = run(PROGRAM)
    assert ran.stdout == ""
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["hello", "a library warns", "failed"]
    assert lines[0]["node"] == "node-1"
    assert lines[0]["timestamp"].endswith("Z")
    assert "deep inside" in lines[2]["exception"]


def test_a_readable_trace_shows_no_local_variables() -> None:
    program = """
import structlog
from umec_core.telemetry import configure_logging
configure_logging(json=False)
try:
    secret = "hunter" + str(2)
    raise ValueError("deep inside")
except ValueError:
    structlog.get_logger("umec.test").exception("failed")
"""
    ran = run(program)
    assert "deep inside" in ran.stderr
    assert "hunter2" not in ran.stderr
