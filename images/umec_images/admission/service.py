"""Admissions of a platform: each digest is evaluated once at a time, and good ones are kept.

They are kept while nothing that they stand on changes, and for minutes at most. A refusal is never kept: what was
missing may have been attached since.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from umec_core.clock import Clock
from umec_core.dsse import key_id
from umec_images.admission.admit import Admission, admit
from umec_images.promotion.denylist import DenyList
from umec_images.promotion.evidence import Builders, Registry
from umec_images.verify import BundleVerifier
from umec_policies import PolicySet

__all__ = ["Admitter"]

KEPT: Final = 4096
"""Admissions that are kept, about 1 KB each: more than a site has images."""
KEEP_FOR: Final = timedelta(minutes=5)
"""Facts age (days since signing): this bounds by how much."""

Key = tuple[str, ...]


class Admitter:
    """Admits images; `policies` and `deny_list` are asked at each admission, so a change of either counts at once."""

    def __init__(
        self,
        *,
        registry: Registry,
        verifier: BundleVerifier,
        builders: Builders,
        promotion_keys: Sequence[EllipticCurvePublicKey],
        policies: Callable[[], PolicySet],
        deny_list: Callable[[], DenyList],
        clock: Clock,
        stage: str = "production",
    ) -> None:
        """`stage` is the one that this platform runs."""
        self._registry = registry
        self._verifier = verifier
        self._builders = builders
        self._promotion_keys = tuple(promotion_keys)
        self._policies = policies
        self._clock = clock
        self._stage = stage
        self._deny_list = deny_list
        self._kept: OrderedDict[Key, Admission] = OrderedDict()
        self._running: dict[Key, asyncio.Task[Admission]] = {}

    async def admit(self, *, tenant: str, repository: str, digest: str, now: datetime | None = None) -> Admission:
        """Return the admission of a digest at this platform's stage; raises like `admit`.

        What is denied while it is evaluated is not admitted any more.
        """
        at, policies, denied = now or self._clock(), self._policies(), self._deny_list()
        keys = ",".join(key_id(key) for key in self._promotion_keys)
        root = self._verifier.root.digest
        key: Key = (tenant, repository, digest, self._stage, policies.digest, root, str(denied.version), keys)
        kept = self._kept.get(key)
        if kept is not None and kept.admitted_at <= at < kept.admitted_at + KEEP_FOR:
            return kept
        running = self._running.get(key)
        if running is None:
            running = asyncio.create_task(self._evaluate(tenant, repository, digest, policies, denied, at))
            self._running[key] = running
            running.add_done_callback(lambda task: self._done(key, task))
        admission = await asyncio.shield(running)
        self._deny_list().require(repository, digest, admission.version)
        return admission

    async def _evaluate(
        self, tenant: str, repository: str, digest: str, policies: PolicySet, denied: DenyList, now: datetime
    ) -> Admission:
        return await admit(
            tenant=tenant,
            repository=repository,
            digest=digest,
            stage=self._stage,
            registry=self._registry,
            verifier=self._verifier,
            builders=self._builders,
            promotion_keys=self._promotion_keys,
            policies=policies,
            now=now,
            deny_list=denied,
        )

    def _done(self, key: Key, task: asyncio.Task[Admission]) -> None:
        self._running.pop(key, None)
        if task.cancelled() or task.exception() is not None:
            return
        self._kept[key] = task.result()
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
