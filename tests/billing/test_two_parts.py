"""Outcomes in two parts, on SQLite and PostgreSQL: memberships at once, the rest near the deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import Engine, text

from streams.core.errors import Poison
from streams.core.objects import Membership, OptionTerm
from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind
from streams.sinks.billing import Fenced, Finished, Released, Split, SqlBillingStore
from tests.billing.makers import (
    EVENING,
    LONG_AGO,
    MIDNIGHT,
    MORNING,
    NEXT_MIDNIGHT,
    at,
    closing,
    outcome,
    plan,
    releasing,
    sealed,
)  # fmt: skip

Open = Callable[[], SqlBillingStore]

BEFORE = timedelta(hours=2)
#: The second part may be written from here on.
DUE = MIDNIGHT - BEFORE
SPLIT = Split(before=BEFORE, at=EVENING, partition=0)


def load(store: SqlBillingStore, count: int) -> None:
    store.load_plans((plan(number) for number in range(count)), occurred_at=LONG_AGO)


def finish(store: SqlBillingStore, now: datetime = DUE, partition: int = 0, limit: int = 100) -> list[Finished]:
    return store.finish(partition, at=now, limit=limit, now=at(now))


def finish_all(store: SqlBillingStore, now: datetime = DUE) -> list[Acknowledgement]:
    """What the persister does with the ticks: finish, send the answers, forget."""
    done = finish(store, now)
    store.forget([one.result.change_id for one in done])
    return [one.answer for one in done if isinstance(one.answer, Acknowledgement)]


def rows(database: Engine, service: int = 0) -> dict[str, list[tuple[object, ...]]]:
    """What the service has, and who did it."""
    queries = {
        "memberships": "SELECT rate_plan_id, product_id, change_id, ended_by, valid_to IS NULL FROM membership",
        "options": "SELECT option_id, change_id, ended_by, valid_to IS NULL FROM service_option",
        "fees": "SELECT code, change_id FROM fee",
    }
    with database.connect() as connection:
        return {
            name: sorted(
                (tuple(bool(x) if x in (0, 1) else x for x in row)
                 for row in connection.execute(text(f"{query} WHERE service_id = 's{service}'"))),
                key=str,
            )
            for name, query in queries.items()
        }  # fmt: skip


UNTOUCHED = {
    "memberships": [("BASIC", "MOBILE", None, None, True)],
    "options": [("roaming", None, None, True)],
    "fees": [],
}


# -- in time --------------------------------------------------------------------------------------------------------


def test_memberships_are_written_at_once_and_nothing_is_persisted_yet(store: SqlBillingStore, database: Engine) -> None:
    """Not even the new product: the target takes memberships in advance, but neither products nor options."""
    load(store, 1)

    answers = store.persist([sealed(0)], now=at(EVENING), split=SPLIT)

    assert answers == [None]
    assert rows(database) == {
        "memberships": [("BASIC", "MOBILE", None, "c0", False), ("GOLD", "MOBILE", "c0", None, True)],
        "options": [("roaming", None, None, True)],
        "fees": [],
    }
    counts = store.counts()
    assert (counts.persisted, counts.waiting, counts.tasks) == (0, 1, 0)
    assert list(store.changes()) == []
    assert store.next_due(0) == DUE


def test_the_second_part_is_written_when_it_is_due_and_then_the_change_is_persisted(store: SqlBillingStore) -> None:
    """The commit time is that of the second part; rows and release are those of an outcome that was written whole."""
    load(store, 2)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    store.persist([sealed(1)], now=at(EVENING))

    assert finish(store, DUE - timedelta(milliseconds=1)) == []
    (ack,) = finish_all(store)

    assert (ack.kind, ack.change_id, ack.revision) == (AcknowledgementKind.PERSISTED, "c0", 1)
    assert (ack.service_id, ack.committed_at, ack.late) == ("s0", DUE, False)
    stored = store.outcomes(["c0", "c1"])
    assert all(one.rows_match for one in stored.values())
    first, second = store.release([releasing(0), releasing(1)], now=at(MIDNIGHT))
    assert isinstance(first, Released)
    assert isinstance(second, Released)
    assert first.change.subject.memberships == second.change.subject.memberships
    assert first.change.subject.product_id == "MOBILE+"
    assert store.next_due(0) is None


def test_an_outcome_that_comes_when_its_second_part_is_due_is_written_whole(store: SqlBillingStore) -> None:
    """Both parts in one transaction, and acknowledged at once."""
    load(store, 1)

    (ack,) = store.persist([sealed(0)], now=at(DUE), split=replace(SPLIT, at=DUE))

    assert isinstance(ack, Acknowledgement)
    assert (ack.kind, ack.committed_at) == (AcknowledgementKind.PERSISTED, DUE)
    assert store.counts().waiting == 0


def test_before_the_first_tick_everything_waits(store: SqlBillingStore) -> None:
    """Nobody knows the time yet; the first tick will finish what is due."""
    load(store, 1)

    assert store.persist([sealed(0)], now=at(DUE), split=replace(SPLIT, at=None)) == [None]
    assert len(finish_all(store)) == 1


def test_due_parts_are_finished_in_slices_earliest_deadline_first_and_by_partition(store: SqlBillingStore) -> None:
    """Whatever the order in which they came; another partition's are not ours."""
    load(store, 6)
    later = sealed(0, effective_from=NEXT_MIDNIGHT)
    store.persist([later, *(sealed(number) for number in (3, 1, 2))], now=at(EVENING), split=SPLIT)
    store.persist([sealed(4)], now=at(EVENING), split=replace(SPLIT, partition=1))

    seen: list[list[str]] = []
    while done := finish(store, MIDNIGHT + timedelta(hours=23), limit=3):
        seen.append([one.result.change_id for one in done])
        store.forget(seen[-1])

    assert seen == [["c1", "c2", "c3"], ["c0"]]
    assert (store.next_due(0), store.next_due(1)) == (None, DUE)


# -- redelivery and restart -----------------------------------------------------------------------------------------


def test_a_redelivery_between_the_parts_changes_nothing(store: SqlBillingStore, database: Engine) -> None:
    """In other chunks, doubled, and even without the setting: the second part stays where it is."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    before = rows(database)

    assert store.persist([sealed(0), sealed(0)], now=at(EVENING), split=SPLIT) == [None, None]
    assert store.persist([sealed(0)], now=at(EVENING)) == [None]
    assert rows(database) == before

    (ack,) = finish_all(store)
    assert store.persist([sealed(0)], now=at(MORNING), split=SPLIT) == [ack]
    assert store.close([closing(0)], now=at(MIDNIGHT)) == [ack]


def test_a_restart_between_the_parts_finds_the_second_one(store: SqlBillingStore, open_store: Open) -> None:
    """In the database, not in memory."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    store.dispose()

    other = open_store()

    assert other.next_due(0) == DUE
    assert [ack.change_id for ack in finish_all(other)] == ["c0"]


def test_an_answer_that_was_lost_comes_again_until_it_is_forgotten(store: SqlBillingStore, open_store: Open) -> None:
    """Died between COMMIT and sending: the next owner says the same, with the time of the first commit."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    first = finish(store)

    again = finish(open_store(), MORNING)

    assert again == first
    store.forget(["c0"])
    assert finish(store, MORNING) == []
    assert store.counts().persisted == 1


def test_a_waiting_part_cannot_be_forgotten(store: SqlBillingStore) -> None:
    """Forgetting is about answers; there is none yet."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)

    store.forget(["c0"])

    assert store.next_due(0) == DUE


def test_only_the_newest_writer_of_a_partition_finishes(open_store: Open) -> None:
    """A process that lost its partition must not write the second part either."""
    old, new = open_store(), open_store()
    load(old, 1)
    stale = old.take_fence("persistence", 0)
    old.persist([sealed(0)], now=at(EVENING), fence=stale, split=SPLIT)
    fresh = new.take_fence("persistence", 0)

    with pytest.raises(Fenced):
        old.finish(0, at=DUE, limit=9, now=at(DUE), fence=stale)
    with pytest.raises(Fenced):
        old.forget(["c0"], fence=stale)
    assert len(new.finish(0, at=DUE, limit=9, now=at(DUE), fence=fresh)) == 1


# -- missed between the parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept_late", [True, False])
def test_with_only_the_first_part_there_the_deadline_is_missed(
    store: SqlBillingStore, database: Engine, accept_late: bool
) -> None:
    """Policy finish_late keeps the memberships and finishes late; roll and hold take them back in the transaction."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)

    (missed,) = store.close([closing(0, accept_late=accept_late)], now=at(MIDNIGHT))

    assert isinstance(missed, Acknowledgement)
    assert (missed.kind, missed.late) == (AcknowledgementKind.MISSED, True)
    acks = finish_all(store, MORNING)
    if accept_late:
        assert [(ack.kind, ack.committed_at, ack.late) for ack in acks] == [("persisted", MORNING, True)]
        assert store.outcomes(["c0"])["c0"].rows_match
        counts = store.counts()
        assert (counts.persisted, counts.missed, counts.late) == (1, 1, 1)
    else:
        assert acks == []
        assert rows(database) == UNTOUCHED
        assert store.counts().waiting == 0
    assert store.close([closing(0, accept_late=accept_late)], now=at(MORNING)) == [missed]


def test_what_is_taken_back_gets_the_end_that_it_had(store: SqlBillingStore) -> None:
    """A fixed term that the change has cut short runs to its own end again; one that ends just then stays as it is."""
    cut = Membership(rate_plan_id="BASIC", valid_from=LONG_AGO, valid_to=NEXT_MIDNIGHT)
    ending = Membership(rate_plan_id="BASIC", valid_from=LONG_AGO, valid_to=MIDNIGHT)
    store.load_plans([plan(0, memberships=(cut,)), plan(1, memberships=(ending,))], occurred_at=LONG_AGO)
    results = [sealed(0), sealed(1)]
    assert store.persist(results, now=at(EVENING), split=SPLIT) == [None, None]

    store.close([closing(0, accept_late=False), closing(1, accept_late=False)], now=at(MIDNIGHT))

    again = [sealed(0, revision=2, effective_from=NEXT_MIDNIGHT), sealed(1, revision=2)]
    assert store.persist(again, now=at(MORNING)) != [None, None]
    assert all(one.rows_match for one in store.outcomes(["c0", "c1"]).values())


def test_a_rolled_change_is_written_in_two_parts_again(store: SqlBillingStore) -> None:
    """Missed between the parts, rolled, and in time at the next midnight; the old outcome stays missed on replay."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    store.close([closing(0, accept_late=False)], now=at(MIDNIGHT))
    rolled = sealed(0, revision=2, effective_from=NEXT_MIDNIGHT)
    assert store.persist([rolled], now=at(MORNING), split=replace(SPLIT, at=MORNING)) == [None]

    (obsolete,) = store.persist([sealed(0)], now=at(MORNING), split=SPLIT)
    store.close([closing(0, accept_late=False)], now=at(MORNING))
    (ack,) = finish_all(store, NEXT_MIDNIGHT - BEFORE)

    assert isinstance(obsolete, Acknowledgement)
    assert obsolete.kind == AcknowledgementKind.MISSED
    assert (ack.revision, ack.late) == (2, False)
    assert store.outcomes(["c0"])["c0"].rows_match


def test_a_person_who_decides_against_late_writing_takes_the_first_part_back(
    store: SqlBillingStore, database: Engine
) -> None:
    """A newer revision of the close counts, as it does for outcomes written whole."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    store.close([closing(0)], now=at(MIDNIGHT))

    store.close([closing(0, revision=2, accept_late=False)], now=at(MIDNIGHT))

    assert finish(store, MORNING) == []
    assert rows(database) == UNTOUCHED


def test_nothing_is_released_between_the_parts(store: SqlBillingStore) -> None:
    """The release needs both; the plan that the world sees stays the old one."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)

    (refused,) = store.release([releasing(0)], now=at(MIDNIGHT))

    assert isinstance(refused, Poison)
    assert refused.reason == "nothing_persisted"


def test_finish_and_close_at_the_same_moment_decide_once(open_store: Open) -> None:
    """Without a fence both run at once: either both parts are there, or none and it was missed."""
    races = 20
    finisher, closer = open_store(), open_store()
    load(finisher, races)
    for number in range(races):
        finisher.persist([sealed(number)], now=at(EVENING), split=replace(SPLIT, partition=number))
    start = Barrier(2)

    def run_finish() -> None:
        for number in range(races):
            start.wait()
            finish(finisher, DUE, partition=number)

    def run_close() -> None:
        for number in range(races):
            start.wait()
            closer.close([closing(number, accept_late=False)], now=at(MIDNIGHT))

    threads = [Thread(target=run_finish), Thread(target=run_close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    decided = list(finisher.changes())
    persisted = [one.change_id for one in decided if one.persisted]
    assert len(decided) == races
    assert all(one.missed != one.persisted for one in decided)
    assert all(one.rows_match for one in finisher.outcomes(persisted).values())
    counts = finisher.counts()
    assert counts.memberships == races + len(persisted)
    assert counts.fees == len(persisted)


# -- other revisions, other changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_a_newer_revision_replaces_what_waits(store: SqlBillingStore, database: Engine, whole: bool) -> None:
    """Its first part is taken back in the same transaction, whether the new one is written whole or in two parts."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    newer = sealed(0, revision=2, to_rate_plan_id="SILVER")

    (answer,) = store.persist([newer], now=at(EVENING), split=None if whole else SPLIT)
    acks = [answer] if isinstance(answer, Acknowledgement) else finish_all(store)

    assert [(ack.kind, ack.revision) for ack in acks] == [("persisted", 2)]
    assert store.outcomes(["c0"])["c0"].rows_match
    assert [row[0] for row in rows(database)["memberships"]] == ["BASIC", "SILVER"]
    assert finish(store, MORNING) == []


def test_an_older_revision_and_another_outcome_are_refused_between_the_parts(store: SqlBillingStore) -> None:
    """As they are once the outcome is persisted."""
    load(store, 1)
    store.persist([sealed(0, revision=2)], now=at(EVENING), split=SPLIT)

    answers = store.persist([sealed(0), sealed(0, revision=2, silent=True)], now=at(EVENING), split=SPLIT)

    assert [one.reason for one in answers if isinstance(one, Poison)] == ["obsolete_outcome", "conflicting_outcome"]
    assert len(finish_all(store)) == 1


def test_another_change_of_the_service_waits_for_the_second_part(store: SqlBillingStore) -> None:
    """Built upon memberships that may be taken back, it would leave a gap; the scheduler never sends it so early."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    second = sealed(
        0, change_id="c9", from_rate_plan_id="GOLD", to_rate_plan_id="SILVER", effective_from=NEXT_MIDNIGHT,
        options_created=(), options_ended=("hotspot",),
    )  # fmt: skip

    (refused,) = store.persist([second], now=at(EVENING), split=SPLIT)
    finish_all(store)
    (ack,) = store.persist([second], now=at(EVENING))

    assert isinstance(refused, Poison)
    assert refused.reason == "earlier_change_unfinished"
    assert isinstance(ack, Acknowledgement)


def test_a_second_part_that_the_database_refuses_is_taken_back_alone(store: SqlBillingStore, database: Engine) -> None:
    """The answer says why until it is forgotten; at the deadline the change is missed. Its neighbours are persisted."""
    load(store, 5)
    twice = (OptionTerm(option_id="hotspot", valid_from=MIDNIGHT),) * 2
    results = [sealed(number, **({"options_created": twice} if number == 2 else {})) for number in range(5)]
    store.persist(results, now=at(EVENING), split=SPLIT)

    done = finish(store)

    refused = done[2]
    assert isinstance(refused.answer, Poison)
    assert (refused.result.change_id, refused.answer.reason) == ("c2", "constraint_violated")
    assert refused.result.sealed is not None
    assert refused.result.sealed.outcome == outcome(2, options_created=twice)
    assert rows(database, 2) == UNTOUCHED
    assert store.counts().persisted == 4
    (again,) = [one.answer for one in finish(store) if isinstance(one.answer, Poison)]
    assert (again.reason, again.detail) == (refused.answer.reason, refused.answer.detail)
    (missed,) = store.close([closing(2)], now=at(MIDNIGHT))
    assert isinstance(missed, Acknowledgement)
    assert missed.kind == AcknowledgementKind.MISSED


def test_a_waiting_outcome_that_was_altered_is_not_written(store: SqlBillingStore, database: Engine) -> None:
    """What the store keeps between the parts is sealed too."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING), split=SPLIT)
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE second_part SET body = replace(body, 'hotspot', 'premium')")

    (one,) = finish(store)

    assert isinstance(one.answer, Poison)
    assert one.answer.reason == "bad_seal"
    assert rows(database) == UNTOUCHED
