"""A MEC host in namespaces of its own, with real netd, a client beside it, and keys of a verifier and a platform."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from umec_core.clock import system_clock
from umec_core.jose import KeySet, sign_jwt
from umec_platform.netd.client import NetdClient
from umec_platform.netd.messages import DnsRule, InstanceSpec, Tenant, TrafficFilter, TrafficRule

VERIFIER = "https://site.example:8443/attest/v1"
PLATFORM = "https://site.example:8443/platform/v1"
NODE = "pole-7"
ACCESS = "192.0.2.1"
SERVICE_PORT = 8444
NOBODY = 65534

HOST = f"""
set -e
ip link set lo up
ip link add acc0 type veth peer name cli0
ip address add {ACCESS}/24 dev acc0
ip link set acc0 up
echo linked
read go
exec "$@"
"""
RUN = "import typer; from umec_platform.cli.netd import netd; typer.run(netd)"
UNPRIVILEGED = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


class Keys:
    """The verifier and the platform, as far as netd knows them."""

    def __init__(self):
        self.verifier = generate_private_key(SECP256R1())
        self.platform = generate_private_key(SECP256R1())
        self.seq = 0

    def statement(self, standing="trusted", *, key=None, iat=None, after=None, generation=None, **changes):
        """A statement about the node: a new standing each time, or none (`standing=None`: nothing new)."""
        before = self.seq
        entries = []
        if standing is not None:
            self.seq += 1
            entries = [{"seq": self.seq, "node": changes.get("node", NODE), "tenant": "a", "standing": standing,
                        "generation": self.seq if generation is None else generation,
                        "changed_at": "2026-11-22T00:00:00Z"}]  # fmt: skip
        claims = {
            "iss": VERIFIER,
            "iat": system_clock().timestamp() if iat is None else iat,
            "after": before if after is None else after,
            "last": self.seq,
            "node": NODE,
            "standings": entries,
            **changes,
        }
        return sign_jwt(claims, key or self.verifier, typ="umec-standings+jwt")

    def decision(self, image, *, key=None, typ="umec-admission+jwt", **changes):
        now = int(system_clock().timestamp())
        claims = {"iss": PLATFORM, "iat": now, "exp": now + 300, "tenant": "a", "node": NODE, "instance": "one",
                  "appd_sha256": "0" * 64, "repository": "a/probe", "digest": image.digest, "policy_sha256": "0" * 64,
                  "policies": ["admit-signed"], **changes}  # fmt: skip
        return sign_jwt(claims, key or self.platform, typ=typ)


class Image:
    """A content-addressed folder with one image."""

    def __init__(self, folder, layers, *, config=None, compress=True):
        self.folder = Path(folder)
        (self.folder / "sha256").mkdir(parents=True, exist_ok=True)
        stored = [gzip.compress(layer, mtime=0) if compress else layer for layer in layers]
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
        self.layers = [self.put(layer) for layer in stored]
        document = {"architecture": "amd64", "os": "linux", "config": config or {"Entrypoint": ["/probe"]},
                    "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]}}  # fmt: skip
        self.config = self.put(json.dumps(document).encode())
        descriptors = [
            {"mediaType": kind, "digest": digest, "size": len(layer)}
            for digest, layer in zip(self.layers, stored, strict=True)
        ]
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": self.config, "size": 1},
            "layers": descriptors,
        }
        self.digest = self.put(json.dumps(self.manifest).encode())

    def put(self, data):
        digest = _digest(data)
        self.path(digest).write_bytes(data)
        return digest

    def path(self, digest):
        return self.folder / "sha256" / digest.removeprefix("sha256:")


def _digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(*entries):
    """A tar: (name, content) or (name, TarInfo fields) each."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size, info.mode = len(content), 0o755
                archive.addfile(info, io.BytesIO(content))
            else:
                for field, value in content.items():
                    setattr(info, field, value)
                archive.addfile(info)
    return file.getvalue()


class Lab:
    """One MEC host: namespaces, netd in them, and a client's network beside."""

    def __init__(self, folder, keys, *, unprivileged=False, lease=60.0, allow=0, network=None, agent=None):
        self.folder, self.keys = Path(folder), keys
        self.socket = self.folder / "netd.sock"
        self.state = self.folder / "state"
        self.client = NetdClient(self.socket)
        verifier, platform = self.folder / "verifier.jwks", self.folder / "platform.jwks"
        verifier.write_text(json.dumps(KeySet([keys.verifier.public_key()]).jwks()))
        platform.write_text(json.dumps(KeySet([keys.platform.public_key()]).jwks()))
        self.command = [
            sys.executable, "-c", RUN, "--node", NODE, "--socket", str(self.socket), "--state", str(self.state),
            "--verifier-jwks", str(verifier), "--verifier-issuer", VERIFIER, "--decision-jwks", str(platform),
            "--decision-issuer", PLATFORM, "--access", "acc0", "--access-address", f"{ACCESS}/24",
            "--allow-uid", str(allow), "--service", f"{ACCESS}:{SERVICE_PORT}", "--lease-seconds", str(lease), "--json",
        ]  # fmt: skip
        self.command += [] if agent is None else ["--agent", str(agent)]
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if unprivileged:
            os.chown(self.folder, NOBODY, NOBODY)
            unshare = [*UNPRIVILEGED, *unshare, "--user", "--map-root-user"]
        script, pass_fds = HOST, ()
        if network is not None:
            # The network of an earlier netd that ended in whatever way.
            script, pass_fds = 'echo linked; read go; exec "$@"', (network,)
            unshare = ["nsenter", f"--net=/proc/self/fd/{network}", *[word for word in unshare if word != "--net"]]
        self.log = (self.folder / "netd.log").open("wb+")
        self.host = subprocess.Popen(
            [*unshare, "sh", "-c", script, "sh", *self.command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, pass_fds=pass_fds,
        )  # fmt: skip
        assert self.host.stdout.readline() == b"linked\n", self.told()
        self.peer = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo there; exec sleep 600"], stdout=subprocess.PIPE
        )
        self.peer.stdout.readline()
        if network is None:
            self.on_host("ip", "link", "set", "cli0", "netns", str(self.peer.pid))
            self.on_client("ip", "address", "add", "192.0.2.2/24", "dev", "cli0")
            self.on_client("ip", "link", "set", "cli0", "up")
            self.on_client("ip", "route", "add", "default", "via", ACCESS)
        self.host.stdin.write(b"go\n")
        self.host.stdin.flush()
        ready = self.host.stdout.readline()
        if json.loads(ready or b"{}").get("node") != NODE:
            told = self.told() + ready.decode()
            self.close()
            raise AssertionError(told)

    def told(self):
        # netd writes through the same open file: reading must not move its position.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode()

    def _enter(self, pid, *command, check=True, **options):
        return subprocess.run(
            ["nsenter", "-t", str(pid), "-n", *command],
            check=check,
            capture_output=True,
            text=True,
            timeout=20,
            **options,
        )

    def on_host(self, *command, **options):
        return self._enter(self.host.pid, *command, **options)

    def on_client(self, *command, **options):
        return self._enter(self.peer.pid, *command, **options)

    def ask(self, address, text, port=80, timeout=1.5):
        """What the application at an address answers to the client, or None; a lost SYN comes again after a second."""
        code = (
            "import socket,sys\n"
            f"s=socket.create_connection(({address!r},{port}),{timeout})\n"
            f"s.sendall({text!r}.encode()+b'\\n'); print(s.recv(8192).decode(),end='')"
        )
        done = self.on_client("/usr/bin/python3", "-c", code, check=False)
        return done.stdout if done.returncode == 0 else None

    def dig(self, name, kind="A"):
        """Status and addresses of a name, as the client's resolver gets them."""
        out = self.on_client("dig", "+time=1", "+tries=2", f"@{ACCESS}", name, kind).stdout
        status = out.split("status: ")[1].split(",")[0]
        return status, [line.split()[-1] for line in out.splitlines() if line and not line.startswith(";")]

    def netd_pid(self):
        children = Path(f"/proc/{self.host.pid}/task/{self.host.pid}/children").read_text().split()
        return int(children[0])

    def resolver(self):
        """Process of the resolver, by a number that counts here and not in the host's own namespace."""
        for child in Path(f"/proc/{self.netd_pid()}/task/{self.netd_pid()}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "unbound":
                return int(child)
        raise AssertionError("no resolver runs")

    def stop(self):
        if self.host.poll() is None:
            os.kill(self.netd_pid(), signal.SIGTERM)
            self.host.wait(20)

    def close(self):
        for process in (self.host, self.peer):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self.log.close()

    def run(self, coroutine):
        return asyncio.run(coroutine)

    def stand(self, standing="trusted", **changes):
        return self.run(self.client.standing(self.keys.statement(standing, **changes)))

    def spec(self, image, **changes):
        claims = changes.pop("claims", {})
        fields = {"instance": "one", "tenant": "a", "repository": "a/probe", "digest": image.digest,
                  "blobs": str(image.folder), **changes}  # fmt: skip
        same = {name: fields[name] for name in ("instance", "tenant", "repository", "digest")}
        fields.setdefault("decision", self.keys.decision(image, **{**same, **claims}))
        return InstanceSpec(**fields)

    def start(self, image, **changes):
        return self.run(self.client.start_instance(self.spec(image, **changes)))


def forward(to, *, rule="r1", tenant="a", instance="one", dst="198.51.100.7", ports=((80, 80),), **changes):
    ports = [list(one) for one in ports]
    fields = {"id": rule, "tenant": tenant, "instance": instance, "priority": 10, "action": "FORWARD", "to": to,
              "filters": [TrafficFilter(dst=[dst], dst_ports=ports, protocol="tcp")], **changes}  # fmt: skip
    return TrafficRule(**fields)


def name_of(address, *, rule="d1", tenant="a", instance="one", name="cam.a.example", kind="A"):
    return DnsRule(id=rule, tenant=tenant, instance=instance, name=name, kind=kind, address=address, ttl=5)


class Tools:
    """What the tests make their attacks of (there is no package to import from)."""

    Lab, Image, Keys = Lab, Image, Keys
    tar_of, forward, name_of = staticmethod(tar_of), staticmethod(forward), staticmethod(name_of)
    access, verifier, platform, node, service_port = ACCESS, VERIFIER, PLATFORM, NODE, SERVICE_PORT


@pytest.fixture(scope="session")
def tools():
    return Tools


@pytest.fixture(scope="session")
def probe(tmp_path_factory):
    """A program that answers over TCP, in one static file."""
    binary = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).parent / "app" / "probe.c"
    subprocess.run(["gcc", "-static", "-O1", "-w", "-o", str(binary), str(source)], check=True)
    return binary.read_bytes()


@pytest.fixture
def open_folder():
    """A folder that another user may enter, unlike those of pytest."""
    folder = Path(tempfile.gettempdir()) / f"umec-netd-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def image(tmp_path, probe):
    return Image(tmp_path / "blobs", [tar_of(("probe", probe))])


def _standing_host(folder):
    made = Lab(folder, Keys())
    try:
        made.stand()
        for tenant in ("a", "b"):
            made.run(made.client.put_tenant(tenant))
        yield made
    finally:
        made.stop()
        made.close()


@pytest.fixture
def lab(tmp_path):
    """A host in good standing with the tenants `a` and `b`."""
    yield from _standing_host(tmp_path)


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory):
    """The same for a whole module; `clean_lab` empties it between tests."""
    yield from _standing_host(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def clean_lab(shared_lab):
    yield shared_lab
    tenants = [Tenant(tenant=name) for name in ("a", "b")]
    shared_lab.run(shared_lab.client.sync(tenants=tenants, traffic=[], dns=[], instances=[]))
