"""Those who supply images, with one small image of the city that goes the way that images go."""

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import httpx

from umec_platform.demo import applications, images
from umec_platform.demo.attacks.stranger import succeed
from umec_platform.demo.hand import IDENTITY, Hand
from umec_platform.demo.run import REGISTRY, Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES

__all__ = ["ENVELOPE", "NAME", "NEWER", "Supply"]

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
NAME: Final = "small"
NEWER: Final = "1.0.0"
OLDER: Final = "0.9.0"
BUILDER: Final = "city-builder"


class Supply:
    """What those who supply images have: the city's builder and intern, and whoever may write to the store.

    Every attack takes the small image from where it has come to. That the way leads to a start is shown by the example.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.http = run.clean_up.enter_context(run.http())
        self.builder = Hand.of(self.http, run.folder / f"{BUILDER}.json")
        self.operator = Hand.of(self.http, run.state / "operator.json")
        self._passed: list[str] = []

    @cached_property
    def digest(self) -> str:
        """The digest of the small image, pushed."""
        return images.small_image(self.run, NAME, NEWER)

    @cached_property
    def older(self) -> str:
        """The digest of an earlier version of it, pushed and signed by its builder."""
        digest = images.small_image(self.run, NAME, OLDER)
        images.sign(self.run, NAME, OLDER, digest, BUILDER)
        return digest

    @cached_property
    def appd(self) -> str:
        """The package that names the small image."""
        return self.package(NAME, self.digest, NAME)

    def package(self, repository: str, digest: str, name: str) -> str:
        """Onboard a package of the city that is its image and nothing else; return its appDId."""
        appd = json.loads((images.EXAMPLE / "appd.json").read_text())
        kept = {"appSoftVersion", "appDVersion", "mecVersion", "appDescription"}
        image = {**appd["swImageDescriptor"][0], "swImage": f"city/{repository}@{digest}"}
        appd = {key: value for key, value in appd.items() if key in kept}
        appd |= {"appDId": f"city-{name}", "appName": name, "appProvider": "city", "swImageDescriptor": [image]}
        file = self.run.folder / f"city-{name}.appd.json"
        file.write_text(json.dumps(appd))
        return str(self.run.operator("app", "onboard", str(file), "--tenant", "city")["appDId"])

    def sign(self, signer: str) -> None:
        """Have somebody sign the image."""
        images.sign(self.run, NAME, NEWER, self.digest, signer)

    def attach(self, content: bytes, artifact_type: str) -> None:
        """Attach content to the image, as its builder."""
        file = self.run.folder / "attachment"
        file.write_bytes(content)
        images.attach(self.run, images.image_of("city", NAME, self.digest), file, artifact_type)

    def signed(self) -> None:
        """Have its builder sign it, if that was not yet."""
        self._once("signed", lambda: self.sign(BUILDER))

    def promoted(self, stage: str) -> None:
        """Have the operator promote it, if that was not yet."""
        self.signed()
        self._once(stage, lambda: succeed(self.promote(self.operator, stage), f"no promotion to {stage}"))

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the example."""
        folder = self.run.folder / "hello"
        digest = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]
        return dict(json.loads((folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_text()))

    def push(self, repository: str, tag: str, manifest: dict[str, Any]) -> httpx.Response:
        """Push a manifest under a tag, as the city's builder."""
        url = f"{REGISTRY}/v2/{repository}/manifests/{tag}"
        token, content = self.builder.token(f"{REGISTRY}/"), json.dumps(manifest).encode()
        return self.builder.call("PUT", url, token, content=content, headers={"Content-Type": MANIFEST})

    def read(self, path: str) -> httpx.Response:
        """Read from the registry, as the operator."""
        headers = {"Accept": MANIFEST}
        return self.operator.have("GET", f"{REGISTRY}{path}", f"{REGISTRY}/", headers=headers)

    def promote(self, who: Hand, stage: str, digest: str | None = None, **wish: Any) -> httpx.Response:  # noqa: ANN401 - any member
        """Ask for a promotion of the image, or of another version of it."""
        body = {"repository": f"city/{NAME}", "digest": digest or self.digest, "stage": stage, **wish}
        return who.call("POST", f"{REGISTRY}/images/v1/promotions", who.token(f"{REGISTRY}/"), json=body)

    def would_start(self, digest: str) -> str | None:
        """Ask what admission would say; return the code of the refusal."""
        question = {"tenant": "city", "repository": f"city/{NAME}", "digest": digest}
        url = f"{REGISTRY}/images/v1/admission"
        answer = self.operator.have("GET", url, f"{REGISTRY}/", params=question).json()
        return None if answer["admitted"] else str(answer["code"])

    def start(self, appd: str | None = None) -> str | None:
        """Have the image started; return the code of the refusal."""
        try:
            applications.instantiate(self.run, appd or self.appd, NODES[0])
        except Broken as refused:
            return refused.code
        return None

    def become_operator(self) -> None:
        """Have the operator give the builder another office: same name, same key, and images to promote."""
        self._register("operator", ["images:promote"])

    def become_builder(self) -> None:
        """Have the operator give the builder the old office again."""
        self._register("builder", ["images:push", "images:pull"])

    def _register(self, kind: str, scopes: list[str]) -> None:
        keys = {"keys": [self.builder.key.as_dict(private=False)]}
        body = {"client_id": BUILDER, "kind": kind, "tenant": "city", "scopes": scopes, "jwks": keys}
        self.operator.have("DELETE", f"{IDENTITY}/clients/{BUILDER}", IDENTITY)
        self.operator.have("POST", f"{IDENTITY}/clients", IDENTITY, json=body)

    def _once(self, what: str, work: Callable[[], object]) -> None:
        if what not in self._passed:
            work()
            self._passed.append(what)
