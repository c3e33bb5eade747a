"""Every command that reads a file refuses what is none of its kind: with a code and exit status 1, no stack trace."""

from typing import Final

import pytest

IMAGE: Final = "localhost:1/tenant/name:tag"
FILE: Final = "FILE"
NETD: Final = (
    *("netd", "--node", "n", "--socket", "TMP/socket", "--state", "TMP/netd", "--verifier-issuer", "i"),
    *("--decision-issuer", "i", "--access", "lo", "--access-address", "192.0.2.1/24", "--allow-uid", "0"),
)
ENROLL: Final = (
    *("node", "enroll", "--state", "TMP/state", "--tcti", "swtpm:port=1"),
    *("--url", "https://localhost:1"),
)
JUDGE: Final = ("evidence", "verify", "GOOD/evidence", "--nonce", "00")

COMMANDS: Final = {
    "app list": ("app", "list", "--credential", FILE),
    "app onboard": ("app", "onboard", FILE, "--credential", "GOOD/object.json"),
    "app instantiate": ("app", "instantiate", "a", "--credential", FILE),
    "audit fetch": ("audit", "fetch", "attest", "--credential", FILE, "--out", "TMP/log"),
    "audit verify": ("audit", "verify", FILE, "--key", "GOOD/key.pem"),
    "audit verify --key": ("audit", "verify", "GOOD/log.json", "--key", FILE),
    "audit verify --previous": ("audit", "verify", "GOOD/log.json", "--key", "GOOD/key.pem", "--previous", FILE),
    "bootlog show": ("bootlog", "show", FILE),
    "client add": ("client", "add", "c", "--credential", FILE, "--out", "TMP/out"),
    "client remove": ("client", "remove", "c", "--credential", FILE),
    "evidence verify": ("evidence", "verify", FILE),
    "evidence verify --structural": ("evidence", "verify", FILE, "--structural"),
    "evidence verify --ak": (
        *JUDGE,
        "--ak",
        FILE,
        "--reference",
        FILE,
        "--signer",
        "GOOD/key.pem",
        "--policy",
        "default",
    ),
    "evidence verify --signer": (*JUDGE, "--ak", FILE, "--reference", FILE, "--signer", FILE, "--policy", "default"),
    "evidence verify --policy": (
        *JUDGE,
        "--ak",
        FILE,
        "--reference",
        FILE,
        "--signer",
        "GOOD/key.pem",
        "--policy",
        FILE,
    ),
    "host list": ("host", "list", "--credential", FILE),
    "image attach": ("image", "attach", IMAGE, FILE, "--credential", "GOOD/object.json"),
    "image build": ("image", "build", FILE, "--out", "TMP/layout"),
    "image push": ("image", "push", FILE, IMAGE, "--credential", "GOOD/object.json"),
    "image sign": ("image", "sign", IMAGE, "--credential", "GOOD/object.json", "--layout", FILE),
    "image tree": ("image", "tree", IMAGE, "--credential", FILE),
    "image verify": ("image", "verify", IMAGE, "--credential", FILE, "--identity", "i"),
    "image verify-bundle": (
        *("image", "verify-bundle", "GOOD/key.pem", "--bundle", FILE, "--trusted-root", FILE),
        *("--certificate-identity", "i", "--certificate-oidc-issuer", "j"),
    ),
    "image verify-bundle --key": (
        *("image", "verify-bundle", "GOOD/key.pem", "--bundle", FILE, "--trusted-root", FILE, "--key", FILE),
    ),
    "netd --verifier-jwks": (*NETD, "--verifier-jwks", FILE, "--decision-jwks", FILE),
    "node attest": ("node", "attest", "--state", FILE),
    "node call": ("node", "call", "GET", "https://localhost:1", "--state", FILE),
    "node enroll --ca": (*ENROLL, "--node", "n", "--ca", FILE),
    "node enroll --ek-chain": (*ENROLL, "--node", "n", "--ca", "GOOD/key.pem", "--ek-chain", FILE),
    "node enroll --ticket": (*ENROLL, "--ca", "GOOD/key.pem", "--ticket", f"@{FILE}"),
    "node list": ("node", "list", "--credential", FILE),
    "node run": ("node", "run", "--state", FILE),
    "node simulate-boot": ("node", "simulate-boot", "--tcti", "swtpm:port=1", "--image", FILE, "--log", "TMP/log"),
    "node token": ("node", "token", "--state", FILE, "--resource", "r"),
    "nodeimage build": ("nodeimage", "build", FILE, "--out", "TMP/image"),
    "nodeimage build --locked": ("nodeimage", "build", "GOOD/recipe.toml", "--out", "TMP/image", "--locked", FILE),
    "nodeimage export-corim": ("nodeimage", "export-corim", FILE, "--signer", "GOOD/key.pem", "--out", "TMP/out"),
    "nodeimage import-corim": ("nodeimage", "import-corim", FILE, "--out", "TMP/out"),
    "nodeimage firmware": ("nodeimage", "firmware", FILE, "--name", "n", "--out", "TMP/out"),
    "nodeimage predict": ("nodeimage", "predict", FILE),
    "nodeimage predict --firmware": ("nodeimage", "predict", "GOOD/image", "--firmware", FILE),
    "nodeimage sign": ("nodeimage", "sign", FILE, "--name", "n", "--version", "1", "--key", "TMP/key.pem"),
    "nodeimage update": ("nodeimage", "update", "GOOD/log.json", FILE, "--manifest", "00" * 32),
    "nodeimage update-status": ("nodeimage", "update-status", FILE),
    "nodeimage update-settle": ("nodeimage", "update-settle", FILE),
    "nodeimage update-settle --running": ("nodeimage", "update-settle", "GOOD/log.json", "--running", FILE),
    "nodeimage update-confirm": ("nodeimage", "update-confirm", FILE),
    "nodeimage publish": ("nodeimage", "publish", "GOOD/object.json", "--credential", FILE),
    "policy check": ("policy", "check", FILE),
    "policy explain": ("policy", "explain", "--default", "tokens", "--request", FILE),
    "policy explain --decision": ("policy", "explain", "--default", "tokens", "--decision", FILE),
    "policy show": ("policy", "show", FILE),
    "policy sign": ("policy", "sign", FILE, "--version", "1", "--key", "TMP/key.pem", "--out", "TMP/out"),
    "policy test": ("policy", "test", FILE),
    "service list": ("service", "list", "--credential", FILE),
    "tenant list": ("tenant", "list", "--credential", FILE),
    "token": ("token", "--resource", "r", "--credential", FILE),
    "up": ("up", "--config", FILE, "--state", "TMP/site"),
}
KINDS: Final = (
    *("empty", "binary", "not-utf8", "deep", "list", "other-object", "broken-pem", "too-large", "folder", "absent"),
)
ALLOWED: Final = {("up", "empty")}
"""Settings without an entry are the defaults: the site would be served."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_refused_with_a_code(umec, malformed, well_formed, tmp_path, name, kind):
    if (name, kind) in ALLOWED:
        return
    words = [
        word.replace(FILE, str(malformed[kind])) if word in {FILE, f"@{FILE}"} else word for word in COMMANDS[name]
    ]
    good = next(iter(well_formed.values())).parent
    words = [word.replace("GOOD/", f"{good}/").replace("TMP/", f"{tmp_path}/") for word in words]
    said = umec(*words, "--json")
    assert said.status == 1
    refusal = said.document
    assert set(refusal) == {"refused", "code", "detail", "advice"}
    assert refusal["refused"] is True
    assert refusal["code"]
    assert refusal["detail"]


def test_the_same_without_json_is_text(umec, malformed):
    said = umec("policy", "check", malformed["folder"])
    assert said.status == 1
    assert said.out == ""
    assert "policy-invalid" in said.err


def test_what_is_a_folder_of_policies_is_not_refused(umec):
    assert umec("policy", "check", "--default", "tokens", "--json").document["ok"] is True


def test_a_place_that_cannot_be_written_to_is_refused(umec, malformed, well_formed, tmp_path):
    taken = malformed["other-object"]
    sign = ("nodeimage", "predict", well_formed["image"], "--name", "n", "--version", "1", "--key")
    for words in (
        ("node", "sample-image", taken),
        ("node", "software-tpm", taken),
        ("up", "--state", taken),
        (*sign, malformed["folder"]),
        (*sign, tmp_path / "key.pem", "--out", malformed["folder"]),
        (*sign, tmp_path / "key.pem", "--out", malformed["absent"] / "out"),
    ):
        said = umec(*words, "--json")
        assert said.status == 1
        assert said.document["code"] == "system-refused"
    said = umec("node", "sample-image", tmp_path / "image", "--json")
    assert said.status == 0


def test_a_request_that_is_too_large_is_not_sent(umec, malformed):
    call = ("node", "call", "POST", "https://localhost:1", "--state", malformed["absent"], "--resource", "r")
    said = umec(*call, "--data", "x" * (1024 * 1024 + 1), "--json")
    assert said.document["code"] == "invalid-input"
    said = umec("node", "call", "POST", "ftp://localhost", *call[4:], "--data", "x", "--json")
    assert said.document["code"] == "invalid-input"
    said = umec(*call, "--data", "x", "--json")
    assert said.document["code"] == "agent-state-invalid"
