"""A site to try things out on, in namespaces of its own: what `umec try` opens a shell in.

It has what a developer needs to bring an own application to run: a site, one trusted node with its MEC host, a device
beside it, a tenant, and a credential for each part that one plays. The node's TPM and boot are simulated, and said so.

    street    the node and its device, the site's settings, and the accounts
    shell     the environment, the `camera` command, and the shell
"""
