"""A node carries no server: neither the agent nor its commands load a web framework, a database or a policy engine."""

import subprocess
import sys

import pytest

AGENT = (
    "umec_attest.agent.__main__",
    "umec_attest.agent.control",
    "umec_attest.agent.enrol",
    "umec_attest.agent.errors",
    "umec_attest.agent.evidence",
    "umec_attest.agent.loop",
    "umec_attest.agent.platform_client",
    "umec_attest.agent.proof",
    "umec_attest.agent.session",
    "umec_attest.agent.state",
    "umec_attest.agent.ticket",
    "umec_attest.agent.tls",
    "umec_attest.agent.tpm",
    "umec_attest.agent.wire",
)
COMMANDS = ("umec_platform.cli.node", *AGENT)
FOR_PEOPLE = {"click", "httpx", "pydantic", "pygments", "rich", "structlog", "typer"}
"""Each of them weighs megabytes, and the agent is on every node."""
SERVER = {
    "aiosqlite",
    "alembic",
    "asyncpg",
    "authlib",
    "cedarpy",
    "fastapi",
    "prometheus_client",
    "pyroute2",
    "sigstore",
    "sqlalchemy",
    "starlette",
    "uvicorn",
}
HARNESS = {"umec_attest.bootlog", "umec_attest.predict", "umec_attest.service", "umec_attest.testing"}


def loaded_by(module: str) -> set[str]:
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(chr(10).join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(said.stdout.split())


def roots(modules: str) -> set[str]:
    return {name.split(".")[0] for name in loaded_by(modules)}


@pytest.mark.parametrize("modules", [AGENT, COMMANDS])
def test_the_agent_loads_no_server(modules: tuple[str, ...]) -> None:
    loaded = loaded_by(", ".join(modules))
    assert set(modules) <= loaded
    assert not {name for name in loaded if name.split(".")[0] in SERVER}
    assert not {name for name in loaded for part in HARNESS if name == part or name.startswith(f"{part}.")}


def test_the_agent_loads_nothing_that_is_for_people() -> None:
    assert not roots("umec_attest.agent.__main__") & FOR_PEOPLE
    assert roots("umec_platform.cli.node, httpx, pydantic, structlog") >= FOR_PEOPLE


def test_the_harness_knows_nothing_of_prediction() -> None:
    loaded = loaded_by("umec_attest.testing.adversary, umec_attest.testing.firmware, umec_attest.testing.image")
    assert "umec_attest.testing.firmware" in loaded
    judges = {"umec_attest.bootlog", "umec_attest.predict", "umec_attest.quote", "umec_attest.digests"}
    assert not {name for name in loaded for part in judges if name == part or name.startswith(f"{part}.")}


def test_the_check_notices_a_server() -> None:
    assert {name.split(".")[0] for name in loaded_by("fastapi")} & SERVER
