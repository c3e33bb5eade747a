"""OCI: references, manifests, the image layout, and a registry client that believes no registry.

Nothing here needs a web framework or a database: the same code runs in the gateway, on nodes and in the CLI.
"""

__all__: list[str] = []
