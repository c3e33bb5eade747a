"""The MEC host: services, applications, rules, netd, the CLI and the composition."""
