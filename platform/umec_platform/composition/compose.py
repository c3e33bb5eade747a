"""All services of a site in this process, on their listeners, with `netd` beside them."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_attest.service import AttestService, AttestSettings
from umec_core.client import OAuthClient, http_client
from umec_core.clock import Clock
from umec_core.http import create_app
from umec_core.jose import KeySet
from umec_core.keys import load_or_create_key
from umec_core.server import Listener, serve
from umec_core.standing import StandingFollower, StandingView
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_identity.service import IdentityService
from umec_identity.settings import IdentitySettings
from umec_images.admission import Admitter
from umec_images.gateway.service import ImagesService, ImagesSettings, site_builders
from umec_images.oci.client import RegistryClient
from umec_images.verify import BundleVerifier
from umec_platform.composition.children import NetdFiles, NetdProcess
from umec_platform.composition.credentials import Credentials
from umec_platform.composition.servercert import ServerCertificate, server_certificate
from umec_platform.composition.settings import SiteSettings
from umec_platform.instances.adapters import Admission, Registrar, registry_authorization
from umec_platform.instances.images import RegistryPuller
from umec_platform.netd.client import NetdClient
from umec_platform.nodeimages.adapters import RegistryReader
from umec_platform.service import PlatformService, PlatformSettings
from umec_policies import PolicySet, load_default, load_folder

__all__ = ["OPERATOR_FILE", "Site", "open_site"]

OPERATOR_FILE: Final = "operator.json"
VERIFIER_JWKS: Final = "verifier.jwks.json"
"""The verifier keys that this site believes, for those who check verdicts themselves."""
DECISION_JWKS: Final = "decision.jwks.json"
"""The keys that sign this platform's admission decisions."""

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Site:
    """A site whose services are open: `run` serves them until it is told to stop."""

    settings: SiteSettings
    listeners: list[Listener] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve all listeners and do the work beside them until `stop` is set; raises what ended the work by itself.

        The work ends before the listeners do, so that none of its own long polls is cut off.
        """
        quiet = asyncio.Event()
        serving = asyncio.create_task(serve(self.listeners, quiet))
        serving.add_done_callback(lambda _: stop.set())
        tasks = [asyncio.create_task(self._guard(work, stop)) for work in self.work]
        try:
            await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            quiet.set()
            await serving
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _guard(self, work: Work, stop: asyncio.Event) -> None:
        """A service whose work ends by itself ends the site: half a platform must not look like a whole one."""
        try:
            await work()
        finally:
            stop.set()


@contextlib.asynccontextmanager
async def open_site(settings: SiteSettings, clock: Clock) -> AsyncIterator[Site]:
    """Open all services of a site; what is missing (keys, CA, databases, the operator's credential) is made."""
    builder = _Builder(settings, clock)
    async with contextlib.AsyncExitStack() as closing:
        yield await builder.build(closing)


class _Builder:
    """Puts the services together: every one gets its own folder, keys and database."""

    def __init__(self, settings: SiteSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._state = settings.state
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = (settings.host, *settings.names)
        self._tls: ServerCertificate = server_certificate(self._state, names=names, now=clock())
        self._ca = self._tls.ca.read_text()
        self._credentials = Credentials(
            self._state / "clients", self._state / OPERATOR_FILE, issuer=settings.management, ca=self._ca
        )
        self._verifier_issuer = f"{settings.management}/attest/v1"
        self._verifier_keys = self._pinned_verifier_keys()
        _write_jwks(self._state / VERIFIER_JWKS, self._verifier_keys)
        self._view = StandingView(max_age=timedelta(seconds=settings.platform.feed_age_seconds))

    async def build(self, closing: contextlib.AsyncExitStack) -> Site:
        """Open every service and connect them: listeners, background work, netd."""
        identity = await self._identity(closing)
        attest = await self._attest(closing, identity)
        images = await self._images(closing, identity)
        client = await self._client(closing, "umec-platform")
        platform = await self._platform(closing, identity, images, client)
        follower = StandingFollower(
            client,
            view=self._view,
            keys=StaticKeys(self._verifier_keys),
            issuer=self._verifier_issuer,
            clock=self._clock,
            on_change=platform.on_standing,
        )

        async def ready() -> None:
            for service in (identity, attest, images, platform):
                await service.ready()

        settings = self._settings
        management = create_app(
            "management", [*identity.routers, *attest.routers, *platform.management_routers], ready=ready, counters=True
        )
        mp1 = create_app("mp1", platform.mp1_routers, ready=ready)
        return Site(
            settings,
            listeners=[
                self._listener(management, settings.management_port, identity),
                self._listener(mp1, settings.mp1_port, identity),
                self._listener(images.app, settings.registry_port, identity),
            ],
            work=[identity.run, attest.run, images.run, platform.run, follower.run, *self._netd()],
        )

    def _netd(self) -> list[Work]:
        files = NetdFiles(verifier=self._state / VERIFIER_JWKS, decisions=self._state / DECISION_JWKS)
        return [NetdProcess(self._settings, host, files).run for host in self._settings.netd]

    async def _images(self, closing: contextlib.AsyncExitStack, identity: IdentityService) -> ImagesService:
        service = await ImagesService.open(
            ImagesSettings(
                state=self._state / "images",
                url=self._settings.registry,
                issuer=self._settings.management,
                database=self._settings.images.database,
                builders=self._settings.images.builders,
            ),
            verifier=self._token_verifier(identity, f"{self._settings.registry}/"),
            identity_keys=identity.ring,
            clock=self._clock,
            promotion_policies=self._policies("promotion"),
            admission_policies=lambda: self._policies("admission"),
        )
        closing.push_async_callback(service.close)
        self._public(self._state / "images-audit.pem", service.audit_key)
        return service

    async def _platform(
        self,
        closing: contextlib.AsyncExitStack,
        identity: IdentityService,
        images: ImagesService,
        client: OAuthClient,
    ) -> PlatformService:
        settings, state = self._settings, self._state / "platform"
        decision_key = self._decision_key()
        audit_key = load_or_create_key(state / "audit.key")
        self._public(self._state / "platform-audit.pem", audit_key.public_key())
        http = await closing.enter_async_context(http_client(self._ca))
        registry = RegistryClient(
            settings.registry, http, registry_authorization(client, settings.registry, self._clock)
        )
        admitter = Admitter(
            registry=registry,
            verifier=BundleVerifier(images.trusted_root),
            builders=site_builders(settings.management, settings.images.builders),
            promotion_keys=[images.promoter.public_key],
            policies=lambda: self._policies("admission"),
            clock=self._clock,
            deny_list=images.denials.current,
        )
        service = await PlatformService.open(
            PlatformSettings(
                database=settings.platform.database or f"sqlite+aiosqlite:///{state / 'platform.db'}",
                management=settings.management,
                mp1=settings.mp1,
                registry=settings.registry,
                ca=self._ca,
            ),
            management_verifier=self._token_verifier(identity, f"{settings.management}/platform/v1"),
            mp1_verifier=self._token_verifier(identity, f"{settings.mp1}/"),
            view=self._view,
            source=client,
            admitter=Admission(admitter),
            puller=RegistryPuller(registry, state / "images"),
            registrar=Registrar(client, management=settings.management, mp1=settings.mp1),
            connect=NetdClient,
            decision_key=decision_key,
            audit_key=audit_key,
            clock=self._clock,
            reader=RegistryReader(registry),
        )
        closing.push_async_callback(service.close)
        return service

    def _policies(self, name: str) -> PolicySet:
        """The policy set of that name: the site's own where its settings name a folder, else the built-in one."""
        folder = self._settings.policies
        return load_default(name) if folder is None else load_folder(folder / name)

    async def _identity(self, closing: contextlib.AsyncExitStack) -> IdentityService:
        service = await IdentityService.open(
            IdentitySettings(
                issuer=self._settings.management,
                mp1=self._settings.mp1,
                registry=self._settings.registry,
                state=self._state / "identity",
                database=self._settings.identity.database,
                token_seconds=self._settings.identity.token_seconds,
            ),
            verifier_keys=StaticKeys(self._verifier_keys),
            standings=self._view,
            seeds=self._credentials.seeds(),
            policies=self._policies("tokens"),
            clock=self._clock,
        )
        closing.push_async_callback(service.close)
        self._public(self._state / "identity-audit.pem", service.audit_key)
        return service

    async def _attest(self, closing: contextlib.AsyncExitStack, identity: IdentityService) -> AttestService:
        state, options = self._state / "attest", self._settings.attest
        self._decision_key()
        service = await AttestService.open(
            AttestSettings(
                management_url=self._settings.management,
                state=state,
                database=options.database or f"sqlite+aiosqlite:///{state / 'attest.db'}",
                ca_sha256=_fingerprint(self._tls.ca),
                ek_roots=options.ek_roots,
                malformed_ek_certificates=options.malformed_ek_certificates,
                software_tpms=options.software_tpms,
                device_roots=options.device_roots,
                ek_allow_list=options.ek_allow_list,
                unknown_nodes=options.unknown_nodes,
                reference_signers=options.reference_signers,
                decision_jwks=self._state / DECISION_JWKS,
                signed_policies=options.signed_policies,
                policy_signers=options.policy_signers,
                pcrs=options.pcrs,
                round_seconds=options.round_seconds,
                silent_rounds=options.silent_rounds,
                history_days=options.history_days,
                operator_may_readmit_untrusted=options.operator_may_readmit_untrusted,
            ),
            tokens=self._token_verifier(identity, self._verifier_issuer),
            policies=self._policies("appraisal"),
            clock=self._clock,
        )
        closing.push_async_callback(service.close)
        self._public(self._state / "attest-audit.pem", service.audit_public_key)
        return service

    def _token_verifier(self, identity: IdentityService, audience: str) -> TokenVerifier:
        return TokenVerifier(
            issuer=self._settings.management,
            audience=audience,
            keys=identity.ring,
            standings=self._view,
            clock=self._clock,
            denied=identity.revocation.denied,
        )

    async def _client(self, closing: contextlib.AsyncExitStack, name: str) -> OAuthClient:
        http = await closing.enter_async_context(http_client(self._ca))
        return OAuthClient(self._credentials.service(name), http, clock=self._clock)

    def _listener(self, app: Any, port: int, identity: IdentityService) -> Listener:  # noqa: ANN401 - an ASGI application
        return Listener(
            app,
            host=self._settings.host,
            port=port,
            certificate=self._tls.certificate,
            key=self._tls.key,
            client_ca=identity.ca_path,
        )

    def _decision_key(self) -> EllipticCurvePrivateKey:
        """The key that signs admission decisions; its public half is written for netd and the verifier."""
        state = self._state / "platform"
        state.mkdir(mode=0o700, exist_ok=True)
        key = load_or_create_key(state / "decision.key")
        _write_jwks(self._state / DECISION_JWKS, KeySet([key.public_key()]))
        return key

    def _pinned_verifier_keys(self) -> KeySet:
        """The keys whose verdicts this site believes: its own verifier's, unless the settings pin others."""
        if self._settings.identity.verifier_jwks is not None:
            return _read_jwks(self._settings.identity.verifier_jwks)
        state = self._state / "attest"
        state.mkdir(mode=0o700, exist_ok=True)
        return KeySet([load_or_create_key(state / "verifier.key").public_key()])

    def _public(self, path: Path, key: Any) -> None:  # noqa: ANN401 - a public key of any kind
        path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _write_jwks(path: Path, keys: KeySet) -> None:
    path.write_text(json.dumps(keys.jwks()))


def _read_jwks(path: Path) -> KeySet:
    return KeySet.from_jwks(json.loads(path.read_bytes()))


def _fingerprint(ca: Path) -> str:
    certificate = x509.load_pem_x509_certificate(ca.read_bytes())
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
