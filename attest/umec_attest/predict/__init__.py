"""Which PCR values a node image will have, computed from its files alone: no TPM, no boot, no log."""

from umec_attest.predict.builds import FIRMWARE_PCRS, FirmwareBuild, parse_builds, render_builds
from umec_attest.predict.draft import draft_of
from umec_attest.predict.folder import predict, predict_started, read_image, starts_applications
from umec_attest.predict.measure import PredictedPcrs
from umec_attest.predict.model import NodeImage, predict_image
from umec_attest.predict.runtime import predict_runtime

__all__ = [
    "FIRMWARE_PCRS",
    "FirmwareBuild",
    "NodeImage",
    "PredictedPcrs",
    "draft_of",
    "parse_builds",
    "predict",
    "predict_image",
    "predict_runtime",
    "predict_started",
    "read_image",
    "render_builds",
    "starts_applications",
]
