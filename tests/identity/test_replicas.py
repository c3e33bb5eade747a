"""Two replicas on one PostgreSQL: what one has used or revoked, the other knows; what is good once is good once."""

import asyncio
from collections import Counter

from umec_core.audit import verify_export
from umec_core.jose import peek_claims
from umec_core.testing import temporary_postgresql


def test_two_replicas_agree(tmp_path, opened):
    async def scenario(url):
        async with (
            opened(tmp_path / "shared", database=url) as here,
            opened(tmp_path / "shared", database=url) as there,
        ):
            there.keys = here.keys
            await there.service.clients.seed(here.seeds())
            form = here.form()
            answers = await asyncio.gather(*(world.ask(form, client="app") for world in (here, there) * 4))
            found = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
            assert found == {(200, None): 1, (401, "assertion-replayed"): 7}
            token = await here.token()
            form = {**here.form("app", grant_type=...), "token": token}
            assert (await there.http.post("/oauth2/revoke", data=form)).status_code == 200
            await here.service.tend()
            assert here.service.revocation.denied({"client_id": "app", "iat": 0, "jti": peek_claims(token)["jti"]})
            verify_export(await here.service.export_audit(), there.service.audit_key)

    with temporary_postgresql() as url:
        asyncio.run(scenario(url))
