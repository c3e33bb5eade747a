"""The commands that people use, against a real authorization server and a real registry, over HTTPS."""

import asyncio
import contextlib
import hashlib
import json
import socket
import subprocess
import sys
import threading

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from umec_core.client import Credential, save_credential
from umec_core.clock import system_clock
from umec_core.http import create_app
from umec_core.jose import KeySet
from umec_core.server import Listener, serve
from umec_core.standing import StandingView
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_identity.service import IdentityService, operator_seed
from umec_identity.settings import IdentitySettings
from umec_images.gateway import ImagesService, ImagesSettings
from umec_images.nodeimage.artifact import REFERENCE_SET
from umec_images.nodeimage.artifact.contents import FILES
from umec_platform.composition.servercert import server_certificate


class Site:
    """Authorization server and images service in a thread, and the operator's credential file."""

    def __init__(self, state):
        self.state = state
        self.tls = server_certificate(state, names=("127.0.0.1",), now=system_clock())
        self.sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.management, self.registry = (f"https://127.0.0.1:{each.getsockname()[1]}" for each in self.sockets)
        self.operator = state / "operator.json"
        key = ec.generate_private_key(ec.SECP256R1())
        self.seed = operator_seed(key.public_key())
        ca = self.tls.ca.read_text()
        save_credential(self.operator, Credential.of(issuer=self.management, client_id="operator", key=key, ca=ca))
        self.ready, self.failure = threading.Event(), None

    def run(self):
        self.stop = asyncio.Event()
        try:
            with asyncio.Runner() as runner:
                self.loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - shown to the test that waits
            self.failure = error
        finally:
            self.ready.set()

    async def _serve(self):
        async with contextlib.AsyncExitStack() as closing:
            verifier_keys = StaticKeys(KeySet([ec.generate_private_key(ec.SECP256R1()).public_key()]))
            settings = IdentitySettings(
                issuer=self.management, mp1="https://127.0.0.1:1", registry=self.registry, state=self.state / "identity"
            )
            identity = await IdentityService.open(
                settings, verifier_keys=verifier_keys, standings=StandingView(), seeds=[self.seed], clock=system_clock
            )
            closing.push_async_callback(identity.close)
            verifier = TokenVerifier(
                issuer=self.management,
                audience=f"{self.registry}/",
                keys=identity.ring,
                standings=None,
                clock=system_clock,
            )
            images = await ImagesService.open(
                ImagesSettings(state=self.state / "images", url=self.registry, issuer=self.management),
                verifier=verifier,
                identity_keys=identity.ring,
                clock=system_clock,
            )
            closing.push_async_callback(images.close)
            listeners = [
                Listener(app, certificate=self.tls.certificate, key=self.tls.key)
                for app in (create_app("management", identity.routers), images.app)
            ]
            self.loop.call_later(0.5, self.ready.set)
            await serve(listeners, self.stop, sockets=self.sockets)

    def umec(self, *arguments, credential=None):
        """Run a command and return (exit status, its JSON)."""
        status, said, _ = self.told(*arguments, credential=credential)
        return status, said

    def told(self, *arguments, credential=None):
        """Run a command and return (exit status, its JSON, what it says of its progress)."""
        command = [sys.executable, "-m", "umec_platform.cli", *map(str, arguments), "--json"]
        environment = {"UMEC_CREDENTIAL": str(credential or self.operator), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
        assert done.stdout.strip(), done.stderr
        return done.returncode, json.loads(done.stdout), done.stderr.splitlines()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("site"))
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    assert made.ready.wait(30)
    assert made.failure is None, made.failure
    yield made
    made.loop.call_soon_threadsafe(made.stop.set)
    thread.join(15)


def builder(site, name, tenant):
    credential = site.state / f"{name}.json"
    wanted = ["--kind", "builder", "--tenant", tenant, "--scope", "images:push", "--scope", "images:pull"]
    resources = ["--resource", "sigstore", "--resource", f"{site.registry}/"]
    status, answer = site.umec("client", "add", name, "--out", str(credential), *wanted, *resources)
    assert status == 0, answer
    return credential


@pytest.mark.slow
def test_an_image_goes_from_its_files_to_production(site, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("print('up')")
    (tmp_path / "image.toml").write_text(
        'version = "1.0.0"\nentrypoint = ["/app/app.py"]\n[[folders]]\nsource = "src"\ntarget = "/app"\n'
    )
    ours, theirs = builder(site, "alpha-builder", "alpha"), builder(site, "beta-builder", "beta")
    image = f"{site.registry.removeprefix('https://')}/alpha/app"
    out = str(tmp_path / "out")
    status, built = site.umec("image", "build", str(tmp_path), "--out", out, "--tag", "v1")
    assert status == 0
    status, refused = site.umec("image", "push", out, f"{image}:v1", credential=theirs)
    assert (status, refused["code"]) == (1, "tenant-foreign")
    status, pushed = site.umec("image", "push", out, f"{image}:v1", credential=ours)
    assert (status, pushed["digest"]) == (0, built["digest"])
    exact = f"{image}@{built['digest']}"
    status, refused = site.umec("image", "promote", exact, "--stage", "staging")
    assert (status, refused["code"]) == (1, "image-unsigned")
    status, signed = site.umec("image", "sign", f"{image}:v1", "--layout", out, credential=ours)
    assert status == 0, signed
    status, verified = site.umec("image", "verify", exact, "--identity", "alpha-builder")
    assert (status, verified["digest"]) == (0, built["digest"])
    assert verified["version"] == "1.0.0"
    status, refused = site.umec("image", "verify", exact, "--identity", "beta-builder")
    assert (status, refused["code"]) == (1, "image-identity")
    status, explained = site.umec("image", "verify", exact, "--identity", "beta-builder", "--explain")
    assert (status, explained["code"], explained["refused"]) == (1, "image-identity", True)
    assert [each["status"] for each in explained["checks"]] == ["holds", "passed-over", "refused"]
    status, refused = site.umec("image", "verify", exact, "--for", "admission", credential=ours)
    assert (status, refused["code"]) == (1, "promotion-missing")
    assert refused["advice"]
    status, refused = site.umec("image", "verify", exact, "--for", "admission", "--explain", credential=ours)
    assert (status, refused["code"], refused["admitted"]) == (1, "promotion-missing", False)
    assert [each["check"] for each in refused["checks"] if each["status"] != "holds"] == ["promotion", "policy"]
    status, promoted = site.umec("image", "promote", exact, "--stage", "staging")
    assert (status, promoted.get("stage")) == (0, "staging"), promoted
    digest, at = built["digest"], ("--registry", site.registry)
    status, refused = site.umec("image", "deny", digest, *at, "--reason", "mine", credential=ours)
    assert (status, refused["code"]) == (1, "scope-invalid")
    status, refused = site.umec("image", "deny", f"{image}:v1", "--reason", "a tag is not exact")
    assert (status, refused["code"]) == (1, "reference-invalid")
    assert site.umec("image", "deny", exact, "--reason", "leaks a key") == (0, {"digest": digest, "version": 1})
    status, refused = site.umec("image", "promote", exact, "--stage", "production")
    assert (status, refused["code"]) == (1, "image-denied")
    status, shown = site.umec("image", "denials", *at)
    assert [(each["digest"], each["reason"]) for each in shown["denials"]] == [(digest, "leaks a key")]
    assert site.umec("image", "allow", digest, *at) == (0, {"digest": digest, "version": 2})
    status, promoted = site.umec("image", "promote", exact, "--stage", "production")
    assert (status, promoted.get("stage")) == (0, "production"), promoted
    status, said = site.umec("image", "verify", exact, "--for", "admission")
    assert (status, said["admitted"], said["tenant"], said["stage"]) == (0, True, "alpha", "production")
    raised = {"repository": "alpha/app", "minimum": "1.0.1", "version": 3}
    assert site.umec("image", "minimum", image, "1.0.1", "--reason", "1.0.0 leaks") == (0, raised)
    status, refused = site.umec("image", "verify", exact, "--for", "admission", "--explain")
    assert (status, refused["code"]) == (1, "image-rollback")
    assert refused["checks"][-1]["policies"] == ["forbid-below-minimum"]
    status, tree = site.umec("image", "tree", exact)
    assert (status, len(tree["referrers"])) == (0, 3)


def node_image(folder):
    """A folder as `umec nodeimage build` makes it, with a root file system that takes a moment to send."""
    content = {path: path.encode() for path in FILES if path != "manifest.json"} | {"root.img": bytes(10_000_000)}
    (folder / "efivars").mkdir(parents=True)
    for path, each in content.items():
        (folder / path).write_bytes(each)
    files = {path: {"sha256": hashlib.sha256(each).hexdigest(), "size": len(each)} for path, each in content.items()}
    (folder / "manifest.json").write_text(json.dumps({"name": "street-node", "version": 7, "files": files}))
    return folder


@pytest.fixture
def silent():
    """The site logs to this process's standard output, where commands say their results."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
def test_a_node_image_goes_from_its_folder_to_production(site, tmp_path):
    ours, built, out = builder(site, "gamma-builder", "gamma"), node_image(tmp_path / "built"), tmp_path / "out"
    image = f"{site.registry.removeprefix('https://')}/gamma/street-node"
    status, pushed, progress = site.told("nodeimage", "push", built, f"{image}:7", credential=ours)
    assert (status, pushed["sent"]) == (0, pushed["size"]), pushed
    assert progress == [f"root.img: {part} of 10 MB" for part in range(1, 11)]
    status, again, progress = site.told("nodeimage", "push", built, f"{image}:7", credential=ours)
    assert (status, again, progress) == (0, {**pushed, "sent": 0}, [])
    exact = f"{image}@{pushed['digest']}"

    def fetch(name, *more):
        status, said, _ = site.told("nodeimage", "fetch", name, "--out", out, *more, credential=ours)
        assert (status == 1) == ("code" in said)
        assert out.exists() == (status == 0)
        return said.get("code")

    assert fetch(f"{image}:7") == "reference-invalid"
    assert fetch(exact) == "image-unsigned"
    assert site.told("image", "sign", f"{image}:7", credential=ours)[0] == 0
    status, verified, _ = site.told("image", "verify", exact, "--identity", "gamma-builder")
    assert (status, verified["version"]) == (0, "7.0.0")
    draft, reference = tmp_path / "draft.json", tmp_path / "street-node.dsse"
    draft.write_text(json.dumps({"image_sha256": "ab" * 32, "pcrs": {"sha256": {"4": ["cd" * 32]}}}))
    signing = ("--name", "street-node", "--version", 7, "--key", tmp_path / "signer.key", "--out", reference)
    assert site.told("nodeimage", "sign", draft, *signing)[0] == 0
    attaching = ("image", "attach", exact, reference, "--artifact-type", REFERENCE_SET)
    assert site.told(*attaching, credential=ours)[0] == 0
    assert fetch(exact) == "promotion-missing"
    assert site.told("image", "promote", exact, "--stage", "staging")[0] == 0
    assert fetch(exact) == "promotion-stage"
    assert fetch(exact, "--stage", "staging") is None
    out.rename(tmp_path / "staged")
    assert site.told("image", "promote", exact, "--stage", "production")[0] == 0
    status, tree, _ = site.told("image", "tree", exact)
    kinds = sorted(each["artifactType"] for each in tree["referrers"])
    envelope = "application/vnd.dsse.envelope.v1+json"
    assert kinds == ["application/vnd.dev.sigstore.bundle.v0.3+json", envelope, envelope, REFERENCE_SET]
    assert site.told("image", "deny", exact, "--reason", "recalled")[0] == 0
    assert fetch(exact) == fetch(exact, "--stage", "staging") == "image-denied"
    assert site.told("image", "allow", exact)[0] == 0
    sets = tmp_path / "sets"
    status, said, _ = site.told("nodeimage", "fetch", exact, "--out", out, "--references", sets, credential=ours)
    assert status == 0, said
    for path in FILES:
        assert (out / path).read_bytes() == (built / path).read_bytes()
    assert said["manifest"] == f"sha256:{hashlib.sha256((built / 'manifest.json').read_bytes()).hexdigest()}"
    assert [path.read_bytes() for path in sets.iterdir()] == [reference.read_bytes()]
    assert said["references"] == [str(path) for path in sets.iterdir()]
    status, refused, _ = site.told("nodeimage", "fetch", exact, "--out", out, credential=ours)
    assert (status, refused["code"]) == (1, "image-folder-taken")
