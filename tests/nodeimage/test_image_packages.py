"""Packages of a node image: resolved, locked, fetched by digest, unpacked without their scripts."""

import contextlib
import hashlib
import sys
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.nodeimage import fetch
from umec_images.nodeimage.catalog import needed, parse_offers
from umec_images.nodeimage.errors import (
    ContentRefused,
    KernelUnmeasured,
    LockInvalid,
    ModuleMissing,
    PackageChanged,
    PackageNotLocked,
    PackageUnknown,
    RecipeInvalid,
    ToolFailed,
    ToolMissing,
)
from umec_images.nodeimage.fetch import Sources
from umec_images.nodeimage.kernel import BUILT_IN, LEFT_OUT, check_configuration, find_kernel, module_order
from umec_images.nodeimage.lock import (
    MAX_LOCK,
    Lock,
    LockedPackage,
    check_python,
    load_lock,
    locked_packages,
    parse_lock,
    render_lock,
)
from umec_images.nodeimage.maker import STUB, check_maker, made_with
from umec_images.nodeimage.python import ENTRIES, PLACE, compile_tree, foreign, imported, place_own
from umec_images.nodeimage.tools import ENVIRONMENT, PACKAGES, piped, require_file, run
from umec_images.nodeimage.tree import place_file, place_link, prepare, remove_unwanted, unpack

DIGEST = "ab" * 32


def paragraph(name: str, depends: str = "", **fields: str) -> str:
    given = {"Package": name, "Version": "1.0-1", "Architecture": "amd64", "Depends": depends, "Size": "10"}
    return "".join(f"{key}: {value}\n" for key, value in (given | {"SHA256": DIGEST} | fields).items())


CATALOG = "\n".join(
    [
        paragraph("node", "library (>= 2), tool | other-tool"),
        paragraph("library", "deeper:any"),
        paragraph("deeper", "dpkg"),
        paragraph("other-tool"),
        paragraph("dpkg", "libdpkg"),
        paragraph("libdpkg"),
    ]
)


def test_what_is_needed_is_found_and_sorted():
    assert [each.name for each in needed(["node"], parse_offers(CATALOG), [])] == [
        *("deeper", "library", "node", "other-tool")
    ]


def test_what_only_installs_is_left_out_unless_it_is_wanted():
    assert "dpkg" not in [each.name for each in needed(["deeper"], parse_offers(CATALOG), [])]
    assert [each.name for each in needed(["dpkg"], parse_offers(CATALOG), [])] == ["dpkg", "libdpkg"]


def test_what_a_recipe_excludes_goes_with_what_only_that_needs():
    assert [each.name for each in needed(["node"], parse_offers(CATALOG), ["library"])] == ["node", "other-tool"]


@pytest.mark.parametrize("wanted", ["absent", "foreign", "without-digest", "short-digest", "without-size"])
def test_what_no_source_offers_as_it_should_be_is_refused(wanted):
    bad = [
        paragraph("foreign", Architecture="arm64"),
        paragraph("without-digest", SHA256=""),
        paragraph("short-digest", SHA256="ab"),
        paragraph("without-size", Size="²"),
    ]
    offers = parse_offers("\n".join([CATALOG, *bad]))
    with pytest.raises(PackageUnknown, match=wanted) as caught:
        needed(["node", wanted], offers, [])
    assert caught.value.code == "package-unknown"
    assert needed(["node"], offers, [])


@given(st.text(max_size=300))
def test_any_text_is_a_catalog(text):
    assert all(each.sha256 for each in parse_offers(text).values())


LOCKED = LockedPackage(name="node", version="1:1.0~rc1-1+b2", sha256=DIGEST)
PACKAGE = st.builds(
    LockedPackage,
    name=st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True),
    version=st.from_regex(r"[A-Za-z0-9.+:~-]{1,20}", fullmatch=True),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
)
LIST = st.lists(PACKAGE, max_size=4, unique_by=lambda each: each.name)


@given(st.builds(Lock, debian=LIST, python=LIST, maker=LIST))
def test_a_lock_that_is_written_is_read(lock):
    assert parse_lock(render_lock(lock)) == lock


@given(st.binary(max_size=300))
def test_any_bytes_are_a_lock_or_refused(raw):
    with contextlib.suppress(LockInvalid):
        assert isinstance(parse_lock(raw), Lock)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("debian", "rpm"),
        lambda text: text.replace(DIGEST, "AB" * 32),
        lambda text: text.replace('"node"', '"../node"'),
        lambda text: text.replace("1:1.0~rc1-1+b2", "1 0"),
        lambda text: text.replace('"version"', '"versions"'),
        lambda text: text.replace('"python": [\n', '"python": [\n' + LOCKED.model_dump_json() + ","),
        lambda text: text + "x",
    ],
)
def test_a_lock_with_a_fault_is_refused(change):
    text = render_lock(Lock(debian=[LOCKED], python=[LOCKED])).decode()
    with pytest.raises(LockInvalid) as caught:
        parse_lock(change(text).encode())
    assert caught.value.code == "packages-lock-invalid"
    assert parse_lock(text.encode()).debian == [LOCKED]


def test_a_lock_that_cannot_be_read_is_refused(tmp_path):
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path / "large", "more than")):
        if path.name == "large":
            path.write_bytes(b" " * (MAX_LOCK + 1))
        with pytest.raises(LockInvalid, match=why) as caught:
            load_lock(path)
        assert caught.value.code == "packages-lock-invalid"
    (tmp_path / "good").write_bytes(render_lock(Lock(debian=[LOCKED], python=[])))
    assert load_lock(tmp_path / "good").debian == [LOCKED]


def test_a_recipe_that_wants_more_than_the_lock_is_refused():
    lock = Lock(debian=[LOCKED], python=[])
    with pytest.raises(PackageNotLocked, match="runc") as caught:
        locked_packages(["node", "runc"], lock)
    assert caught.value.code == "package-not-locked"
    assert locked_packages(["node"], lock) == [LOCKED]


def test_a_distribution_that_is_not_locked_is_refused():
    with pytest.raises(PackageNotLocked, match="node") as caught:
        check_python([LOCKED], Lock(debian=[LOCKED], python=[]))
    assert caught.value.code == "package-not-locked"
    check_python([LOCKED], Lock(debian=[], python=[LOCKED]))


@pytest.mark.parametrize("changed", [{"version": "2"}, {"sha256": "00" * 32}])
def test_a_distribution_that_changed_is_refused(changed):
    with pytest.raises(PackageChanged) as caught:
        check_python([LOCKED.model_copy(update=changed)], Lock(debian=[], python=[LOCKED]))
    assert caught.value.code == "package-changed"


MADE = [LockedPackage(name=name, version="1", sha256=DIGEST) for name in ("squashfs-tools", "systemd-boot-efi", "umec")]


@pytest.mark.parametrize("changed", ["systemd-boot-efi", "umec"])
def test_what_the_machine_that_builds_puts_into_an_image_is_that_of_the_lock(changed):
    lock, told = Lock(debian=[], python=[], maker=MADE), []
    check_maker(MADE, lock, told.append)
    other = [each.model_copy(update={"sha256": "00" * 32}) if each.name == changed else each for each in MADE]
    with pytest.raises(PackageChanged, match=changed) as caught:
        check_maker(other, lock, told.append)
    assert caught.value.code == "package-changed"
    with pytest.raises(PackageNotLocked, match=changed) as caught:
        check_maker(
            MADE, Lock(debian=[], python=[], maker=[each for each in MADE if each.name != changed]), told.append
        )
    assert caught.value.code == "package-not-locked"
    assert told == []


def test_another_tool_is_told_and_builds():
    told = []
    check_maker([MADE[0].model_copy(update={"version": "2"})], Lock(debian=[], python=[], maker=MADE), told.append)
    assert [line.partition(" has ")[0] for line in told] == ["not as in the lock: squashfs-tools 2"]


@pytest.mark.vm
def test_a_lock_names_all_that_the_machine_that_builds_adds():
    found = made_with(host=False)
    assert [each.name for each in found] == ["kmod", "python", "squashfs-tools", "systemd-boot-efi", "umec"]
    assert found[3].sha256 == hashlib.sha256(Path(STUB).read_bytes()).hexdigest()
    assert made_with(host=True)[4].sha256 != found[4].sha256 == made_with(host=False)[4].sha256


def cached(tmp_path, content: bytes) -> tuple[Sources, LockedPackage]:
    package = LockedPackage(name="node", version="1", sha256=hashlib.sha256(b"content").hexdigest())
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs" / f"{package.sha256}.deb").write_bytes(content)
    return Sources(tmp_path, "bookworm", "file:///nothing-is-here"), package


def test_what_is_in_the_cache_is_not_fetched(tmp_path):
    sources, package = cached(tmp_path, b"content")
    assert [path.read_bytes() for path in sources.fetch([package])] == [b"content"]


def test_what_was_damaged_in_the_cache_is_refused_and_removed(tmp_path):
    sources, package = cached(tmp_path, b"contend")
    with pytest.raises(PackageChanged, match="node 1 has SHA-256") as caught:
        sources.fetch([package])
    assert caught.value.code == "package-changed"
    assert list((tmp_path / "debs").iterdir()) == []


def test_what_no_source_gives_is_refused(tmp_path):
    sources, package = cached(tmp_path, b"content")
    other = package.model_copy(update={"sha256": DIGEST})
    with pytest.raises(PackageUnknown, match="node=1") as caught:
        sources.fetch([other])
    assert caught.value.code == "package-unknown"
    assert sources.fetch([package])


@pytest.fixture
def mirror(tmp_path, make_deb, monkeypatch):
    """A mirror with one package, whose lists nobody signed: they are believed for once."""
    monkeypatch.setattr(fetch, "TRUST", "trusted=yes")
    package = make_deb({"name": "./usr/bin/x", "content": b"x"}).read_bytes()
    lists = tmp_path / "mirror/dists/bookworm/main/binary-amd64"
    lists.mkdir(parents=True)
    (tmp_path / "mirror/x_1_all.deb").write_bytes(package)
    digest = hashlib.sha256(package).hexdigest()
    listed = {"Version": "1", "Architecture": "all", "Filename": "x_1_all.deb", "Size": str(len(package))}
    (lists / "Packages").write_text(paragraph("x", SHA256=digest, **listed))
    (tmp_path / "mirror/dists/bookworm/Release").write_text("Suite: bookworm\nComponents: main\nArchitectures: amd64\n")
    monkeypatch.chdir(tmp_path)
    return Sources(Path("cache"), "bookworm", f"file://{tmp_path}/mirror"), digest


def test_a_package_is_resolved_fetched_and_kept(mirror, tmp_path):
    sources, digest = mirror
    (offer,) = needed(["x"], sources.offers(), [])
    (path,) = sources.fetch([LockedPackage(name=offer.name, version=offer.version, sha256=offer.sha256)])
    assert path == tmp_path / f"cache/debs/{digest}.deb"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_a_package_that_comes_with_another_digest_than_the_lock_is_refused(mirror):
    sources, digest = mirror
    sources.offers()
    with pytest.raises(PackageChanged, match="came with another SHA-256") as caught:
        sources.fetch([LockedPackage(name="x", version="1", sha256=DIGEST)])
    assert caught.value.code == "package-changed"
    assert sources.fetch([LockedPackage(name="x", version="1", sha256=digest)])


def test_lists_that_nobody_signed_are_refused(mirror, monkeypatch):
    sources, _ = mirror
    assert sources.offers()
    monkeypatch.undo()
    with pytest.raises(ToolFailed, match="not signed") as caught:
        sources.offers()
    assert caught.value.code == "tool-failed"


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Has apt find further settings of this machine."""

    def configure(text: str) -> None:
        (tmp_path / "apt.conf").write_text(text)
        monkeypatch.setitem(ENVIRONMENT, "APT_CONFIG", str(tmp_path / "apt.conf"))

    return configure


@pytest.mark.usefixtures("mirror")
def test_lists_that_do_not_come_are_not_replaced_by_old_ones(configured, tmp_path):
    """A mirror that somebody keeps away would otherwise keep packages with known holes in images."""
    configured('Acquire::Retries "0";')
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "mirror")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        sources = Sources(Path("cache"), "bookworm", f"http://127.0.0.1:{server.server_port}")
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            assert "x" in sources.offers()
        finally:
            server.shutdown()
            serving.join()
    with pytest.raises(ToolFailed, match="apt-get failed") as caught:
        sources.offers()
    assert caught.value.code == "tool-failed"


def test_sources_and_settings_of_this_machine_do_not_count(mirror, configured, tmp_path, monkeypatch):
    sources, _ = mirror
    other = tmp_path / "other/dists/bookworm"
    (other / "main/binary-amd64").mkdir(parents=True)
    (other / "main/binary-amd64/Packages").write_text(paragraph("y"))
    (other / "Release").write_text("Suite: bookworm\nComponents: main\nArchitectures: amd64\n")
    (tmp_path / "parts").mkdir()
    for name in ("sources.list", "parts/more.list"):
        (tmp_path / name).write_text(f"deb [trusted=yes] file://{tmp_path}/other bookworm main\n")
    configured(
        f'Dir::Etc {{ SourceList "{tmp_path}/sources.list"; SourceParts "{tmp_path}/parts"; }};'
        ' Acquire::AllowInsecureRepositories "true";'
    )
    monkeypatch.setattr(fetch, "ARCHIVES", ((f"file://{tmp_path}/mirror", ""),))
    assert run(["apt-config", "dump", "Acquire::AllowInsecureRepositories"]).split()[1] == '"true";'
    for each in (sources, Sources(Path("cache"), "bookworm", None)):
        (offer,) = each.offers().values()
        (path,) = each.fetch([LockedPackage(name=offer.name, version=offer.version, sha256=offer.sha256)])
        assert (offer.name, path.is_file()) == ("x", True)
    monkeypatch.setattr(fetch, "TRUST", "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg")
    with pytest.raises(ToolFailed, match="not signed") as caught:
        sources.offers()
    assert caught.value.code == "tool-failed"


def test_packages_come_from_debian_with_its_security_updates(tmp_path):
    Sources(tmp_path, "trixie", None)._options()
    lines = (tmp_path / "apt/sources.list").read_text().splitlines()
    assert [line.split()[-2] for line in lines] == ["trixie", "trixie-updates", "trixie-security"]
    assert all(fetch.TRUST in line and " https://deb.debian.org/debian" in line for line in lines)


def tree_of(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    prepare(root)
    return root


def test_files_come_into_the_merged_tree_without_owner_and_set_uid_bit(tmp_path, make_deb):
    root = tree_of(tmp_path)
    package = make_deb(
        {"name": "./bin/su", "content": b"program", "mode": 0o4755},
        {"name": "./usr/bin/data", "content": b"data", "mode": 0o666},
        {"name": "./usr/bin/again", "kind": tarfile.LNKTYPE, "link": "./bin/su"},
        {"name": "./usr/bin/link", "kind": tarfile.SYMTYPE, "link": "su"},
        {"name": "./usr/share/man/man1/su.1.gz", "content": b"manual"},
        {"name": "./usr/share/doc/su/copyright", "content": b"copyright"},
        {"name": "./usr/share/doc/su/changelog.gz", "content": b"changes"},
        {"name": "./boot/kernel", "content": b"kernel"},
    )
    unpack(package, root)
    assert (root / "usr/bin/su").stat().st_mode & 0o7777 == 0o755
    assert (root / "usr/bin/data").stat().st_mode & 0o7777 == 0o644
    assert (root / "usr/bin/again").read_bytes() == b"program"
    assert (root / "usr/bin/link").readlink().name == "su"
    assert (root / "bin").is_symlink()
    assert sorted(path.name for path in (root / "usr/share").rglob("*") if path.is_file()) == ["copyright"]
    assert not (root / "boot").exists()
    unpack(package, root, keep=["boot/"])
    assert (root / "boot/kernel").read_bytes() == b"kernel"


FOLDER = {"name": "./usr/x", "kind": tarfile.DIRTYPE, "mode": 0o755}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([{"name": "./../out", "content": b"x"}], "leads out"),
        ([{"name": "./dev/null", "kind": tarfile.CHRTYPE}], "neither"),
        ([{"name": "./usr/pipe", "kind": tarfile.FIFOTYPE}], "neither"),
        (
            [{"name": "./usr/x", "kind": tarfile.SYMTYPE, "link": "/srv"}, {"name": "./usr/x/y", "content": b"x"}],
            "through the link",
        ),
        ([{"name": "./usr/y", "kind": tarfile.LNKTYPE, "link": "../../etc/passwd"}], "leads out"),
        ([{"name": "./usr/y", "kind": tarfile.LNKTYPE, "link": "./bin"}], "no file"),
        (
            [
                {"name": "./usr/x", "kind": tarfile.SYMTYPE, "link": "/etc/passwd"},
                {"name": "./usr/y", "kind": tarfile.LNKTYPE, "link": "./usr/x"},
            ],
            "no file",
        ),
        ([FOLDER, {"name": "./usr/x", "content": b"1"}], "/usr/x is a folder"),
        ([FOLDER, {"name": "./usr/x", "kind": tarfile.SYMTYPE, "link": "/srv"}], "/usr/x is a folder"),
        ([{"name": "./usr/x", "content": b"1"}, FOLDER], "/usr/x is to be a folder"),
        ([{"name": "./usr/x", "content": b"1"}, {"name": "./usr/x/y", "content": b"1"}], "/usr/x is to be a folder"),
        ([{"name": "./usr/x", "kind": tarfile.SYMTYPE, "link": "/nowhere"}, FOLDER], "/usr/x is to be a folder"),
    ],
)
def test_a_package_that_leads_out_of_the_tree_is_refused(tmp_path, make_deb, bad, why):
    root = tree_of(tmp_path)
    with pytest.raises(ContentRefused, match=why) as caught:
        unpack(make_deb(*bad), root)
    assert caught.value.code == "image-content-refused"
    unpack(make_deb({"name": "./usr/y", "content": b"x"}), root)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"!<arch>\n"])
def test_a_file_that_is_no_package_is_refused(tmp_path, make_deb, content):
    (tmp_path / "x.deb").write_bytes(content)
    root = tree_of(tmp_path)
    with pytest.raises(ContentRefused, match="no Debian package") as caught:
        unpack(tmp_path / "x.deb", root)
    assert caught.value.code == "image-content-refused"
    unpack(make_deb({"name": "./usr/y", "content": b"x"}), root)


def test_placed_files_replace_what_is_there_and_stay_in_the_tree(tmp_path):
    root = tree_of(tmp_path)
    place_link(root, "/etc/a", "/etc/hosts")
    place_file(root, "/etc/a", b"x")
    assert (root / "etc/a").read_bytes() == b"x"
    assert not (root / "etc/a").is_symlink()
    place_link(root, "/usr/out", "/srv")
    for bad in ("/", "/../x", "/usr/out/x"):
        with pytest.raises(ContentRefused) as caught:
            place_file(root, bad, b"x")
        assert caught.value.code == "image-content-refused"


def test_empty_folders_of_packages_go_and_those_of_the_system_stay(tmp_path, make_deb):
    root = tree_of(tmp_path)
    unpack(make_deb({"name": "./usr/share/empty/deep", "kind": tarfile.DIRTYPE, "mode": 0o755}), root)
    assert (root / "usr/share/empty/deep").is_dir()
    remove_unwanted(root)
    assert not (root / "usr/share").exists()
    assert all((root / name).is_dir() for name in ("etc", "usr/bin", "usr/lib", "dev", "proc", "var"))


CONFIGURATION = "".join(f"{option}=y\n" for option in BUILT_IN) + "CONFIG_DM_VERITY=m\n"


@pytest.mark.parametrize("option", BUILT_IN)
@pytest.mark.parametrize("value", ["m", "n", None])
def test_a_kernel_that_measures_too_late_is_refused(option, value):
    other = f"# {option} is not set\n" if value is None else f"{option}={value}\n"
    with pytest.raises(KernelUnmeasured, match=option) as caught:
        check_configuration(CONFIGURATION.replace(f"{option}=y\n", other))
    assert caught.value.code == "kernel-unmeasured"
    check_configuration(CONFIGURATION)


def kernel_tree(tmp_path, modules: dict[str, str]):
    folder = tmp_path / "usr/lib/modules/6.1"
    (folder / "kernel").mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.1").write_bytes(b"kernel")
    (folder / "modules.builtin").write_text("kernel/fs/ext4.ko\n")
    for name, depends in modules.items():
        (folder / f"kernel/{name}.ko").write_bytes(b"ELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")
    return find_kernel(tmp_path)


def test_modules_load_after_what_they_depend_on(tmp_path):
    kernel = kernel_tree(tmp_path, {"dm-verity": "dm-bufio,dm_mod", "dm-bufio": "dm_mod", "dm-mod": "ext4", "x": ""})
    assert module_order(["dm_verity", "ext4", "dm-mod"], kernel) == [
        *("kernel/dm-mod.ko", "kernel/dm-bufio.ko", "kernel/dm-verity.ko")
    ]


def test_modules_that_depend_on_each_other_end(tmp_path):
    assert len(module_order(["a"], kernel_tree(tmp_path, {"a": "b", "b": "a"}))) == 2


@pytest.mark.parametrize("wanted", ["absent", "a"])
def test_a_module_that_is_not_there_is_refused(tmp_path, wanted):
    kernel = kernel_tree(tmp_path, {"a": "absent", "b": ""})
    with pytest.raises(ModuleMissing, match="no module absent") as caught:
        module_order([wanted], kernel)
    assert caught.value.code == "kernel-module-missing"
    assert module_order(["b"], kernel) == ["kernel/b.ko"]


def test_an_image_has_one_kernel(tmp_path):
    kernel_tree(tmp_path, {})
    assert find_kernel(tmp_path).release == "6.1"
    (tmp_path / "boot/vmlinuz-6.2").write_bytes(b"")
    with pytest.raises(ModuleMissing, match="2 kernels") as caught:
        find_kernel(tmp_path)
    assert caught.value.code == "kernel-module-missing"


def test_a_node_carries_the_agent_and_no_server():
    found = imported(ENTRIES)
    assert set(ENTRIES) <= set(found)
    assert all(path.is_file() for path in found.values())
    assert not [
        name for name in found if name.startswith(("umec_attest.service", "umec_attest.testing", "umec_core.store"))
    ]
    assert {name.partition(".")[0] for name in found} == {"umec_attest", "umec_core", "umec_images"}
    images = {".".join(name.split(".")[1:2]) for name in found if name.startswith("umec_images.")}
    assert images == {"der", "nodeimage", "update"}
    assert not {"umec_images.nodeimage.builder", "umec_images.nodeimage.keys", "umec_images.update.store"} & set(found)


def test_an_agent_that_could_not_start_makes_no_image(tmp_path):
    names = foreign(ENTRIES)
    assert {"cryptography", "tpm2_pytss"} <= names
    for name in names - {"tpm2_pytss"}:
        (tmp_path / PLACE.removeprefix("/") / name).mkdir(parents=True)
    with pytest.raises(RecipeInvalid, match="imports tpm2_pytss, and") as caught:
        place_own(tmp_path)
    assert caught.value.code == "recipe-invalid"
    place_file(tmp_path, f"{PLACE}/tpm2_pytss.py", b"")
    place_own(tmp_path)
    assert (tmp_path / PLACE.removeprefix("/") / "umec_attest/agent/__main__.py").is_file()


def test_a_python_that_could_not_load_what_is_compiled_is_refused(tmp_path):
    other = tmp_path / "usr/lib/python3.99"
    other.mkdir(parents=True)
    with pytest.raises(RecipeInvalid, match=r"has python3\.99, and is built by python3") as caught:
        compile_tree(tmp_path)
    assert caught.value.code == "recipe-invalid"
    own = other.rename(other.with_name(f"python3.{sys.version_info.minor}"))
    (own / "x.py").write_text("")
    compile_tree(tmp_path)
    assert len(list(own.rglob("*.pyc"))) == 1


def test_a_tool_that_is_not_here_is_named_with_its_package(monkeypatch, tmp_path):
    missing = str(tmp_path / "missing")
    monkeypatch.setitem(PACKAGES, "no-such-tool", "a-package")
    monkeypatch.setitem(PACKAGES, missing, "a-package")
    for use in (lambda: run(["no-such-tool"]), lambda: require_file(missing)):
        with pytest.raises(ToolMissing, match="is not here") as caught:
            use()
        assert caught.value.code == "tool-missing"
        assert caught.value.advice == "apt-get install a-package"
    (tmp_path / "missing").write_bytes(b"")
    assert require_file(missing) == tmp_path / "missing"


def test_a_tool_that_fails_says_its_last_words():
    with pytest.raises(ToolFailed, match=r"ls failed with status 2: .*/absent") as caught:
        run(["ls", "/absent"])
    assert caught.value.code == "tool-failed"
    with pytest.raises(ToolFailed, match="/absent"), piped(["ls", "/absent"]) as stream:
        assert stream.read() == b""
    with piped(["echo", "x"]) as stream:
        assert stream.read() == b"x\n"


def test_a_tool_hears_nothing_of_the_caller(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    assert "SECRET" not in run(["env"])


@pytest.mark.parametrize("option", LEFT_OUT)
def test_a_kernel_that_would_take_another_policy_later_is_refused(option):
    check_configuration(f"{CONFIGURATION}# {option} is not set\n")
    with pytest.raises(KernelUnmeasured, match=option) as caught:
        check_configuration(f"{CONFIGURATION}{option}=y\n")
    assert caught.value.code == "kernel-unmeasured"
