"""The policy by which an image's kernel measures is a known one, and in its list; and what keeps a log of starts."""

import hashlib
import re
from importlib.resources import files

import pytest

from umec_attest.predict import predict_started, starts_applications
from umec_attest.predict.kernel_policy import KERNEL_POLICY, KNOWN
from umec_images.nodeimage.content import USERS
from umec_platform.netd.bundle import HOST_USERS

OURS = files("umec_images.nodeimage").joinpath("guest", "ima-policy").read_bytes()
RULE = re.compile(
    r"measure func=[A-Z_]+(?: mask=\^?MAY_(?:EXEC|READ))?(?: fsmagic=0x[0-9a-f]+)?(?: e?uid=[0-9]+)?", re.ASCII
)


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root" / KERNEL_POLICY.removeprefix("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(OURS)
    return tmp_path / "root"


def test_the_policy_of_our_images_is_known_and_required(root, tmp_path):
    predicted = predict_started(tmp_path, root)
    assert predicted["required"] == [KERNEL_POLICY]
    assert predicted["files"] == {KERNEL_POLICY: [hashlib.sha256(OURS).hexdigest()]}


def test_an_image_with_another_policy_is_refused(root, tmp_path, refused):
    path = root / KERNEL_POLICY.removeprefix("/")
    lax = tmp_path / "lax"
    (root / "init").write_bytes(b"1")
    for changed in (OURS + b"\n", b"dont_measure\n" + OURS, b"", OURS[:-20]):
        path.write_bytes(changed)
        with refused("image-folder-invalid"):
            predict_started(tmp_path, root)
    path.unlink()
    lax.write_bytes(OURS)
    path.symlink_to(lax)  # what it leads to there, may be another file here
    with refused("image-folder-invalid"):
        predict_started(tmp_path, root)
    path.unlink()
    path.symlink_to(tmp_path / "nothing")
    with refused("image-folder-invalid"):
        predict_started(tmp_path, root)
    path.unlink()
    path.write_bytes(OURS)
    assert predict_started(tmp_path, root)["required"]


def test_an_image_of_before_has_no_policy_of_its_own(root, tmp_path):
    """Its kernel measures more: by ima_policy=tcb alone."""
    (root / KERNEL_POLICY.removeprefix("/")).unlink()
    (root / "init").write_bytes(b"1")
    assert set(predict_started(tmp_path, root)) == {"files"}


def test_the_policy_leaves_nothing_of_the_host_out():
    """By its text: what users of the system start, what comes from the root file system, what the kernel is given."""
    assert hashlib.sha256(OURS).hexdigest() in KNOWN
    rules = [line for line in OURS.decode("ascii").splitlines() if not line.startswith("#")]
    assert [rule for rule in rules if not RULE.fullmatch(rule)] == []
    system = {number for number in USERS.values() if number < 60000}
    assert system <= {0, *HOST_USERS}
    for user in (0, *HOST_USERS):
        for function in ("BPRM_CHECK", "MMAP_CHECK"):
            assert f"measure func={function} mask=MAY_EXEC uid={user}" in rules
    for function in ("BPRM_CHECK", "MMAP_CHECK"):
        assert f"measure func={function} mask=MAY_EXEC fsmagic=0x73717368" in rules  # SQUASHFS_MAGIC
    for function in ("MODULE", "FIRMWARE", "KEXEC_KERNEL", "KEXEC_INITRAMFS", "POLICY"):
        assert f"measure func={function}_CHECK" in rules
    assert "measure func=KEXEC_CMDLINE" in rules


def test_an_image_of_a_host_keeps_a_log_of_starts(root):
    assert not starts_applications(root)
    (root / "etc/umec/host.json").write_bytes(b"{}")
    assert starts_applications(root)
