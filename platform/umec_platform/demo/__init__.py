"""The main job, end to end, on real parts: what `umec demo` shows.

It stands outside of the platform: it starts processes, runs the command line and calls public HTTP APIs. An import
contract holds it to that. Only the software TPM comes from the test harness.

    sandbox    namespaces of its own, so that nothing is left behind
    topology   the street: a site, two nodes, two cameras, and the links between them
    timeline   what is printed
    command    `umec up` and the command line, as a user has them
    chain      the twelve links, in their order
    attacks    the attacks on them, in tables
    hand       an OAuth client that can do wrong
    fall       a node falls, and everything it held falls with it
    sabotage   one link broken on purpose: the demo must name it
"""
