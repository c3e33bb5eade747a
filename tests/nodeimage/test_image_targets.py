"""The folder of an image: nothing but an older image is replaced, and nothing is lost between."""

import json

import pytest

from umec_images.nodeimage.errors import TargetTaken
from umec_images.nodeimage.target import check_target, put_in_place

MANIFEST = {"name": "minimal", "root_hash": "00", "files": {"uki.efi": {}, "efivars/db": {}}}


@pytest.fixture
def image(tmp_path):
    folder = tmp_path / "image"
    (folder / "efivars").mkdir(parents=True)
    (folder / "efivars/db").write_text("db")
    (folder / "uki.efi").write_text("old")
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return folder


def refused(folder, why):
    with pytest.raises(TargetTaken, match=why) as caught:
        check_target(folder)
    assert caught.value.code == "image-folder-taken"


@pytest.mark.parametrize(
    "manifest",
    [
        '{"name": "an extension of a browser", "manifest_version": 3}',
        *(json.dumps({key: value for key, value in MANIFEST.items() if key != name}) for name in MANIFEST),
        json.dumps(MANIFEST | {"files": ["uki.efi"]}),
        "[]",
        "[" * 100_000,
        "{",
        "",
    ],
)
def test_a_manifest_of_something_else_makes_no_image(image, manifest):
    check_target(image)
    (image / "manifest.json").write_text(manifest)
    refused(image, "is no image")
    (image / "manifest.json").unlink()
    refused(image, "is no image")


def test_whatever_lies_beside_an_image_is_not_removed_with_it(image):
    for name in ("thesis.txt", "efivars/thesis.txt"):
        (image / name).write_text("x")
        refused(image, f"{name} beside an image")
        (image / name).unlink()
        (image / name).symlink_to("nowhere")
        refused(image, f"{name} beside an image")
        (image / name).unlink()
    check_target(image)
    check_target(image.with_name("not-there"))
    refused(image / "uki.efi", "is no image")


def test_an_older_image_goes_aside_before_the_new_one_comes(image, tmp_path):
    made, aside = tmp_path / "made", tmp_path / "aside"
    made.mkdir()
    (made / "uki.efi").write_text("new")
    (image / "thesis.txt").write_text("x")
    with pytest.raises(TargetTaken, match=r"thesis\.txt") as caught:
        put_in_place(made, image, aside)
    assert caught.value.code == "image-folder-taken"
    assert (image / "uki.efi").read_text() == "old"
    (image / "thesis.txt").unlink()
    put_in_place(made, image, aside)
    assert ((image / "uki.efi").read_text(), (aside / "uki.efi").read_text()) == ("new", "old")
    image.rename(made)
    put_in_place(made, image, tmp_path / "unused")
    assert (image / "uki.efi").read_text() == "new"
