"""The one process that touches nftables, Unbound, namespaces and runc: typed requests in, kernel state out."""
