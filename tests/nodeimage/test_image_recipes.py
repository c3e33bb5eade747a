"""Recipes of node images: read strictly, all faults named; the shipped ones are good."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.nodeimage import builder
from umec_images.nodeimage.content import place_system
from umec_images.nodeimage.errors import RecipeInvalid
from umec_images.nodeimage.recipe import MAX_RECIPE, Recipe, load_recipe, parse_recipe, with_site
from umec_images.nodeimage.verity import Verity

RECIPES = Path(__file__).parents[2] / "images" / "recipes"
GOOD = """
name = "street-node"
version = 3
packages = ["runc"]
[kernel]
package = "linux-image-cloud-amd64"
"""
SITE = '[site]\nurl = "https://10.0.0.1:8443"\nca = "ca.pem"\n'
FILE = '[[files]]\nsource = "a"\ntarget = "/etc/a"\n'
TAKEN = (
    *(
        "/usr/lib/umec/init",
        "/lib/umec/init",
        "/usr/bin/busybox",
        "/init",
        "/etc",
        "/usr/share/",
        "/etc/umec/node.json",
    ),
    *("/etc/umec/site-ca.pem", "/etc/passwd", "/etc/ld.so.preload", "/etc/python3.11/sitecustomize.py"),
    *("/etc/modprobe.d/x.conf", "/usr/lib/python3/dist-packages/umec_attest/agent/boot.py", "/etc/ssl/openssl.cnf"),
)
"""Where a recipe's files have no place."""


def refused(text: str, place: str) -> None:
    with pytest.raises(RecipeInvalid, match=place) as caught:
        parse_recipe(text.encode())
    assert caught.value.code == "recipe-invalid"
    assert parse_recipe((GOOD + SITE + FILE).encode()).version == 3


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name = 'x'", "version.*packages.*kernel"),
        (GOOD.replace("version = 3", "version = 0"), "version"),
        (GOOD.replace("version = 3", 'version = "3"'), "version"),
        (GOOD.replace("version = 3", "version = 3.0"), "version"),
        (GOOD.replace("version = 3", f"version = {2**31}"), "version"),
        (GOOD.replace("street-node", "Street Node"), "name"),
        (GOOD.replace("street-node", "../x"), "name"),
        (GOOD.replace('["runc"]', "[]"), "packages"),
        (GOOD.replace('["runc"]', '["runc=1"]'), "packages.0"),
        (GOOD.replace('["runc"]', '["--option"]'), "packages.0"),
        (GOOD.replace("version = 3", 'version = 3\nsuite = "a b"'), "suite"),
        (GOOD.replace("version = 3", 'version = 3\nunknown = "x"'), "unknown"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["a b"]'), "command-line.0"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["roothash=00"]'), "command-line.0"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["umec.verity=1"]'), "command-line.0"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["init=/bin/sh"]'), "command-line.0"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["rdinit=/bin/sh"]'), "command-line.0"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["--"]'), "command-line.0"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["ima_policy="]'), "command-line.0"),
        (GOOD.replace("version = 3", "version = 3\ncommand-line = ['\"rdinit=/bin/sh\"']"), "command-line.0"),
        (GOOD.replace("version = 3", """version = 3\ncommand-line = ["x='y'"]"""), "command-line.0"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["ima-hash=sha1"]'), "command-line.0"),
        (GOOD.replace("version = 3", 'version = 3\ncommand-line = ["initcall-blacklist=init_ima"]'), "command-line.0"),
        (GOOD + 'modules = ["../x"]', "kernel.modules.0"),
        (GOOD + "[disk]\nesp = 32", "disk.esp"),
        (GOOD + "[disk]\nroot = 0", "disk.root"),
        (GOOD + SITE.replace("https:", "http:"), "site.url"),
        (GOOD + SITE.replace("8443", "8443/x"), "site.url"),
        (GOOD + SITE.replace("ca.pem", ""), "site.ca"),
        (GOOD + FILE.replace("/etc/a", "etc/a"), "files.0.target"),
        (GOOD + FILE.replace("/etc/a", "/etc/../../a"), "files.0.target"),
        (GOOD + FILE.replace("/etc/a", "/etc//a"), "files.0.target"),
        *((GOOD + FILE.replace("/etc/a", target), "files.0.target") for target in TAKEN),
        (GOOD + FILE.replace('"a"', '"/etc/shadow"'), "files.0.source"),
        (GOOD + FILE.replace('"a"', '"b/../../a"'), "files.0.source"),
        (GOOD + SITE.replace("ca.pem", "/etc/shadow"), "site: .*beside"),
        (GOOD + SITE.replace("ca.pem", "../ca.pem"), "site: .*refused"),
        (GOOD + FILE.replace('"a"', '""'), "files.0.source"),
        (GOOD + "[[files", "TOML"),
        ("name = '\ud800'".encode("utf-8", "surrogatepass").decode("latin-1"), "TOML|version"),
        ("a" * (MAX_RECIPE + 1), "more than"),
        ("a=" + "[" * 30_000, "TOML"),
    ],
)
def test_a_fault_is_named(text, place):
    refused(text, place)


def test_all_faults_are_named_together():
    refused(GOOD.replace("version = 3", "version = 0").replace('["runc"]', "[]"), "version: .*; packages: ")


def test_one_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeInvalid, match="No such file") as caught:
        load_recipe(tmp_path / "none.toml")
    assert caught.value.code == "recipe-invalid"
    (tmp_path / "none.toml").write_text(GOOD)
    assert load_recipe(tmp_path / "none.toml").name == "street-node"


def test_a_file_names_itself_in_its_refusal(tmp_path):
    (tmp_path / "bad.toml").write_text("version = 1")
    with pytest.raises(RecipeInvalid, match=r"bad\.toml: name"):
        load_recipe(tmp_path / "bad.toml")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_ones_are_good(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.site is None


def test_every_command_line_has_the_kernel_measure_what_it_starts():
    """Also that of a recipe which says nothing of it."""
    recipe = parse_recipe(GOOD.replace("version = 3", 'version = 3\ncommand-line = ["quiet"]').encode())
    words = builder._command_line(recipe, Verity(bytes(32), bytes(32), 1)).split()
    assert {"quiet", "ima_policy=tcb", "ima_hash=sha256"} <= set(words)


def test_a_site_that_is_given_goes_before_that_of_the_recipe():
    recipe = parse_recipe((GOOD + SITE).encode())
    other = with_site(recipe, "https://192.0.2.1:1", Path("/x/ca.pem"))
    assert other.site is not None
    assert (other.site.url, other.site.ca) == ("https://192.0.2.1:1", "/x/ca.pem")
    assert with_site(recipe, None, None) == recipe


def test_half_a_site_is_refused():
    recipe = parse_recipe(GOOD.encode())
    with pytest.raises(RecipeInvalid, match="ca") as caught:
        with_site(recipe, "https://192.0.2.1:1", None)
    assert caught.value.code == "recipe-invalid"
    assert with_site(recipe, "https://192.0.2.1:1", Path("ca.pem")).site is not None


def test_a_file_that_leads_out_of_the_folder_of_the_recipe_is_refused(tmp_path):
    folder, root = tmp_path / "recipe", tmp_path / "root"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    for name in ("a", "ca.pem"):
        recipe = parse_recipe((GOOD + SITE + FILE).encode())
        for each in ("a", "ca.pem"):
            (folder / each).write_text("x")
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "secret")
        with pytest.raises(RecipeInvalid, match=f"{name} leads out") as caught:
            place_system(root, recipe, folder)
        assert caught.value.code == "recipe-invalid"
        (folder / name).unlink()
        (folder / name).symlink_to("b")
        (folder / "b").write_text("x")
        place_system(root, recipe, folder)
        (folder / name).unlink()
    assert (root / "etc/a").read_bytes() == (root / "etc/umec/site-ca.pem").read_bytes() == b"x"
    given = with_site(recipe, None, tmp_path / "secret")
    (folder / "a").write_text("x")
    place_system(root, given, folder)
    assert (root / "etc/umec/site-ca.pem").read_bytes() == b"secret"


def test_what_the_build_places_itself_is_no_place_for_a_file_of_a_recipe(tmp_path):
    place_system(tmp_path, parse_recipe(GOOD.encode()), tmp_path)
    placed = [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_file()]
    for path in placed:
        refused(GOOD + FILE.replace("/etc/a", f"/{path.relative_to(tmp_path)}"), "files.0.target")
    assert {"init", "passwd", "resolv.conf"} <= {path.name for path in placed}


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_any_bytes_are_a_recipe_or_refused(raw):
    try:
        recipe = parse_recipe(raw)
    except RecipeInvalid:
        return
    assert recipe.packages


NAME = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
RECIPE = st.builds(
    lambda **kinds: Recipe.model_validate(kinds),
    name=NAME,
    version=st.integers(1, 2**31 - 1),
    packages=st.lists(st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True), min_size=1, max_size=4),
    exclude=st.lists(st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True), max_size=2),
    kernel=st.fixed_dictionaries({"package": st.just("linux"), "first-modules": st.lists(NAME, max_size=3)}),
    disk=st.fixed_dictionaries({"esp": st.integers(33, 4096), "root": st.integers(1, 4096)}),
    files=st.lists(
        st.fixed_dictionaries({"source": NAME, "target": NAME.map("/etc/{}".format), "executable": st.booleans()}),
        max_size=2,
    ),
)


@given(RECIPE)
def test_what_is_written_is_read(recipe):
    assert parse_recipe(_toml(recipe.model_dump(by_alias=True, exclude_none=True)).encode()) == recipe


def _toml(value) -> str:
    lines = [f"{name} = {_inline(member)}" for name, member in value.items()]
    return "\n".join(lines)


def _inline(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_inline(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(member) for member in value) + "]"
    return json.dumps(value)
