"""The plugin for pytest as somebody else uses it: installed, not switched on, in a process of its own."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing-plugin.md"
pytest_plugins = ["pytester"]

MOVES = """
import hashlib

from umec_attest.testing.adversary import flip_byte, quote_relabelled, replay_boot, replayed, swap_tpm
from umec_attest.testing.eventlog import EventType, measured
from umec_attest.testing.firmware import event
from umec_attest.testing.image import Tamper

NONCE = bytes(range(16))
PLACES = []


def test_a_boot_is_in_the_pcrs(software_node, software_tpm, boot_node, node_image):
    PLACES.append(software_tpm.tcti)
    data = b"a boot loader"
    log = boot_node([event(4, EventType.EFI_ACTION, data)])
    assert measured(log) == [(4, hashlib.sha256(data).digest())]
    value = hashlib.sha256(bytes(32) + hashlib.sha256(data).digest()).digest()
    assert software_node.quote(NONCE, [4]).pcrs == {4: value}
    good = boot_node(node_image)
    before = software_node.quote(NONCE, [4]).pcrs
    assert boot_node(node_image) == good
    assert software_node.quote(NONCE, [4]).pcrs == before
    assert boot_node(node_image, tamper=Tamper.KERNEL) != good
    assert software_node.quote(NONCE, [4]).pcrs != before


def test_moves(software_node, software_tpm, make_software_tpm, tpm_authority, boot_node, node_image):
    assert software_tpm.tcti not in PLACES  # a TPM is of one test
    assert software_node.ek_certificate
    assert software_node.ek_chain == tpm_authority.chain
    log = boot_node(node_image)
    good = software_node.quote(NONCE, [4, 11])
    moved = quote_relabelled(software_node, NONCE, [4, 11], {11: 16}, good=good.pcrs)
    assert moved.pcrs == good.pcrs
    assert moved.quote.attest != good.quote.attest
    replay_boot(software_tpm, log)
    again = software_node.quote(NONCE, [4, 11])
    assert again.pcrs == good.pcrs
    assert again.quote.attest != good.quote.attest  # the reset was counted
    with swap_tpm(software_node, make_software_tpm()) as other:
        assert (other.name, other.ek_sha256 == software_node.ek_sha256) == (software_node.name, False)
        assert other.ek_chain == tpm_authority.chain
    assert flip_byte(b"ab", -1) == b"ac"
    assert replayed({"challenge": "old", "quote": "q"}, {"challenge": "new"}) == {"challenge": "new", "quote": "q"}
"""


NOTHING = """
import sys


def pytest_configure():
    assert "umec_attest.testing.plugin" in sys.modules
    assert not {"tpm2_pytss", "cryptography", "umec_attest.testing.swtpm"} & set(sys.modules)
"""


def test_whoever_installed_it_has_fixtures_and_moves(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is imported before it is asked for, the example of the page runs, and so do boots and moves."""
    monkeypatch.delenv("PYTEST_PLUGINS", raising=False)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    pytester.makeconftest(NOTHING)
    pytester.makepyfile(test_moves=MOVES, test_example=example)
    pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider").assert_outcomes(passed=3)
