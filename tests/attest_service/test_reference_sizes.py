"""Large reference sets come gzipped, and are unpacked for those only who may publish them."""

import gzip
import hashlib

from umec_attest.ima import parse_runtime_policy
from umec_attest.reference import MAX_PUBLISHED, MAX_SENT, pack

PACKED = {"content-type": "application/gzip"}


def large():
    listed = {f"/usr/lib/module{n}.py": [hashlib.sha256(str(n).encode()).hexdigest()] for n in range(9000)}
    return parse_runtime_policy({"files": listed})


def test_a_large_set_is_taken_gzipped_from_whoever_may_publish_one(run):
    async def body(world):
        async def publish(content, headers):
            answer = await world.http.post("/attest/v1/reference-sets", content=content, headers=headers)
            return answer.status_code, answer.json().get("code")

        envelope = world.envelope(runtime=large())
        assert MAX_SENT < len(envelope) < MAX_PUBLISHED
        kind, packed = pack(envelope)
        assert {"content-type": kind} == PACKED
        assert await publish(envelope, world.admin) == (413, "body-too-large")
        assert await publish(packed, PACKED) == (401, "token-missing")
        assert await publish(packed, PACKED | world.token("attest:read")) == (403, "token-scope")
        bomb = gzip.compress(bytes(MAX_PUBLISHED + 1))
        assert await publish(bomb, PACKED) == (401, "token-missing")
        assert await publish(bomb, PACKED | world.admin) == (413, "reference-too-large")
        assert await publish(envelope[:100], PACKED | world.admin) == (400, "reference-invalid")
        assert (await world.get("reference-sets"))["reference_sets"] == []
        assert await publish(packed, {"content-type": "Application/GZIP; x=y"} | world.admin) == (201, None)
        assert len((await world.get("reference-sets"))["reference_sets"]) == 1

    run(body)
