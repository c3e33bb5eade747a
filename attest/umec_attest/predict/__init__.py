"""Which PCR values a node image will have, computed from its files alone: no TPM, no boot, no log."""

from umec_attest.predict.folder import predict, read_image
from umec_attest.predict.model import NodeImage, PredictedPcrs, predict_image

__all__ = ["NodeImage", "PredictedPcrs", "predict", "predict_image", "read_image"]
