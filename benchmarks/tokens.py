"""How many tokens a second the authorization server issues over HTTP, and how many an API checks in its process.

    python benchmarks/tokens.py [--seconds 2] [--repeats 3] [--profile FILE]

The server runs on one core, the load on another, where there are two. Every request is a client assertion of its own
(ES256), made beforehand; what is used is written and synced before a token is answered. `--profile` writes a cProfile
of the server.
"""

import argparse
import asyncio
import contextlib
import cProfile
import multiprocessing
import os
import secrets
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.http import create_app
from umec_core.jose import KeySet, public_jwk, sign_jwt, thumbprint
from umec_core.standing import StandingView
from umec_core.telemetry import configure_logging
from umec_core.tokens import ACCESS_TOKEN_TYPE, Presented, StaticKeys, TokenVerifier
from umec_identity.clients.schemas import ClientIn
from umec_identity.service import IdentityService
from umec_identity.settings import IdentitySettings

__all__ = ["main"]

ISSUER = "https://localhost:8443"
MP1 = "https://localhost:8444"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENTS = 8
CONNECTIONS = 64


def pin(core: int) -> None:
    """Stay on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


class Server(uvicorn.Server):
    """A server that leaves signals alone, so that what was profiled is still written after the last answer."""

    def end(self) -> None:
        """Answer what has begun, then stop."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def serve(bound: socket.socket, state: Path, keys: dict[str, EllipticCurvePrivateKey], profile: str | None) -> None:
    """Serve tokens until the process is terminated."""
    pin(0)
    configure_logging(json=True, level=30)
    settings = IdentitySettings(
        issuer=ISSUER,
        mp1=MP1,
        registry="https://localhost:5443",
        state=state,
        requests_per_second_address=1e6,
        requests_per_second_client=1e6,
    )

    async def run() -> None:
        seeds = [
            ClientIn(
                client_id=name,
                kind="application",
                tenant="city",
                jwks={"keys": [public_jwk(key)]},
                scopes=["mec:app"],
                binding="dpop" if name.startswith("dpop") else "bearer",
            )
            for name, key in keys.items()
        ]
        unused = StaticKeys(KeySet([generate_private_key(SECP256R1()).public_key()]))
        service = await IdentityService.open(settings, verifier_keys=unused, standings=StandingView(), seeds=seeds)
        app = create_app("identity", service.routers)
        config = uvicorn.Config(app, log_config=None, access_log=False, http="httptools", lifespan="off")
        server = Server(config)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.end)
        await server.serve(sockets=[bound])
        await service.close()

    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    if profiler and profile:
        profiler.disable()
        profiler.dump_stats(profile)


def cpu_seconds(pid: int | None) -> float:
    """Return how long a process has had a core: what a busy machine does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests(kind: str, keys: dict[str, EllipticCurvePrivateKey], count: int) -> list[bytes]:
    """Return whole HTTP requests, each good once."""
    names = [name for name in keys if name.startswith(kind)]
    now = system_clock()
    seconds = int(now.timestamp())
    made = []
    for number in range(count):
        name = names[number % len(names)]
        claims = {"iss": name, "sub": name, "aud": ISSUER, "iat": seconds, "exp": seconds + 240}
        text = sign_jwt({**claims, "jti": secrets.token_hex(12)}, keys[name], typ="JWT")
        body = (
            f"grant_type=client_credentials&client_assertion_type={ASSERTION_TYPE.replace(':', '%3A')}"
            f"&client_assertion={text}"
        )
        head = "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        if kind == "dpop":
            head += f"DPoP: {make_proof(keys[name], 'POST', f'{ISSUER}/oauth2/token', now=now)}\r\n"
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return made


async def load(port: int, queue: list[bytes]) -> float:
    """Send all requests over keep-alive connections; returns answers a second, and fails if one is not a token."""
    queue = list(queue)
    total = len(queue)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while queue:
            writer.write(queue.pop())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if b" 200 " not in head.split(b"\r\n")[0] or b"access_token" not in body:
                raise RuntimeError(body.decode())
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return total / (time.perf_counter() - began)


def over_http(seconds: float, repeats: int, profile: str | None) -> dict[str, float]:
    """Return the median rates of the token endpoint, in tokens a second."""
    keys = {
        f"{kind}-{number}": generate_private_key(SECP256R1())
        for kind in ("bearer", "dpop")
        for number in range(CLIENTS)
    }
    bound = socket.create_server(("127.0.0.1", 0))
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("fork").Process(
            target=serve, args=(bound, Path(folder) / "identity", keys, profile)
        )
        process.start()
        pin(1)
        try:
            found: dict[str, float] = {}
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                port = bound.getsockname()[1]
                runner.run(load(port, requests("bearer", keys, 100)))
                for kind in ("bearer", "dpop"):
                    rate = runner.run(load(port, requests(kind, keys, 200)))
                    rates = [
                        runner.run(load(port, requests(kind, keys, max(100, int(rate * seconds)))))
                        for _ in range(repeats)
                    ]
                    found[f"token over HTTP, {kind}"] = statistics.median(rates)
                    asked = requests(kind, keys, 500)
                    before = cpu_seconds(process.pid)
                    runner.run(load(port, asked))
                    found[f"token over HTTP, {kind}, a CPU second"] = len(asked) / (cpu_seconds(process.pid) - before)
        finally:
            process.terminate()
            process.join()
            bound.close()
    return found


def in_process(seconds: float, repeats: int) -> dict[str, float]:
    """Return the median rates of token checks: full, remembered, and remembered with a DPoP proof."""
    issuing, holder, now = generate_private_key(SECP256R1()), generate_private_key(SECP256R1()), system_clock()
    url = f"{MP1}/mec_service_mgmt/v1/services"

    def token(confirmation: dict[str, str] | None) -> str:
        issued = int(now.timestamp())
        claims: dict[str, Any] = {"iss": ISSUER, "sub": "app", "client_id": "app", "aud": f"{MP1}/", "scope": "mec:app"}
        claims |= {"iat": issued, "exp": issued + 300, "jti": secrets.token_hex(12), "tenant": "city"}
        return sign_jwt(claims | ({"cnf": confirmation} if confirmation else {}), issuing, typ=ACCESS_TOKEN_TYPE)

    def presented(text: str, *, bound: bool) -> Presented:
        proof = make_proof(holder, "GET", url, now=now, access_token=text) if bound else None
        return Presented(scheme="DPoP" if bound else "Bearer", token=text, proof=proof, method="GET", url=url)

    def verifier() -> TokenVerifier:
        keys = StaticKeys(KeySet([issuing.public_key()]))
        return TokenVerifier(
            issuer=ISSUER, audience=f"{MP1}/", keys=keys, standings=None, clock=system_clock, allow_bearer=True
        )

    async def rate(shown: list[Presented]) -> float:
        checking = verifier()
        began = time.perf_counter()
        for one in shown:
            await checking.verify(one)
        return len(shown) / (time.perf_counter() - began)

    bound_token = token({"jkt": thumbprint(holder)})
    cases = {
        "token check, full": [presented(token(None), bound=False) for _ in range(int(800 * seconds))],
        "token check, remembered": [presented(token(None), bound=False)] * int(10_000 * seconds),
        "token check, remembered, with DPoP": [presented(bound_token, bound=True) for _ in range(int(500 * seconds))],
    }
    return {name: statistics.median(asyncio.run(rate(shown)) for _ in range(repeats)) for name, shown in cases.items()}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=1.5)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--profile")
    given = options.parse_args()
    began = system_clock()
    for name, rate in (
        over_http(given.seconds, given.repeats, given.profile) | in_process(given.seconds, given.repeats)
    ).items():
        print(f"{name:40} {rate:10,.0f} /s")
    print(f"measured in {(system_clock() - began) // timedelta(seconds=1)} s, medians of {given.repeats}")


if __name__ == "__main__":
    main()
