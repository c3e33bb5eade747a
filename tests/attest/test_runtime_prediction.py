"""What may run of a root file system, by its files alone; and what a kernel measures of the same files is allowed."""

import hashlib
import os

from umec_attest.ima import parse_runtime_policy
from umec_attest.predict import predict_runtime


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_every_file_by_its_path(tmp_path):
    for name, content in (("usr/bin/one", b"1"), ("usr/bin/two", b"2"), ("etc/my file", b"3"), ("etc/my_file", b"4")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/three").symlink_to("one")
    predicted = predict_runtime(tmp_path)
    assert predicted == {
        "files": {
            "/etc/my_file": [digest(b"3"), digest(b"4")],
            "/usr/bin/one": [digest(b"1")],
            "/usr/bin/two": [digest(b"2")],
        }
    }
    assert len(parse_runtime_policy(predicted).files) == 3


def test_folders_from_which_nothing_can_be_said(tmp_path, refused, monkeypatch):
    for folder in (tmp_path, tmp_path / "none"):
        with refused("image-folder-invalid"):
            predict_runtime(folder)
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    assert len(predict_runtime(tmp_path)["files"]) == 2
    monkeypatch.setattr("umec_attest.predict.runtime.MAX_FILES", 1)
    with refused("image-folder-invalid"):
        predict_runtime(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, refused):
    """Not even root reads what has a longer path than Linux takes."""
    (tmp_path / "one").write_bytes(b"1")
    assert len(predict_runtime(tmp_path)["files"]) == 1
    above, name = os.open(tmp_path, os.O_RDONLY), "d" * 250
    for _ in range(17):
        os.mkdir(name, dir_fd=above)
        below = os.open(name, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    with refused("image-folder-invalid"):
        predict_runtime(tmp_path)
