"""The example application against the real authorization server and the real Mp1 interface, over TLS.

It runs as a process of its own with nothing but its credential: the one that the platform made for the instance.
"""

import asyncio
import base64
import contextlib
import importlib
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from typer.testing import CliRunner

import umec_policies
from umec_core.client import AccessToken, Credential, OAuthClient, RemoteRefused, http_client, save_credential
from umec_core.http import create_app
from umec_core.jose import KeySet
from umec_core.server import Listener, serve
from umec_core.standing import Standing, StandingEntry, StandingStatement, StandingView
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_identity.service import IdentityService, operator_seed, service_seed
from umec_identity.settings import IdentitySettings
from umec_platform.composition.servercert import server_certificate
from umec_platform.instances.adapters import Registrar
from umec_platform.packages.appd import GRANTABLE
from umec_platform.service import PlatformService, PlatformSettings
from umec_policies import PolicySet, load_folder

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "hello"


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - real servers and a real client share the real time


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Running:
    """A site of identity and platform, with the operator at hand."""

    def __init__(self, operator: OAuthClient, management: str, platform: PlatformService) -> None:
        self.operator, self.management, self.platform = operator, management, platform

    async def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        url = path if path.startswith("https:") else self.management + path
        resource = f"{self.management}/platform/v1"
        return await self.operator.request(method, url, resource=resource, scopes=["platform:admin"], **arguments)


@contextlib.asynccontextmanager
async def site(folder: Path, world: Any, *, policies: PolicySet | None = None) -> AsyncIterator[Running]:
    management, mp1 = (f"https://127.0.0.1:{free_port()}" for _ in range(2))
    tls = server_certificate(folder / "tls", names=("127.0.0.1",), now=now())
    ca = tls.ca.read_text()
    view = StandingView(max_age=timedelta(minutes=5))
    entry = StandingEntry(1, "node-a", "city", Standing.TRUSTED, 1, now())
    view.apply(StandingStatement(now(), 0, 1, None, (entry,)))
    keys = {name: generate_private_key(SECP256R1()) for name in ("operator", "umec-platform", "verifier", "own")}
    identity = await IdentityService.open(
        IdentitySettings(issuer=management, mp1=mp1, registry="https://127.0.0.1:1", state=folder / "identity"),
        verifier_keys=StaticKeys(KeySet([keys["verifier"].public_key()])),
        standings=view,
        seeds=[
            operator_seed(keys["operator"].public_key()),
            service_seed("umec-platform", keys["umec-platform"].public_key()),
        ],
        policies=policies,
    )

    def verifier(audience: str) -> TokenVerifier:
        ring = identity.ring
        return TokenVerifier(issuer=management, audience=audience, keys=ring, standings=view, clock=now)

    def client(name: str, http: httpx.AsyncClient) -> OAuthClient:
        credential = Credential.of(issuer=management, client_id=name, key=keys[name], ca=ca)
        return OAuthClient(credential, http)

    async with http_client(ca) as http:
        platform = await PlatformService.open(
            PlatformSettings(
                database=f"sqlite+aiosqlite:///{folder}/platform.db",
                management=management,
                mp1=mp1,
                registry=mp1,
                ca=ca,
            ),
            management_verifier=verifier(f"{management}/platform/v1"),
            mp1_verifier=verifier(f"{mp1}/"),
            view=view,
            source=world.neighbours,
            admitter=world.neighbours,
            puller=world.neighbours,
            registrar=Registrar(client("umec-platform", http), management=management, mp1=mp1),
            connect=lambda _path: world.host,
            decision_key=keys["own"],
            audit_key=keys["own"],
            clock=now,
            reader=world.neighbours,
        )
        apps = [
            (management, create_app("management", [*identity.routers, *platform.management_routers])),
            (mp1, create_app("mp1", platform.mp1_routers)),
        ]
        listeners = [
            Listener(app, port=int(url.rsplit(":", 1)[1]), certificate=tls.certificate, key=tls.key)
            for url, app in apps
        ]
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(listeners, stop))
        working = asyncio.create_task(platform.run())
        try:
            yield Running(client("operator", http), management, platform)
        finally:
            stop.set()
            await serving
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            await platform.close()
            await identity.close()


async def start_hello(
    running: Running, world: Any, wait_until: Callable[..., Any], **members: Any
) -> tuple[str, dict[str, str]]:
    """Onboard and instantiate the example, with members of its descriptor changed; returns instance and credential."""
    tenant = {"id": "city", "name": "City", "addresses": ["198.51.100.80"]}
    await running.call("POST", "/platform/v1/tenants", json=tenant)
    await running.call("POST", "/platform/v1/hosts", json={"id": "host-a", "node": "node-a", "netd": "/run/a"})
    made = await running.call("POST", "/app_pkgm/v1/app_packages", params={"tenant": "city"}, json={})
    appd = json.loads((EXAMPLE / "appd.json").read_bytes()) | members
    await running.call("PUT", f"/app_pkgm/v1/app_packages/{made.json()['id']}/package_content", json=appd)
    made = await running.call("POST", "/app_lcm/v1/app_instances", json={"appDId": appd["appDId"]})
    instance = str(made.json()["id"])
    accepted = await running.call("POST", f"/app_lcm/v1/app_instances/{instance}/instantiate", json={})

    async def ended() -> bool:
        operation = (await running.call("GET", accepted.headers["Location"])).json()
        assert operation["operationState"] != "FAILED", operation
        return bool(operation["operationState"] == "COMPLETED")

    await wait_until(ended)
    credential = base64.b64decode(world.host.instances[instance].secrets["client.json"])
    return instance, json.loads(credential)


def test_the_example_becomes_ready_registers_and_activates_its_rules(
    world: Any, wait_until: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with site(world.folder, world) as running:
            instance, credential = await start_hello(running, world, wait_until)
            file = world.folder / "client.json"
            file.write_text(json.dumps(credential))
            port = free_port()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(EXAMPLE / "app" / "app.py"),
                env={**os.environ, "HELLO_CREDENTIAL": str(file), "HELLO_PORT": str(port)},
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                await wait_until(lambda: bool(world.host.traffic and world.host.dns), 20)
                assert [rule.name for rule in world.host.dns.values()] == ["hello.city.mec.internal"]
                services = (await running.call("GET", "/platform/v1/services")).json()
                assert [(item["serName"], item["state"]) for item in services] == [("hello", "ACTIVE")]
                shown = (await running.call("GET", f"/app_lcm/v1/app_instances/{instance}")).json()
                assert shown["ready"] is True
                async with httpx.AsyncClient(trust_env=False) as http:
                    greeting = (await http.get(f"http://127.0.0.1:{port}/street")).json()
                assert (greeting["from"], greeting["path"]) == (instance, "/street")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                _, errors = await process.communicate()
            assert b"Traceback" not in errors, errors.decode()

    asyncio.run(scenario())


def test_the_credential_of_an_instance_ends_with_it(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with site(world.folder, world) as running:
            instance, credential = await start_hello(running, world, wait_until)
            mine = Credential(**{name: credential[name] for name in ("issuer", "client_id", "private_jwk", "ca")})
            async with http_client(mine.ca) as http:
                app = OAuthClient(mine, http)
                await app.token(f"{credential['mp1']}/", ["mec:app"])
                with pytest.raises(RemoteRefused):
                    await app.token(f"{running.management}/platform/v1", ["platform:admin"], fresh=True)
                accepted = await running.call("POST", f"/app_lcm/v1/app_instances/{instance}/terminate", json={})

                async def ended() -> bool:
                    found = (await running.call("GET", accepted.headers["Location"])).json()
                    return bool(found["operationState"] == "COMPLETED")

                await wait_until(ended)
                with pytest.raises(RemoteRefused):
                    await app.token(f"{credential['mp1']}/", ["mec:app"], fresh=True)

    asyncio.run(scenario())


def without_traffic(folder: Path) -> PolicySet:
    """The built-in policies for tokens, but that no application gets traffic rules."""
    shutil.copytree(Path(umec_policies.__file__).parent / "sets" / "tokens", folder)
    text = (folder / "tokens.cedar").read_text()
    assert text.count('"mec:traffic", ') == 1
    (folder / "tokens.cedar").write_text(text.replace('"mec:traffic", ', ""))
    return load_folder(folder)


@pytest.mark.parametrize(
    ("asked_for", "policy", "granted"),
    [
        (["mec:app", "mec:traffic"], None, {"mec:app", "mec:traffic"}),
        (["mec:app", "mec:traffic"], without_traffic, {"mec:app"}),
        (sorted(GRANTABLE), None, GRANTABLE),
    ],
)
def test_an_instance_gets_what_its_descriptor_asks_for_and_the_policy_permits_and_nothing_else(
    world: Any, wait_until: Callable[..., Any], asked_for: list[str], policy: Any, granted: set[str]
) -> None:
    async def scenario() -> None:
        policies = None if policy is None else policy(world.folder / "policies")
        async with site(world.folder, world, policies=policies) as running:
            _, credential = await start_hello(running, world, wait_until, requestedPermissions=asked_for)
            mine = Credential(**{name: credential[name] for name in ("issuer", "client_id", "private_jwk", "ca")})
            async with http_client(mine.ca) as http:
                app, given = OAuthClient(mine, http), set()
                for scope in [*sorted(GRANTABLE), "platform:admin", "node:host", "standings:read"]:
                    with contextlib.suppress(RemoteRefused):
                        await app.token(f"{credential['mp1']}/", [scope])
                        given.add(scope)
                assert given == granted
                together = peek(await app.token(f"{credential['mp1']}/", sorted(granted)))
                assert set(together["scope"].split()) == granted
                if more := sorted(GRANTABLE - granted):
                    with pytest.raises(RemoteRefused) as refused:
                        await app.token(f"{credential['mp1']}/", [*granted, more[0]])
                    assert refused.value.code in {"scope-invalid", "grant-denied"}

    asyncio.run(scenario())


def peek(token: AccessToken) -> dict[str, Any]:
    """What a token says."""
    part = token.text.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def test_the_command_line_leads_from_the_descriptor_to_a_running_instance(world: Any) -> None:
    async def scenario() -> None:
        async with site(world.folder, world) as running:
            operator = world.folder / "operator.json"
            save_credential(operator, running.operator.credential)

            async def umec(noun: str, *arguments: str) -> tuple[int, Any]:
                module = importlib.import_module(f"umec_platform.cli.{noun}")
                given = [*arguments, "--credential", str(operator), "--json"]
                result = await asyncio.to_thread(CliRunner().invoke, module.app, given)
                lines = [line for line in result.output.splitlines() if line.startswith("{")]  # beside the servers' log
                return result.exit_code, json.loads(lines[-1]) if result.exit_code == 0 else result.output

            code, said = await umec("app", "onboard", str(EXAMPLE), "--tenant", "city")
            assert code == 1
            assert "tenant-unknown" in said
            assert (await umec("tenant", "add", "city", "--address", "198.51.100.80"))[0] == 0
            assert (await umec("host", "add", "host-a", "--node", "node-a", "--netd", "/run/a"))[0] == 0
            assert (await umec("host", "list"))[1]["hosts"][0]["standing"] == "trusted"
            code, package = await umec("app", "onboard", str(EXAMPLE), "--tenant", "city")
            assert (code, package["onboardingState"]) == (0, "ONBOARDED")
            world.neighbours.refused = True
            code, said = await umec("app", "instantiate", "hello-1", "--tenant", "city")
            assert code == 1
            assert "image-unsigned" in said
            world.neighbours.refused = False
            code, instance = await umec("app", "instantiate", "hello-1", "--tenant", "city", "--host", "host-a")
            assert (code, instance["instantiationState"]) == (0, "INSTANTIATED")
            assert len((await umec("app", "list"))[1]["instances"]) == 1
            assert (await umec("app", "show", instance["id"]))[1]["address"] == instance["address"]
            assert (await umec("service", "list"))[1] == {"services": []}
            rules = (await umec("service", "rules"))[1]["rules"]
            assert {(each["kind"], each["rule"]["state"]) for each in rules} == {
                ("traffic", "INACTIVE"),
                ("dns", "INACTIVE"),
            }
            assert (await umec("app", "terminate", instance["id"]))[0] == 0
            assert (await umec("app", "list"))[1]["instances"] == []

    asyncio.run(scenario())
