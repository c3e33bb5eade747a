"""Every Python process that a test starts has the switches too (its PYTHONPATH leads here)."""

import os

if os.environ.get("MUTANTS"):
    from switch import install

    install(os.environ["MUTANTS"].split(","))
