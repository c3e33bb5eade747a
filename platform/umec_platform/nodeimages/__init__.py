"""Which image a node should have: an operator orders it, nodes ask for it and tell what became of it.

ports      what is needed of the registry
schemas    orders and reports on the wire
service    decisions, each with its entry in the audit log
endpoints  /platform/v1/node-images for operators, /platform/v1/node-image for nodes
adapters   the real registry
"""
