"""The node's TPM 2.0, through the ESAPI of tpm2-tss.

Objects and where they live:

    endorsement hierarchy
    └── EK   of the TCG template that the TPM has a certificate for; persistent where the vendor put it, else made anew
        ├── AK        ECDSA P-256, restricted, signs only what the TPM itself made (quotes, certifications)
        └── node key  ECDSA P-256, signs digests; the AK certifies that it lives here

AK and node key leave the TPM only wrapped by the EK. Between two operations nothing of ours occupies the TPM: loaded
keys are parked with TPM2_ContextSave, and loaded again by their wrapped form when the TPM restarted.

    device        the TPM and what it is asked to do
    objects       what comes out of it
    endorsement   the EK, and the session that satisfies its policy
    certificates  what the TPM keeps as certificates of the EK
    identity      keys that the device's maker keeps in the TPM: IAK and IDevID
    signing       P-256 keys and their signatures
    pcrs          which PCRs, and their values
    sealing       sealed objects, and the counter that keeps older images out

All bytes that leave here are TPM wire format (TPM 2.0 Library, Part 2) without the outer TPM2B size.
"""

import os

os.environ.setdefault("TSS2_LOG", "all+NONE")  # it writes to standard error what we raise as errors

from umec_attest.agent.tpm.device import Tpm
from umec_attest.agent.tpm.objects import Attested, EndorsementKey, PcrQuote, WrappedKey

__all__ = ["Attested", "EndorsementKey", "PcrQuote", "Tpm", "WrappedKey"]
