"""Issuances written in batches: what is good once is good once, also within one batch, and a failure is everybody's."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from sqlalchemy import func, select

from umec_core.audit import AuditEntry, AuditLog, verify_export
from umec_core.errors import UmecError
from umec_core.jose import peek_claims
from umec_core.store import Store, StoreClosed
from umec_core.testing import temporary_postgresql
from umec_core.writer import StoreBusy
from umec_identity import ledger
from umec_identity.ledger import Ledger
from umec_identity.rows import AuditRow, Used, UsedRow
from umec_identity.service import MIGRATIONS

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def used(jti, kind="assertion"):
    return Used(kind, "app", jti, until=NOW + timedelta(minutes=5))


def entry(subject):
    return AuditEntry(actor="app", action="token.issue", subject=subject, outcome="done", now=NOW)


def run(url, scenario, key):
    async def whole():
        store = await Store.open(url, migrations=MIGRATIONS)
        try:
            await scenario(store, AuditLog(AuditRow, key, "test/audit"))
        finally:
            await store.close()

    asyncio.run(whole())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/identity.db"
    else:
        with temporary_postgresql() as address:
            yield address


@pytest.fixture
def key():
    return generate_private_key(SECP256R1())


async def written(store, log):
    async with store.read() as session:
        export = await log.export(session)
        digests = await session.scalar(select(func.count()).select_from(UsedRow))
    return [one["subject"] for one in export["entries"]], digests, export


def test_what_is_good_once_is_good_once_within_a_batch_and_after_it(url, key):
    async def scenario(store, log):
        book = Ledger(store, log)
        wishes = [book.record((used(f"j{number % 10}"),), entry(f"s{number}")) for number in range(40)]
        results = await asyncio.gather(*wishes, return_exceptions=True)
        assert [result is None for result in results] == [True] * 10 + [False] * 30
        assert {result.code for result in results[10:]} == {"assertion-replayed"}
        with pytest.raises(UmecError) as caught:
            await Ledger(store, log).record((used("new"), used("j3")), entry("late"))
        assert caught.value.code == "assertion-replayed"
        for kind, code in (("challenge", "attestation-challenge"), ("possession", "attestation-pop-replayed")):
            await book.record((used("k", kind),), entry(kind))
            with pytest.raises(UmecError) as caught:
                await book.record((used("k", kind),), entry("again"))
            assert caught.value.code == code
        subjects, _, export = await written(store, log)
        assert subjects == [f"s{number}" for number in range(10)] + ["challenge", "possession"]
        verify_export(export, key.public_key())

    run(url, scenario, key)


def test_nobody_is_answered_before_it_is_durable(tmp_path, key):
    url = f"sqlite+aiosqlite:///{tmp_path}/identity.db"

    async def scenario(store, log):
        async def one(number):
            await Ledger(store, log).record((used(f"j{number}"),), entry(f"s{number}"))
            subjects, _, _ = await written(store, log)
            return f"s{number}" in subjects

        assert all(await asyncio.gather(*(one(number) for number in range(20))))

    run(url, scenario, key)


def test_a_store_that_fails_answers_everybody_and_a_cancelled_request_nobody_else(tmp_path, key):
    url = f"sqlite+aiosqlite:///{tmp_path}/identity.db"

    async def scenario(store, log):
        book = Ledger(store, log)
        gone = asyncio.create_task(book.record((used("gone"),), entry("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        await book.record((used("j"),), entry("s"))
        await store.close()
        results = await asyncio.gather(
            *(book.record((used(f"c{number}"),), entry("c")) for number in range(5)), return_exceptions=True
        )
        assert {type(result) for result in results} == {StoreClosed}

    run(url, scenario, key)


def test_too_many_are_refused(tmp_path, key, monkeypatch):
    monkeypatch.setattr(ledger, "MAX_WAITING", 2)

    async def scenario(store, log):
        book = Ledger(store, log)
        wishes = [book.record((used(f"j{number}"),), entry("s")) for number in range(3)]
        results = await asyncio.gather(*wishes, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), type(None), StoreBusy]

    run(f"sqlite+aiosqlite:///{tmp_path}/identity.db", scenario, key)


def test_many_requests_with_one_assertion_over_http(play):
    async def scenario(world):
        form = world.form()
        answers = await asyncio.gather(*(world.ask(form if number % 2 else None) for number in range(24)))
        codes = [(answer.status_code, answer.json().get("code")) for answer in answers]
        assert codes.count((200, None)) == 13
        assert codes.count((401, "assertion-replayed")) == 11
        issued = {peek_claims(answer.json()["access_token"])["jti"] for answer in answers if answer.status_code == 200}
        export = await world.service.export_audit()
        logged = {one["facts"]["jti"] for one in export["entries"] if one["action"] == "token.issue"}
        assert logged == issued
        verify_export(export, world.service.audit_key)

    play(scenario)
