"""A software TPM, a firmware, a node and an adversary for tests and demonstrations: nothing here judges evidence.

Nothing in this package may import the prediction of reference values or the parser of boot logs: what it makes is
compared with what they expect, and code in common would agree with itself.
"""
