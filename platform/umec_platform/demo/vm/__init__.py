"""Links 1 to 6 on a machine that really boots: what `umec demo-vm` shows.

    image      a node image is built, its PCR values are predicted and published
    machine    it is switched on: QEMU, OVMF with Secure Boot, a software TPM
    box        what somebody does who opens its box, and what becomes of the node
    chain      the story: the node is believed; then somebody opens its box, and it is not

A folder for the sandbox to start from (`lock`) is made before, where there is a network.
"""
