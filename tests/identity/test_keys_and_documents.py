"""The key ring and what is published: overlap, files, metadata."""

from datetime import UTC, datetime, timedelta

import pytest

from umec_core.errors import UmecError
from umec_core.jose import KeySet, peek_header
from umec_core.keys import write_private
from umec_identity.certificates.authority import CertificateAuthority
from umec_identity.keys.ring import KeyRing

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ISSUER = "https://authority.test:8443"


def test_a_key_is_published_before_it_signs_and_until_its_last_token_ended(tmp_path):
    ring = KeyRing.open(tmp_path, NOW)
    first = ring.signing(NOW).kid
    second = ring.rotate(NOW + timedelta(days=1)).kid
    turned = NOW + timedelta(days=1, minutes=10)
    assert ring.signing(turned - timedelta(seconds=1)).kid == first
    assert {first, second} == set(ring.published().thumbprints())
    assert ring.signing(turned).kid == second
    ring.tend(turned + timedelta(minutes=5), life=timedelta(days=30))
    assert first in ring.published()
    ring.tend(turned + timedelta(minutes=6), life=timedelta(days=30))
    assert set(ring.published().thumbprints()) == {second}
    assert len(list(tmp_path.glob("token-*.pem"))) == 1
    again = KeyRing.open(tmp_path, turned + timedelta(minutes=6))
    assert again.signing(turned + timedelta(minutes=6)).kid == second


def test_the_ring_rotates_when_its_time_has_come(tmp_path):
    ring = KeyRing.open(tmp_path, NOW)
    ring.tend(NOW + timedelta(days=29), life=timedelta(days=30))
    assert len(ring.published()) == 1
    for day in (30, 30.001):
        ring.tend(NOW + timedelta(days=day), life=timedelta(days=30))
        assert len(ring.published()) == 2


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'[{"file": "../token.pem", "signs_from": "2026-11-22T12:00:00Z"}]']
)
def test_a_ring_that_cannot_be_read(tmp_path, text):
    KeyRing.open(tmp_path, NOW)
    good = (tmp_path / "ring.json").read_bytes()
    write_private(tmp_path / "ring.json", text)
    with pytest.raises(UmecError) as caught:
        KeyRing.open(tmp_path, NOW)
    assert caught.value.code == "key-ring-invalid"
    write_private(tmp_path / "ring.json", good)
    KeyRing.open(tmp_path, NOW)


def test_exposed_keys_and_a_foreign_ca(tmp_path):
    KeyRing.open(tmp_path / "keys", NOW)
    file = next((tmp_path / "keys").glob("token-*.pem"))
    file.chmod(0o644)
    with pytest.raises(UmecError) as caught:
        KeyRing.open(tmp_path / "keys", NOW)
    assert caught.value.code == "key-file-exposed"
    CertificateAuthority.open(tmp_path, NOW)
    CertificateAuthority.open(tmp_path / "other", NOW)
    (tmp_path / "platform-ca.pem").write_bytes((tmp_path / "other" / "platform-ca.pem").read_bytes())
    with pytest.raises(UmecError) as caught:
        CertificateAuthority.open(tmp_path, NOW)
    assert caught.value.code == "platform-ca-invalid"


def test_tokens_of_the_old_key_live_through_a_rotation(play):
    async def scenario(world):
        api = world.api("https://authority.test:8444/")
        before = await world.token()
        world.service.ring.rotate(world.now - timedelta(minutes=10))
        after = await world.token()
        assert peek_header(before)["kid"] != peek_header(after)["kid"]
        published = KeySet.from_jwks((await world.http.get("/oauth2/jwks")).json())
        assert peek_header(before)["kid"] in published
        assert peek_header(after)["kid"] in published
        for token in (before, after):
            await api.verify(world.presented(token))

    play(scenario)


def test_documents(play):
    async def scenario(world):
        server = (await world.http.get("/.well-known/oauth-authorization-server")).json()
        assert server["issuer"] == ISSUER
        assert server["response_types_supported"] == []
        assert server["token_endpoint_auth_signing_alg_values_supported"] == ["ES256"]
        for name in ("token", "introspection", "revocation", "challenge"):
            path = server[f"{name}_endpoint"].removeprefix(ISSUER)
            assert (await world.http.post(path)).status_code != 404
        openid = (await world.http.get("/.well-known/openid-configuration")).json()
        assert (openid["issuer"], openid["jwks_uri"]) == (ISSUER, f"{ISSUER}/oauth2/jwks")
        resource = (await world.http.get("/.well-known/oauth-protected-resource/platform/v1")).json()
        assert resource["resource"] == f"{ISSUER}/platform/v1"
        assert resource["authorization_servers"] == [ISSUER]
        missing = await world.http.get("/.well-known/oauth-protected-resource/other/v1")
        assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
        assert "d" not in (await world.http.get("/oauth2/jwks")).json()["keys"][0]

    play(scenario)


def test_the_audit_log_proves_itself(play):
    async def scenario(world):
        from umec_core.audit import verify_export  # noqa: PLC0415

        first = (await world.call("operator", "GET", "/identity/v1/audit")).json()
        checkpoint = verify_export(first, world.service.audit_key)
        await world.token()
        second = await world.service.export_audit()
        verify_export(second, world.service.audit_key, first["checkpoint"])
        assert checkpoint.size == len(first["entries"])
        second["entries"][0]["actor"] = "somebody else"
        with pytest.raises(UmecError) as caught:
            verify_export(second, world.service.audit_key)
        assert caught.value.code == "audit-rewritten"

    play(scenario)
