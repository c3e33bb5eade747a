"""Fleets of simulated nodes: real evidence, signed by keys of this process instead of a TPM, thousands of them cheaply.

structures   what a TPM writes, packed by its layout
keys         keys for as many nodes as one likes
node         a node that boots, loses power, sleeps, and answers challenges
tampering    what an adversary does to it, and what has to be said about that
verifier     a verifier with a fleet (needs the server's packages)
"""
