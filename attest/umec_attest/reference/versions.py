"""Versions of one image that count at one time: the newest one, and older ones in the grace that newer ones give. Pure.

| an older version                                                         | counts                                 |
|--------------------------------------------------------------------------|----------------------------------------|
| is in the grace of every newer one                                       | until one of these graces ends, or it  |
| is not in that of one newer one                                          | no                                     |
| says what may run where the newest one does not, or the other way round, | no: it is asked for other PCRs         |
| or keeps a log of starts where the other does not                        |                                        |

Evidence is judged by one version as a whole, which its PCR values say: all that a version expects, and of a firmware
build that it names. Where they are those of several versions (one that differs in its files alone), the newest counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from umec_attest.reference.models import match_model
from umec_attest.reference.statement import ReferenceSet
from umec_attest.reference.values import match_values
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["FiledSet", "Older", "Versions", "fits", "versions_of"]

_Quoted = Mapping[HashAlgorithm, Mapping[int, bytes]]


@dataclass(frozen=True, slots=True)
class FiledSet:
    """A reference set, and when an operator ends the grace that it gives (None: it ends as it was signed)."""

    reference: ReferenceSet
    shortened: datetime | None = None


@dataclass(frozen=True, slots=True)
class Older:
    """An older version; `until` is when it stops to count beside the newest one (None: it does not count at all)."""

    reference: ReferenceSet
    until: datetime | None

    def holds(self, now: datetime) -> bool:
        """Tell whether it counts now."""
        return self.until is not None and now < self.until


@dataclass(frozen=True, slots=True)
class Versions:
    """The newest version of an image, and the older ones, newer ones first. Only `versions_of` makes one."""

    newest: ReferenceSet
    older: tuple[Older, ...] = ()

    def held(self, now: datetime) -> tuple[ReferenceSet, ...]:
        """Return the versions that count now, the newest first."""
        return self.newest, *(each.reference for each in self.older if each.holds(now))

    def match(self, quoted: _Quoted, now: datetime) -> ReferenceSet:
        """Return the one version that evidence with these PCR values is judged by: the newest where none fits."""
        if not self.older:
            return self.newest
        return next((each for each in self.held(now) if fits(each, quoted)), self.newest)

    def ended(self, quoted: _Quoted, now: datetime) -> Older | None:
        """Return the version of which these PCR values are, where it counts no more, and none that does fits."""
        if fits(self.match(quoted, now), quoted):
            return None
        return next((each for each in self.older if not each.holds(now) and fits(each.reference, quoted)), None)

    def until(self, reference: ReferenceSet) -> datetime | None:
        """Return when an older version stops to count, None for the newest one."""
        return next((each.until for each in self.older if each.reference.sha256 == reference.sha256), None)


def fits(reference: ReferenceSet, quoted: _Quoted) -> bool:
    """Tell whether these are the PCR values of a version: each that it expects, and those of a firmware build."""
    if not match_values(reference.pcrs, quoted):
        return False
    return not reference.models or match_model(reference.models, quoted) is not None


def versions_of(newest_first: Sequence[FiledSet]) -> Versions:
    """Return the versions of an image, of which the first one is the newest."""
    return Versions(newest_first[0].reference, tuple(_older(newest_first)))


def _older(newest_first: Sequence[FiledSet]) -> Iterator[Older]:
    newest = newest_first[0].reference
    for place, filed in enumerate(newest_first[1:], start=1):
        reference = filed.reference
        ends = [_end(newer, reference) for newer in newest_first[:place]]
        alike = (reference.runtime is None, reference.starts) == (newest.runtime is None, newest.starts)
        known = [end for end in ends if end is not None]
        yield Older(reference, min(*known, reference.expires) if alike and len(known) == len(ends) else None)


def _end(newer: FiledSet, older: ReferenceSet) -> datetime | None:
    """Return when a newer version ends an older one; None where it does so at once."""
    grace = newer.reference.grace
    if grace is None or older.version < grace.from_version:
        return None
    return grace.until if newer.shortened is None else min(grace.until, newer.shortened)
