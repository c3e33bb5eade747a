"""Which PCR values a node image will have, computed from its files alone: no TPM, no boot, no log."""

from umec_attest.predict.folder import predict, read_image
from umec_attest.predict.measure import PredictedPcrs
from umec_attest.predict.model import NodeImage, predict_image
from umec_attest.predict.runtime import predict_runtime

__all__ = ["NodeImage", "PredictedPcrs", "predict", "predict_image", "predict_runtime", "read_image"]
