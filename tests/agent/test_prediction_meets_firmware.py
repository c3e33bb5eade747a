"""Two programs that share no code agree: what is predicted from an image is what a boot of it leaves in the TPM."""

from pathlib import Path

import pytest

from umec_attest.agent.tpm import Tpm
from umec_attest.predict import predict
from umec_attest.testing import firmware
from umec_attest.testing.image import Tamper, make_image
from umec_attest.testing.swtpm import SoftwareTpm


def booted(tpm: SoftwareTpm, image: Path, tamper: Tamper | None = None) -> dict[int, bytes]:
    firmware.boot(tpm, image, tamper=tamper)
    with Tpm(tpm.tcti) as reader:
        return dict(reader.read_pcrs(sorted(predict(image).pcrs)))


@pytest.mark.parametrize("secure_boot", [True, False])
def test_every_predicted_pcr_is_met(software_tpm: SoftwareTpm, tmp_path: Path, secure_boot: bool) -> None:
    image = make_image(tmp_path, secure_boot=secure_boot)
    assert booted(software_tpm, image) == dict(predict(image).pcrs)


@pytest.mark.parametrize(
    ("tamper", "missed"),
    [(Tamper.CMDLINE, {4, 11}), (Tamper.FIRMWARE, {0}), (Tamper.SECURE_BOOT, {7})],
)
def test_a_changed_stage_is_missed(software_tpm: SoftwareTpm, tmp_path: Path, tamper: Tamper, missed: set[int]) -> None:
    image = make_image(tmp_path)
    values, expected = booted(software_tpm, image, tamper), predict(image).pcrs
    assert {index for index in expected if values[index] != expected[index]} == missed
