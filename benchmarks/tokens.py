"""How many tokens a second the authorization server issues over HTTP, and how many an API checks in its process.

    python benchmarks/tokens.py [--json] [--repeats 3] [--seconds 1.5] [--profile FILE]

The server runs on one core, the load on another, where there are two. Every request is a client assertion of its own
(ES256), made beforehand; what is used is written and synced before a token is answered. There is no TLS in between, and
the server logs warnings only. `--profile` writes a cProfile of the server.
"""

import asyncio
import contextlib
import secrets
import statistics
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from measuring import LOAD, Row, at_least, options, pin, publish
from starlette.types import ASGIApp
from webload import serving

from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.http import create_app
from umec_core.jose import KeySet, public_jwk, sign_jwt, thumbprint
from umec_core.standing import StandingView
from umec_core.tokens import ACCESS_TOKEN_TYPE, Presented, StaticKeys, TokenVerifier
from umec_identity.clients.schemas import ClientIn
from umec_identity.service import IdentityService
from umec_identity.settings import IdentitySettings

__all__ = ["main"]

ISSUER = "https://localhost:8443"
MP1 = "https://localhost:8444"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENTS = 8
BUDGETS = {"bearer": 1500, "dpop": 1000}


@contextlib.asynccontextmanager
async def opened(state: Path, keys: dict[str, EllipticCurvePrivateKey]) -> AsyncIterator[ASGIApp]:
    """The authorization server, without limits for one address or client."""
    settings = IdentitySettings(
        issuer=ISSUER,
        mp1=MP1,
        registry="https://localhost:5443",
        state=state,
        requests_per_second_address=1e6,
        requests_per_second_client=1e6,
    )
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
    yield create_app("identity", service.routers)
    await service.close()


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


def over_http(seconds: float, repeats: int, profile: str | None) -> list[Row]:
    """Measure the token endpoint."""
    keys = {f"{kind}-{number}": generate_private_key(SECP256R1()) for kind in BUDGETS for number in range(CLIENTS)}
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(lambda _: opened(Path(folder) / "identity", keys), tls=None, profile=profile) as server,
    ):
        for kind, budget in BUDGETS.items():

            def make(count: int, kind: str = kind) -> list[bytes]:
                return requests(kind, keys, count)

            rates, of_cpu = server.rates(make, holds=b"access_token", seconds=seconds, repeats=repeats)
            rows.append(at_least(f"token over HTTP, {kind}", statistics.median(rates), "/s", budget))
            rows.append(Row(f"token over HTTP, {kind}, for a CPU second of the server", of_cpu, "/s"))
        rows.append(Row("peak memory of the authorization server", server.peak_mb(), "MB"))
    return rows


def in_process(seconds: float, repeats: int) -> list[Row]:
    """Measure token checks: full, remembered, and remembered with a DPoP proof."""
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
        began = asyncio.get_running_loop().time()
        for one in shown:
            await checking.verify(one)
        return len(shown) / (asyncio.get_running_loop().time() - began)

    pin(LOAD)
    bound_token, same = token({"jkt": thumbprint(holder)}), presented(token(None), bound=False)
    full = [presented(token(None), bound=False) for _ in range(int(2000 * seconds))]
    proven = [presented(bound_token, bound=True) for _ in range(int(1000 * seconds))]
    cases = (
        ("token check, full", full, 6_000),
        ("token check, remembered", [same] * int(50_000 * seconds), 50_000),
        ("token check, remembered, with DPoP", proven, 2_500),
    )
    return [
        at_least(name, statistics.median(asyncio.run(rate(shown)) for _ in range(repeats)), "/s", budget)
        for name, shown, budget in cases
    ]


def main() -> None:
    """Measure and print."""
    parser = options(__doc__, repeats=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a series takes")
    parser.add_argument("--profile", help="file for a cProfile of the server")
    given = parser.parse_args()
    rows = over_http(given.seconds, given.repeats, given.profile) + in_process(given.seconds, given.repeats)
    publish(rows, as_json=given.json)


if __name__ == "__main__":
    main()
