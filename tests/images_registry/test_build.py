"""Images from this machine's packages: complete, small, and the same digest twice."""

import gzip
import io
import json
import socket
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_core.errors import UmecError
from umec_images.build import ImageSpec, build_image, load_spec
from umec_images.build.layer import Entry, write_layer
from umec_images.build.packages import Package, closure, parse_status
from umec_images.oci.errors import LayoutInvalid
from umec_images.oci.layout import Layout
from umec_images.oci.reference import digest_of


def code(work, *arguments, **named):
    with pytest.raises(UmecError) as caught:
        work(*arguments, **named)
    return caught.value.code


def package(name, *depends, provides=()):
    return Package(name, "1", "all", tuple(provides), tuple(depends))


def test_a_description_with_faults_names_them_all(tmp_path):
    file = tmp_path / "image.toml"
    file.write_text('packages = ["Bad Name"]\nunknown = 1\n')
    with pytest.raises(UmecError) as caught:
        load_spec(tmp_path)
    assert caught.value.code == "image-spec-invalid"
    assert all(name in caught.value.detail for name in ("packages", "unknown", "entrypoint"))
    file.write_text("entrypoint = [")
    assert code(load_spec, file) == "image-spec-invalid"
    assert code(load_spec, tmp_path / "missing.toml") == "image-spec-invalid"
    file.write_text('entrypoint = ["/bin/true"]')
    assert load_spec(tmp_path)[0].entrypoint == ["/bin/true"]


def test_what_is_not_installed_is_not_built(tmp_path):
    missing = ImageSpec(entrypoint=["/x"], packages=["no-such-package"])
    assert code(build_image, missing, tmp_path, tmp_path / "out", tag="v1") == "package-missing"
    missing = ImageSpec(entrypoint=["/x"], distributions=["no-such-distribution"])
    assert code(build_image, missing, tmp_path, tmp_path / "out", tag="v1") == "distribution-missing"
    assert code(build_image, ImageSpec(entrypoint=["/x"]), tmp_path, tmp_path / "out", tag="v1") == "image-spec-invalid"


def test_dependencies_follow_alternatives_and_provides():
    known = {
        each.name: each
        for each in (
            package("a", ("missing", "b"), ("virtual",)),
            package("b", ("a",)),
            package("c", provides=("virtual",)),
            package("d"),
        )
    }
    assert [each.name for each in closure(["a"], known)] == ["a", "b", "c"]
    assert [each.name for each in closure(["a"], known, exclude=["c", "virtual"])] == ["a", "b"]
    del known["c"]
    assert code(closure, ["a"], known) == "package-missing"


@given(st.text())
def test_any_status_text_is_read(text):
    assert isinstance(parse_status(text), dict)


def test_a_socket_has_no_place_in_a_layer(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        entries = [Entry("/file", tmp_path / "file"), Entry("/s", tmp_path / "s")]
        assert code(write_layer, "l", entries, tmp_path) == "file-kind-refused"
    assert code(write_layer, "l", [Entry("/../x", b"")], tmp_path) == "file-kind-refused"
    assert write_layer("l", entries[:1], tmp_path).files == 1


def test_the_same_files_give_the_same_digest(tmp_path):
    digests = set()
    for run, names in (("one", ("b", "a")), ("two", ("a", "b"))):
        folder = tmp_path / run / "src"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(name)
            (folder / name).chmod(0o600 if run == "one" else 0o4644)
        (folder / "link").symlink_to("a")
        spec = ImageSpec.model_validate({"entrypoint": ["/app/a"], "folders": [{"source": "src", "target": "/app"}]})
        digests.add(build_image(spec, tmp_path / run, tmp_path / run / "out", tag="v1").digest)
    assert len(digests) == 1


def test_an_image_of_installed_packages_holds_an_interpreter(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("print('up')")
    spec = ImageSpec.model_validate(
        {
            "packages": ["python3-minimal"],
            "distributions": ["idna"],
            "entrypoint": ["/usr/bin/python3", "/app/app.py"],
            "folders": [{"source": "src", "target": "/app"}],
        }
    )
    report = build_image(spec, tmp_path, tmp_path / "out", tag="v1")
    assert {"libc6", "python3-minimal", "libpython3.11-minimal"} <= report.packages.keys()
    assert {"perl-base", "debconf", "dpkg"}.isdisjoint(report.packages)
    layout = Layout(tmp_path / "out")
    image = layout.image()
    assert (image.digest, image.tag, len(image.manifest.layers)) == (report.digest, "v1", 3)
    config = json.loads(layout.blob(image.manifest.config.digest).read_bytes())
    assert config["config"]["User"] == "65534:65534"
    for layer, diff_id in zip(image.manifest.layers, config["rootfs"]["diff_ids"], strict=True):
        packed = layout.blob(layer.digest).read_bytes()
        assert (digest_of(packed), digest_of(gzip.decompress(packed))) == (layer.digest, diff_id)
    plain = gzip.decompress(layout.blob(image.manifest.layers[0].digest).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        members = {member.name: member for member in tar}
    assert {"usr/bin/python3", "usr/lib/x86_64-linux-gnu/libc.so.6", "lib", "etc/passwd"} <= members.keys()
    assert all(
        (member.mtime == member.uid == 0 and not member.mode & 0o7022) or member.issym() for member in members.values()
    )


def test_a_layout_that_was_tampered_with_is_refused(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("a")
    spec = ImageSpec.model_validate({"entrypoint": ["/a"], "folders": [{"source": "src", "target": "/"}]})
    build_image(spec, tmp_path, tmp_path / "out", tag="v1")
    layout = Layout(tmp_path / "out")
    file = layout.blob(layout.image().digest)
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    assert code(layout.image) == "blob-digest"
    file.write_bytes(content)
    assert layout.image().content == content
    with pytest.raises(LayoutInvalid):
        Layout(tmp_path / "nowhere").image()


def test_a_version_is_part_of_the_manifest(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("print('hello')")
    file, folders = tmp_path / "image.toml", '[[folders]]\nsource = "src"\ntarget = "/"\n'

    def annotation(described, version=None):
        file.write_text(f'entrypoint = ["/app.py"]\n{described}{folders}')
        spec, base = load_spec(file)
        report = build_image(spec, base, tmp_path / "out", tag="v1", version=version)
        stated = Layout(tmp_path / "out").image().manifest.annotations.get("org.opencontainers.image.version")
        assert report.to_json()["version"] == stated
        return stated

    assert annotation("") is None
    assert annotation("", "1.2.0") == "1.2.0"
    assert annotation('version = "1.1.0"\n') == "1.1.0"
    assert annotation('version = "1.1.0"\n', "1.2.0-rc.1") == "1.2.0-rc.1"
    assert code(annotation, 'version = "1.1"\n') == "image-spec-invalid"
    assert code(annotation, "", "1.1") == "version-invalid"
