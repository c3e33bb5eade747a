"""Standing statements and the view: what is refused, and what a follower makes of a feed."""

import asyncio
import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_core.errors import UmecError
from umec_core.jose import KeySet, sign_jwt
from umec_core.standing import (
    STATEMENT_TYPE,
    Standing,
    StandingFollower,
    StandingInvalid,
    StandingView,
    verify_statement,
)
from umec_core.tokens import StaticKeys

ISSUER = "https://authority.test:8443/attest/v1"
ENTRY = {
    "seq": 1,
    "node": "lamp-7",
    "tenant": "transit",
    "standing": "trusted",
    "generation": 3,
    "changed_at": "2026-11-22T12:00:00Z",
}


def claims(world, **changes):
    good = {"iss": ISSUER, "iat": world.now.timestamp(), "after": 0, "last": 1, "node": None, "standings": [ENTRY]}
    return {name: value for name, value in (good | changes).items() if value is not ...}


def signed(world, *, typ=STATEMENT_TYPE, key=None, **changes):
    return sign_jwt(claims(world, **changes), key or world.token_key, typ=typ)


def read(world, text):
    return verify_statement(text, KeySet([world.token_key.public_key()]), issuer=ISSUER, now=world.now)


def test_the_good_one(world):
    statement = read(world, signed(world))
    assert statement.issued_at == world.now
    assert statement.entries[0].standing is Standing.TRUSTED
    assert read(world, signed(world, standings=[], last=0)).entries == ()
    assert read(world, signed(world, node="lamp-7")).node == "lamp-7"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.test"},
        {"iss": ...},
        {"iat": ...},
        {"iat": "now"},
        {"after": -1},
        {"after": 2},
        {"after": "0"},
        {"last": 0},
        {"last": ...},
        {"after": 2, "last": 1, "standings": []},
        {"more": 1},
        {"standings": ...},
        {"standings": [ENTRY, ENTRY]},
        {"standings": [{**ENTRY, "seq": 2}, ENTRY], "last": 2},
        {"standings": [{**ENTRY, "seq": 2}]},
        {"standings": [{**ENTRY, "standing": "splendid"}]},
        {"standings": [{**ENTRY, "generation": -1}]},
        {"standings": [{**ENTRY, "generation": True}]},
        {"standings": [{**ENTRY, "extra": 1}]},
        {"standings": [{**ENTRY, "changed_at": "2026-11-22T12:00:00"}]},
        {"node": "lamp-8"},
    ],
)
def test_statements_that_are_refused(world, changes):
    with pytest.raises(StandingInvalid) as caught:
        read(world, signed(world, **changes))
    assert caught.value.code == "standing-invalid"


def test_statements_of_others_and_of_the_future(world):
    for text in (
        signed(world, typ="JWT"),
        signed(world, key=world.client_key),
        signed(world, iat=world.now.timestamp() + 11),
        "nonsense",
    ):
        with pytest.raises(StandingInvalid):
            read(world, text)
    assert read(world, signed(world, iat=world.now.timestamp() + 9))


def rolled_back(view, statement):
    with pytest.raises(UmecError) as caught:
        view.apply(statement)
    assert caught.value.code == "standing-rollback"


def test_a_view_does_not_go_back(world, statement):
    view = StandingView()
    assert view.apply(statement((1, "a", Standing.TRUSTED, 1), (4, "b", Standing.TRUSTED, 2)))
    rolled_back(view, statement(after=4, at=world.now - timedelta(seconds=1)))
    rolled_back(view, statement((3, "a", Standing.TRUSTED, 9)))
    rolled_back(view, statement((6, "a", Standing.TRUSTED, 9), after=5))
    rolled_back(view, statement((5, "a", Standing.TRUSTED, 0), after=4))
    assert view.entries["a"].generation == 1
    assert not view.apply(statement((1, "a", Standing.TRUSTED, 1), (4, "b", Standing.TRUSTED, 2)))
    assert [entry.node for entry in view.apply(statement((5, "a", Standing.LAPSED, 2), after=4))] == ["a"]
    assert view.last == 5


def test_what_is_told_again_is_no_news(statement):
    view, told = StandingView(), statement((1, "a", Standing.TRUSTED, 1), (4, "a", Standing.UNTRUSTED, 2))
    assert [entry.seq for entry in view.apply(told)] == [1, 4]
    assert view.apply(told) == ()
    assert view.entries["a"].standing is Standing.UNTRUSTED


def test_a_view_without_an_age_is_none():
    for age in (timedelta(0), timedelta(seconds=-1)):
        with pytest.raises(StandingInvalid) as caught:
            StandingView(max_age=age)
        assert caught.value.code == "standing-invalid"


def test_a_view_of_one_node_takes_no_statement_about_all(statement):
    with pytest.raises(StandingInvalid):
        StandingView(node="a").apply(statement((1, "a", Standing.TRUSTED, 1)))


@pytest.mark.parametrize("standing", [each for each in Standing if not each.stands])
def test_what_does_not_stand(world, statement, standing):
    view = StandingView()
    view.apply(statement((1, "a", standing, 1), (2, "b", Standing.DEGRADED, 1)))
    with pytest.raises(UmecError) as caught:
        view.check("a", 1, world.now)
    assert caught.value.code == "standing-fallen"
    assert view.check("b", 1, world.now).standing is Standing.DEGRADED


def test_waiting_for_a_generation(world, statement):
    view = StandingView()
    view.apply(statement((1, "a", Standing.UNTRUSTED, 1)))

    async def scenario():
        await view.reach("a", 2, within=0.01)
        with pytest.raises(UmecError):
            view.check("a", 2, world.now)
        waiting = asyncio.create_task(view.reach("a", 2, within=60))
        await asyncio.sleep(0)
        view.apply(statement((2, "a", Standing.TRUSTED, 2), after=1))
        await asyncio.wait_for(waiting, 30)
        assert view.check("a", 2, world.now)

    asyncio.run(scenario())


class Feed:
    """A feed that gives out what a test put in, then waits."""

    def __init__(self):
        self.statements, self.asked = [], []

    async def standings(self, *, after, wait, node):
        self.asked.append((after, wait, node))
        if not self.statements:
            await asyncio.sleep(3600)
        return self.statements.pop(0)


def follower(world, feed, on_change=None):
    keys = StaticKeys(KeySet([world.token_key.public_key()]))
    return StandingFollower(
        feed, view=world.view, keys=keys, issuer=ISSUER, clock=lambda: world.now, on_change=on_change
    )


def test_a_follower_tells_again_what_its_listener_did_not_take(world):
    feed, told, faults = Feed(), [], [RuntimeError("busy")]
    later = {**ENTRY, "seq": 2, "standing": "untrusted", "generation": 4}
    feed.statements = [signed(world), signed(world, after=1, last=2, standings=[later])]

    async def listen(entries):
        if faults:
            raise faults.pop()
        told.extend((entry.seq, entry.standing.value) for entry in entries)

    async def scenario():
        following = follower(world, feed, listen)
        with pytest.raises(RuntimeError):
            await following.step()
        await following.step()
        assert following.statement is not None

    asyncio.run(scenario())
    assert told == [(1, "trusted"), (2, "untrusted")]
    assert feed.asked[1] == (1, 0.0, None), "what is untold is not waited with"


def test_a_follower_outlives_bad_statements(world):
    feed = Feed()
    feed.statements = ["nonsense", signed(world, key=world.client_key), signed(world)]

    async def scenario():
        running = asyncio.create_task(follower(world, feed).run())
        await world.view.reach("lamp-7", 3, within=5)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())
    assert world.view.check("lamp-7", 3, world.now)


def test_a_clock_that_is_set_back_makes_a_view_stale_and_does_not_keep_it_so(world):
    """What is known of a time to come is not known; no older state than the known one comes in by it."""
    feed = Feed()
    feed.statements.append(signed(world))
    following = follower(world, feed)

    async def scenario():
        await following.step()
        view, past = world.view, world.now - timedelta(hours=1)
        assert view.check("lamp-7", 3, world.now).node == "lamp-7"
        with pytest.raises(UmecError) as raised:
            view.check("lamp-7", 3, past)
        assert raised.value.code == "standing-stale"
        world.now = past
        feed.statements[:] = [signed(world, after=0, last=0, standings=[])]
        with pytest.raises(UmecError) as raised:
            await following.step()
        assert raised.value.code == "standing-rollback"
        with pytest.raises(UmecError) as raised:
            view.check("lamp-7", 3, past)
        assert raised.value.code == "standing-stale"
        feed.statements[:] = [signed(world, after=1, last=1, standings=[])]
        await following.step()
        assert view.check("lamp-7", 3, past).node == "lamp-7"

    asyncio.run(scenario())


def test_a_follower_pauses_once_after_an_unforeseen_error(world, monkeypatch):
    feed, faults, pauses, sleep = Feed(), [RuntimeError("busy")] * 4, [], asyncio.sleep
    feed.statements = [signed(world) for _ in range(5)]
    taken, loops = asyncio.Event(), []

    async def listen(_entries):
        if faults:
            raise faults.pop()
        taken.set()

    async def pause(seconds):
        if asyncio.get_running_loop() not in loops:  # a server that another test has in a thread
            return await sleep(seconds)
        pauses.append(seconds)
        return await sleep(0)

    async def scenario():
        loops.append(asyncio.get_running_loop())
        monkeypatch.setattr(asyncio, "sleep", pause)
        running = asyncio.create_task(follower(world, feed, listen).run())
        await asyncio.wait_for(taken.wait(), 30)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]


json_values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False)
)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "iat", "after", "last", "node", "standings"]), json_values | st.lists(json_values)
    ),
    st.dictionaries(st.sampled_from(sorted(ENTRY)), json_values),
)
def test_any_signed_claims_are_a_statement_or_one_error(steady, changes, entry):
    with contextlib.suppress(StandingInvalid):
        read(steady, signed(steady, **({"standings": [ENTRY | entry]} | changes)))


@given(st.text(max_size=200))
def test_any_text_is_a_statement_or_one_error(steady, text):
    with pytest.raises(StandingInvalid):
        read(steady, text)
