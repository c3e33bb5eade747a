"""Images of nodes that run applications: what netd is told there, and that all it imports is brought along."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from umec_core.jose import KeySet
from umec_images.nodeimage import python
from umec_images.nodeimage.content import USERS, guest_program, place_system
from umec_images.nodeimage.errors import RecipeInvalid
from umec_images.nodeimage.recipe import load_recipe, parse_recipe, with_site
from umec_platform.netd.__main__ import read_settings

RECIPES = Path(__file__).parents[2] / "images" / "recipes"
BASE = """
name = "street-node"
version = 3
packages = ["runc"]
[kernel]
package = "linux-image-cloud-amd64"
"""
SITE = '[site]\nurl = "https://10.0.0.1:8443"\nca = "ca.pem"\nkeys = "keys"\n'
HOST = """
[host]
access = ["eth1", "wlan0"]
address = "192.0.2.1/24"
services = ["10.0.0.1:8443", "10.0.0.1:8444"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a recipe, with what a site has to give."""
    made = tmp_path / "recipe"
    (made / "keys").mkdir(parents=True)
    (made / "ca.pem").write_text("CA")
    for name in ("verifier", "decision"):
        keys = KeySet([generate_private_key(SECP256R1()).public_key()]).jwks()
        (made / "keys" / f"{name}.jwks.json").write_text(json.dumps(keys))
    return made


def placed(folder: Path, text: str = BASE + SITE + HOST) -> Path:
    root = folder.parent / "root"
    place_system(root, parse_recipe(text.encode()), folder)
    return root


def test_netd_of_an_image_believes_the_keys_that_the_build_was_given(folder: Path) -> None:
    root = placed(folder)
    found = read_settings(root / "etc/umec/host.json", node="pole-7", state=folder, agent=folder)
    for keys, name in ((found.terms.keys, "verifier"), (found.decision_keys, "decision")):
        assert keys.jwks() == json.loads((folder / "keys" / f"{name}.jwks.json").read_text())
    assert (found.terms.issuer, found.decision_issuer) == (
        "https://10.0.0.1:8443/attest/v1",
        "https://10.0.0.1:8443/platform/v1",
    )
    assert (found.access, str(found.access_address), str(found.pool)) == (
        ("eth1", "wlan0"),
        "192.0.2.1/24",
        "10.64.0.0/16",
    )
    assert (root / "etc/umec/access").read_text() == "eth1 192.0.2.1/24\nwlan0 \n"
    assert (root / "etc/umec/site").read_text() == "https://10.0.0.1:8443\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('["eth1", "wlan0"]', "[]"),
        ('["eth1", "wlan0"]', '["eth1 down"]'),
        ('["eth1", "wlan0"]', '["/etc"]'),
        ("192.0.2.1/24", "192.0.2.1/33"),
        ("192.0.2.1/24", "pole"),
        ("10.0.0.1:8444", "site.example:8444"),
        ("10.0.0.1:8444", "10.0.0.1:0"),
        ("10.0.0.1:8444", "10.0.0.1:65536"),
        ("10.0.0.1:8444", "10.0.0.1"),
        ('address = "192.0.2.1/24"', 'address = "192.0.2.1/24"\npool = "10.64.0.1/16"'),
        ('address = "192.0.2.1/24"', 'address = "192.0.2.1/24"\nlease-seconds = 0.5'),
        ('address = "192.0.2.1/24"', 'address = "192.0.2.1/24"\nmore = 1'),
        ('keys = "keys"', 'keys = "/root"'),
        ('keys = "keys"', 'keys = "../keys"'),
    ],
)
def test_one_fault_in_a_host(before: str, after: str) -> None:
    good = BASE + SITE + HOST
    assert good.count(before) == 1
    with pytest.raises(RecipeInvalid) as refused:
        parse_recipe(good.replace(before, after).encode())
    assert refused.value.code == "recipe-invalid"
    assert parse_recipe(good.encode()).host is not None


def test_a_host_that_knows_no_keys_or_other_things_for_keys_is_not_built(folder: Path) -> None:
    with pytest.raises(RecipeInvalid, match="--site-keys") as refused:
        placed(folder, (BASE + SITE + HOST).replace('keys = "keys"\n', ""))
    assert refused.value.code == "recipe-invalid"
    good = (folder / "keys" / "decision.jwks.json").read_bytes()
    for bad in (b"", b"[]", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA"}]}'):
        (folder / "keys" / "decision.jwks.json").write_bytes(bad)
        with pytest.raises(RecipeInvalid, match="no key set") as refused:
            placed(folder)
        assert refused.value.code == "recipe-invalid"
    (folder / "keys" / "decision.jwks.json").write_bytes(good)
    assert (placed(folder) / "etc/umec/host.json").exists()


def test_an_image_that_is_no_host_or_of_no_site_starts_no_netd(folder: Path) -> None:
    for text in (BASE + SITE, BASE + HOST):
        assert not (placed(folder, text) / "etc/umec/host.json").exists()
    assert (placed(folder) / "etc/umec/host.json").exists()


def test_keys_that_are_given_go_before_those_of_the_recipe() -> None:
    recipe = parse_recipe((BASE + SITE).encode())
    given = with_site(recipe, None, None, Path("/x/keys")).site
    assert given is not None
    assert (given.url, given.ca, given.keys) == ("https://10.0.0.1:8443", "ca.pem", "/x/keys")


def test_the_street_node_brings_all_that_netd_and_its_relay_import() -> None:
    recipe = load_recipe(RECIPES / "street-node.toml")
    assert recipe.host is not None
    needed = python.foreign(python.HOST_ENTRIES)
    assert {"pydantic", "pyroute2", "httpx"} <= needed
    assert needed <= {name.replace("-", "_") for name in recipe.distributions}
    assert {"runc", "unbound", "libnftables1", "iproute2"} <= set(recipe.packages)
    assert "libsqlite3-0" not in recipe.exclude  # pyroute2 imports it, and does nothing with it here
    assert {"crc32c_generic", "ext4"} <= set(recipe.kernel.modules)
    servers = {"fastapi", "starlette", "sqlalchemy", "uvicorn", "cedarpy", "sigstore", "authlib", "typer", "rich"}
    assert not needed & servers


def test_images_of_applications_have_a_bound_that_the_kernel_keeps_and_the_relay_stays_below_it() -> None:
    program = guest_program("netd.sh").decode()
    mount = next(line.split() for line in program.splitlines() if line.startswith("mount") and "umec-images" in line)
    assert {"nosuid", "nodev", "noexec", "size=25%"} <= set(mount[mount.index("-o") + 1].split(","))
    assert "eighth=$(awk '/^MemTotal/ { print int($2 / 8192) }' /proc/meminfo)" in program
    assert '--images-mebibytes "$eighth"' in program


def test_netd_lets_the_agent_s_user_in() -> None:
    assert f"--allow-uid {USERS['umec-agent']}".encode() in guest_program("netd.sh")
