"""A whole site in this process, on real listeners: what is served where, and what lies in its folder."""

import asyncio
import contextlib
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from umec_core.client import OAuthClient, RemoteRefused, http_client, load_credential
from umec_core.clock import system_clock
from umec_platform.composition.children import NetdFiles, _command_line
from umec_platform.composition.compose import OPERATOR_FILE, open_site
from umec_platform.composition.settings import SiteSettings

PUBLIC = {".pem", ".json", ".log"}


def settings(folder: Path) -> SiteSettings:
    ports = []
    with contextlib.ExitStack() as held:
        for _ in range(3):
            taken = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(taken.getsockname()[1])
    names = ("management_port", "mp1_port", "registry_port")
    return SiteSettings.model_validate({"state": folder / "state", **dict(zip(names, ports, strict=True))})


@contextlib.asynccontextmanager
async def running(chosen: SiteSettings) -> AsyncIterator[httpx.AsyncClient]:
    stop = asyncio.Event()
    async with open_site(chosen, system_clock) as site:
        serving = asyncio.create_task(site.run(stop))
        ca = str(chosen.state / "server-ca.pem")
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca), trust_env=False) as http:
            await until_ready(http, chosen)
            yield http
        stop.set()
        await serving


async def until_ready(http: httpx.AsyncClient, chosen: SiteSettings) -> None:
    for url in (chosen.management, chosen.mp1, chosen.registry):
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(f"{url}/readyz")).status_code == 200:
                    break
            await asyncio.sleep(0.05)
        else:
            pytest.fail(f"{url} is not ready")


def during(folder: Path, check: Callable[[httpx.AsyncClient, SiteSettings], Awaitable[None]]) -> SiteSettings:
    chosen = settings(folder)

    async def main() -> None:
        async with running(chosen) as http:
            await check(http, chosen)

    asyncio.run(main())
    return chosen


def test_no_listener_serves_what_belongs_to_another(tmp_path: Path) -> None:
    own = {
        "management": ["/metrics", "/attest/v1/nodes", "/oauth2/jwks", "/identity/v1/ca", "/platform/v1/tenants"],
        "mp1": ["/mec_service_mgmt/v1/services", "/mec_app_support/v1/timing/current_time"],
        "registry": ["/v2/", "/sigstore/trusted_root.json", "/images/v1/promotion-key"],
    }

    async def check(http: httpx.AsyncClient, chosen: SiteSettings) -> None:
        urls = {"management": chosen.management, "mp1": chosen.mp1, "registry": chosen.registry}
        for owner, paths in own.items():
            for path in paths:
                for listener, url in urls.items():
                    status = (await http.get(f"{url}{path}")).status_code
                    assert (status == 404) == (listener != owner), (path, listener, status)

    during(tmp_path, check)


def test_what_the_site_keeps_to_itself_nobody_else_can_read(tmp_path: Path) -> None:
    async def check(_http: httpx.AsyncClient, _chosen: SiteSettings) -> None:
        """Everything is made at the first start."""

    chosen = during(tmp_path, check)
    assert stat.S_IMODE(chosen.state.stat().st_mode) == 0o700
    open_files = {
        path.relative_to(chosen.state).as_posix()
        for path in chosen.state.rglob("*")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
    }
    assert {Path(name).suffix for name in open_files} <= PUBLIC
    assert not any("key" in Path(name).stem for name in open_files)
    assert OPERATOR_FILE not in open_files


def test_a_second_start_finds_the_state_of_the_first(tmp_path: Path) -> None:
    chosen = settings(tmp_path)

    async def first() -> bytes:
        async with running(chosen):
            await ask("POST", {"id": "city", "name": "City"})
        return (chosen.state / "server-ca.pem").read_bytes()

    async def second() -> list[str]:
        async with running(chosen):
            return [tenant["id"] for tenant in (await ask("GET")).json()]

    async def ask(method: str, body: object = None) -> httpx.Response:
        credential = load_credential(chosen.state / OPERATOR_FILE)
        async with http_client(credential.ca) as http:
            resource = f"{chosen.management}/platform/v1"
            operator = OAuthClient(credential, http)
            return await operator.request(
                method, f"{resource}/tenants", resource=resource, scopes=["platform:admin"], json=body
            )

    ca = asyncio.run(first())
    assert asyncio.run(second()) == ["city"]
    assert (chosen.state / "server-ca.pem").read_bytes() == ca


def test_the_operator_cannot_ask_for_what_is_an_applications(tmp_path: Path) -> None:
    async def check(_http: httpx.AsyncClient, chosen: SiteSettings) -> None:
        credential = load_credential(chosen.state / OPERATOR_FILE)
        async with http_client(credential.ca) as http:
            with pytest.raises(RemoteRefused) as refused:
                await OAuthClient(credential, http).token(f"{chosen.mp1}/", ["mec:traffic"])
        assert refused.value.code in {"scope-invalid", "target-invalid"}

    during(tmp_path, check)


@pytest.mark.parametrize("agent", [None, "/var/lib/umec-agent"])
def test_netd_is_told_which_agent_measures_its_starts(tmp_path: Path, agent: str | None) -> None:
    host = {"node": "pole-17", "access": "eth1", "access_address": "192.0.2.1/24", "agent": agent}
    site = SiteSettings.model_validate({"state": tmp_path, "netd": [host]})
    files = NetdFiles(verifier=tmp_path / "verifier", decisions=tmp_path / "decisions")
    line = _command_line(site, site.netd[0], files, tmp_path)
    assert ("--agent" in line) is (agent is not None)
    if agent is not None:
        assert line[line.index("--agent") + 1] == agent
