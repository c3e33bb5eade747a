"""CoRIM (draft-ietf-rats-corim): reference values of others read into a draft, and ours written out.

What is read proves nothing: a draft counts only when a reference signer of ours has signed it.

| part of a CoRIM              | reading it                                                                          |
|------------------------------|-------------------------------------------------------------------------------------|
| tag 501, unsigned            | read; a signed one (tag 18) is refused: its payload can be taken out, and looked at |
| profile                      | none, or Parsec's for TPMs; another one may change every meaning: refused           |
| tags                         | CoMIDs (506); CoSWID and lists of tags are refused                                  |
| rim-validity                 | kept for whoever signs the draft                                                    |
| entities, languages, ids     | informational: read over                                                            |
| dependent rims, linked tags  | refused: what they add, replace or take back is not here                            |
| reference triples            | integrity registers by PCR; with Parsec's profile, digests under the PCR as key     |
| environments                 | a class with at most a class id, a vendor and a model; instances, groups and layers |
|                              | are refused, so is more than one class. A model becomes a firmware model            |
| attestation key triples      | with Parsec's profile checked and left out, said so; else refused                   |
| any other triple or value    | refused: without it, a value would count where its author says that it must not     |
| same PCR in several maps     | alternatives, where each map is about that PCR alone; else combinations: refused    |
"""

from umec_attest.corim.cbor import load_cbor
from umec_attest.corim.errors import CorimInvalid, CorimProfileUnsupported, CorimRefused, CorimUnsupported
from umec_attest.corim.reader import CorimDraft, read_corim
from umec_attest.corim.writer import write_corim

__all__ = [
    "CorimDraft",
    "CorimInvalid",
    "CorimProfileUnsupported",
    "CorimRefused",
    "CorimUnsupported",
    "load_cbor",
    "read_corim",
    "write_corim",
]
