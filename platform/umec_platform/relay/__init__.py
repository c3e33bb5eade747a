"""The relay of a node: carries the platform's requests to the netd beside it, and netd's answers back.

It dials out, by the agent's certificate; nothing of the node listens. Its user needs no privilege: netd believes it no
more than the platform itself.

    doors      the way to the site through the agent, and tokens from it
    carrier    sessions: ask, carry out, answer
    images     what is fetched before an instance is started
"""
