"""From a built layout to production: push, sign, promote; each step fails where its proof is missing."""

import asyncio
import json
import uuid

import httpx
import pytest
from joserfc.jwk import ECKey
from sqlalchemy import update

from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_images.admission import Admitter
from umec_images.authority import SigningAuthority
from umec_images.authority.entry import LogEntry
from umec_images.authority.log import SigstoreLog
from umec_images.authority.rows import EntryRow
from umec_images.build import ImageSpec, build_image
from umec_images.build.signing import provenance, sign_statement
from umec_images.oci.layout import Layout
from umec_images.oci.manifest import EMPTY, EMPTY_CONTENT, MANIFEST, Descriptor, encode
from umec_images.promotion import DenyList, trusted_builders
from umec_images.promotion.evidence import fetch_attached, prove
from umec_images.verify import BundleVerifier, Identity
from umec_policies import load_default


@pytest.fixture
def image(registry, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text(f"print('{uuid.uuid4()}')")
    spec = ImageSpec.model_validate({"entrypoint": ["/app.py"], "folders": [{"source": "src", "target": "/"}]})
    report = build_image(spec, tmp_path, tmp_path / "out", tag="v1")
    layout, repository = Layout(tmp_path / "out"), f"alpha/chain-{uuid.uuid4().hex[:8]}"
    found = layout.image()

    async def push(client):
        for each in (found.manifest.config, *found.manifest.layers):
            await client.push_blob(repository, layout.blob(each.digest))
        return await client.push_manifest(repository, found.tag, found.content, found.manifest.media_type)

    assert registry.run(push) == report.digest
    return repository, report


def sign(registry, image, *, client="alpha-builder", digest=None):
    repository, report = image
    subject = f"{registry.issuer.url}/identity/v1/clients/{client}"
    statement = provenance(
        repository=repository,
        digest=digest or report.digest,
        builder=subject,
        report=report.to_json(),
        now=system_clock(),
    )
    config = httpx.get(f"{registry.url}/sigstore/client_trust_config.json").text
    bundle = sign_statement(statement, trust_config=config, identity_token=registry.issuer.identity(sub=subject), ca="")
    registry.run(lambda opened: opened.attach(repository, report.digest, bundle))
    return bundle


def promote(registry, image, stage, scope="images:promote", **claims):
    repository, report = image
    operator = {"tenant": None, "client_id": "operator", "sub": "operator"}
    holder = registry.holder(scope, **(operator | claims))
    wanted = {"repository": repository, "digest": report.digest, "stage": stage}
    answer = registry.send(holder, "POST", "/images/v1/promotions", json=wanted)
    return answer.status_code, answer.json().get("code")


def test_unsigned_is_not_promoted(registry, image):
    assert promote(registry, image, "staging") == (422, "image-unsigned")
    sign(registry, image)
    assert promote(registry, image, "staging") == (201, None)


def test_a_foreign_builder_is_not_promoted(registry, image):
    sign(registry, image, client="beta-builder")
    assert promote(registry, image, "staging") == (422, "image-identity")
    sign(registry, image)
    assert promote(registry, image, "staging") == (201, None)


def test_provenance_of_another_image_proves_nothing(registry, image):
    sign(registry, image, digest=f"sha256:{'0' * 64}")
    assert promote(registry, image, "staging")[1] == "digest-mismatch"


def test_production_comes_after_staging_and_by_another_than_the_builder(registry, image):
    sign(registry, image)
    assert promote(registry, image, "production") == (403, "promotion-denied")
    own = {"client_id": "alpha-builder", "tenant": "alpha"}
    assert promote(registry, image, "staging", **own) == (403, "promotion-self-approved")
    assert promote(registry, image, "staging", scope="images:push")[1] == "token-scope"
    assert promote(registry, image, "staging") == (201, None)
    assert promote(registry, image, "staging") == (409, "promotion-exists")
    assert promote(registry, image, "production") == (201, None)


def test_what_is_swapped_between_admission_and_start_is_not_what_runs(registry, image):
    repository, report = image
    sign(registry, image)
    for stage in ("staging", "production"):
        assert promote(registry, image, stage) == (201, None)
    root = httpx.get(f"{registry.url}/sigstore/trusted_root.json").content
    key = ECKey.import_key(httpx.get(f"{registry.url}/images/v1/promotion-key").json()).public_key
    manifest = registry.stored(report.digest)
    admitted, other = manifest.read_bytes(), registry.run(lambda client: push_other(client, repository))
    tag = manifest.parents[4] / f"repositories/{repository}/_manifests/tags/v1/current/link"
    assert tag.read_text() == report.digest

    async def story(client):
        admitter = Admitter(
            registry=client,
            verifier=BundleVerifier(root),
            builders=trusted_builders(registry.issuer.url, {"alpha": ["alpha-builder"]}),
            promotion_keys=[key],
            policies=lambda: load_default("admission"),
            deny_list=DenyList,
            clock=system_clock,
        )

        async def fetch():
            admission = await admitter.admit(tenant="alpha", repository=repository, digest=report.digest)
            return (await client.manifest(admission.repository, admission.digest))[2]

        assert await fetch() == admitted
        tag.write_text(other)
        assert (await client.manifest(repository, "v1"))[0] == other
        assert await fetch() == admitted  # a tag is nothing that was admitted
        manifest.write_bytes(registry.stored(other).read_bytes())
        with pytest.raises(UmecError) as caught:
            await fetch()
        assert caught.value.code == "manifest-damaged"
        manifest.write_bytes(admitted)
        assert await fetch() == admitted

    registry.run(story)


async def push_other(client, repository):
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(EMPTY, await client.push_blob(repository, EMPTY_CONTENT), 2).to_json(),
        "layers": [],
    }
    return await client.push_manifest(repository, "other", encode(manifest), MANIFEST)


def test_what_was_pushed_verifies_offline_from_the_registry(registry, image):
    repository, report = image
    sign(registry, image)
    root = httpx.get(f"{registry.url}/sigstore/trusted_root.json").content
    subject = f"{registry.issuer.url}/identity/v1/clients/alpha-builder"
    attached = registry.run(lambda client: fetch_attached(client, repository, report.digest))
    stranger = Identity("https://somebody.else", registry.issuer.url)
    with pytest.raises(UmecError) as caught:
        prove(attached, BundleVerifier(root), stranger, system_clock())
    assert caught.value.code == "image-identity"
    proof = prove(attached, BundleVerifier(root), Identity(subject, registry.issuer.url), system_clock())
    assert proof.signer.subject == subject


def test_an_expired_identity_signs_nothing(registry, image):
    config = httpx.get(f"{registry.url}/sigstore/client_trust_config.json").text
    statement = provenance(
        repository=image[0], digest=image[1].digest, builder="urn:x", report=None, now=system_clock()
    )
    for changes in ({"exp": 1_700_000_000, "iat": 1_699_999_000, "nbf": 1_699_999_000}, {"iss": "https://other"}):
        with pytest.raises(UmecError) as caught:
            sign_statement(statement, trust_config=config, identity_token=registry.issuer.identity(**changes), ca="")
        assert caught.value.code == "signing-failed"


def test_the_log_survives_a_restart_and_notices_a_rewrite(issuer, tmp_path):
    async def opened():
        return await SigningAuthority.open(
            tmp_path, url="https://reg.test", issuer=issuer.url, keys=issuer.keys, clock=system_clock
        )

    async def story():
        authority = await opened()
        key = authority.material.log_key
        log = await SigstoreLog.open(authority.store, key, origin="log")
        entries = [LogEntry("hashedrekord", "0.0.2", f'{{"n":{n}}}'.encode()) for n in range(3)]
        for entry in entries:
            await log.append(entry, now=system_clock())
        await authority.close()

        again = await opened()
        assert again.material.log_key.private_numbers() == key.private_numbers()
        log = await SigstoreLog.open(again.store, key, origin="log")
        proven = await log.append(entries[1], now=system_clock())
        assert (proven["logIndex"], proven["inclusionProof"]["treeSize"]) == ("1", "3")

        async def rewrite(session):
            await session.execute(update(EntryRow).where(EntryRow.index == 1).values(body=b"{}"))

        await again.store.write(rewrite)
        await again.close()
        with pytest.raises(UmecError) as caught:
            await opened()
        assert caught.value.code == "log-rewritten"

    asyncio.run(story())
    keys = [path for path in tmp_path.iterdir() if path.suffix == ".key"]
    assert len(keys) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


def test_the_report_names_what_is_inside(image):
    assert json.loads(json.dumps(image[1].to_json()))["digest"] == image[1].digest
