"""Starts of applications on a node: a log whose entries were extended into PCR 15, each with the site's decision.

bytes -> StartEntry      entry.parse_start    well-formed, nothing believed
      -> StartsJudged    judge.judge_starts   they give PCR 15 of a quote, and the site decided each for this node

The package imports nothing of itself: a node needs entries and claims alone, and carries no judge.
"""

__all__: list[str] = []
