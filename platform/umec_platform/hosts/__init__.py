"""MEC hosts, each with its node and its netd."""
