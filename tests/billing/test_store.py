"""The promises of the billing store, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from threading import Barrier, Thread

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from streams.core.errors import Misconfigured, Poison
from streams.core.money import Fee
from streams.core.objects import Membership, Op, OptionTerm
from streams.core.outcome import SealedOutcome
from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind, ExecutionVerdict
from streams.sinks.billing import Fenced, Released, SqlBillingStore
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
)

Open = Callable[[], SqlBillingStore]


def load(store: SqlBillingStore, count: int) -> None:
    store.load_plans((plan(number) for number in range(count)), occurred_at=LONG_AGO)


def kinds(answers: list[Acknowledgement | Poison | None] | list[Acknowledgement | Poison]) -> list[str | None]:
    """What was acknowledged, or why it was refused."""
    return [None if one is None else one.reason if isinstance(one, Poison) else one.kind.value for one in answers]


def only_ack(answers: list[Acknowledgement | Poison | None] | list[Acknowledgement | Poison]) -> Acknowledgement:
    (answer,) = answers
    assert isinstance(answer, Acknowledgement)
    return answer


def only_release(answers: list[Released | Poison]) -> Released:
    (answer,) = answers
    assert isinstance(answer, Released)
    return answer


# -- persist --------------------------------------------------------------------------------------------------------


def test_a_sealed_outcome_becomes_rows_that_are_valid_from_its_midnight(
    store: SqlBillingStore, database: Engine
) -> None:
    """The old membership ends where the new one begins; options, fee and task are written with it."""
    load(store, 1)

    ack = only_ack(store.persist([sealed(0)], now=at(EVENING)))

    assert (ack.kind, ack.committed_at, ack.late) == (AcknowledgementKind.PERSISTED, EVENING, False)
    stored = store.outcomes(["c0"])["c0"]
    assert stored.outcome == outcome(0)
    assert stored.rows_match
    with database.connect() as connection:
        ended = connection.execute(text("SELECT rate_plan_id FROM membership WHERE ended_by = 'c0'")).scalars().all()
        options = connection.execute(text("SELECT option_id FROM service_option WHERE ended_by = 'c0'")).scalars().all()
    assert (ended, options) == (["BASIC"], ["roaming"])


def test_persisting_does_not_show_the_new_plan_before_it_is_released(store: SqlBillingStore) -> None:
    """Outcomes are written hours early; what is published stays the old plan until then."""
    load(store, 1)

    store.persist([sealed(0)], now=at(EVENING))

    shown = store.plan("s0")
    assert shown is not None
    assert (shown.revision, shown.subject) == (1, plan(0))


def test_the_same_outcomes_again_change_nothing_and_are_acknowledged_the_same(store: SqlBillingStore) -> None:
    """Redelivery hours later, in other chunks and doubled within one, gives the first commit time again."""
    load(store, 6)
    results = [sealed(number) for number in range(6)]
    first = store.persist(results, now=at(EVENING))
    before = store.counts()

    again = store.persist([*results[3:], *results, results[0]], now=at(MORNING))

    assert again == [*first[3:], *first, first[0]]
    assert store.counts() == before


def test_a_broken_seal_is_refused_alone(store: SqlBillingStore) -> None:
    """An outcome that is not what was sealed must not become billing data; its neighbours do."""
    load(store, 3)
    forged = replace(sealed(1), sealed=SealedOutcome(outcome=outcome(1, silent=True), hash="0" * 64))

    answers = store.persist([sealed(0), forged, sealed(2)], now=at(EVENING))

    assert kinds(answers) == ["persisted", "bad_seal", "persisted"]


def test_a_result_that_names_another_change_than_its_outcome_is_refused(store: SqlBillingStore) -> None:
    """The seal covers the outcome only, so the envelope has to agree with it."""
    load(store, 2)

    answers = store.persist([replace(sealed(0), change_id="c1")], now=at(EVENING))

    assert kinds(answers) == ["bad_seal"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"service_id": "nobody"}, "unknown_service"),
        ({"account_id": "a2"}, "wrong_account"),
        ({"from_rate_plan_id": "SILVER"}, "not_on_that_plan"),
        ({"memberships": ()}, "membership_gap"),
        ({"memberships": (Membership(rate_plan_id="GOLD", valid_from=NEXT_MIDNIGHT),)}, "membership_gap"),
        (
            {"fees": (Fee(code="CHANGE", amount=Decimal(1), currency="EURO"),)},
            "constraint_violated",
        ),
        (
            {"options_created": (OptionTerm(option_id="hotspot", valid_from=MIDNIGHT),) * 2},
            "constraint_violated",
        ),
        (
            {
                "memberships": (
                    Membership(rate_plan_id="GOLD", valid_from=MIDNIGHT),
                    Membership(rate_plan_id="SILVER", valid_from=NEXT_MIDNIGHT),
                )
            },
            "constraint_violated",
        ),
    ],
)  # fmt: skip
def test_an_outcome_that_cannot_be_written_does_not_take_the_chunk_down(
    store: SqlBillingStore, fields: dict[str, object], reason: str
) -> None:
    """Of nine outcomes one breaks a rule of the store or a constraint of the database: eight are written."""
    load(store, 9)
    results = [sealed(number, **(fields if number == 4 else {})) for number in range(9)]

    answers = store.persist(results, now=at(EVENING))

    assert kinds(answers) == ["persisted"] * 4 + [reason] + ["persisted"] * 4
    counts = store.counts()
    assert (counts.persisted, counts.fees, counts.memberships) == (8, 8, 17)


def test_a_second_outcome_of_a_change_is_refused(store: SqlBillingStore) -> None:
    """At most one persisted outcome per change: neither another content nor another revision may follow."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING))

    answers = store.persist([sealed(0, silent=True), sealed(0, revision=2)], now=at(EVENING))

    assert kinds(answers) == ["conflicting_outcome", "already_persisted"]


def test_two_changes_of_one_service_in_one_chunk_follow_each_other(store: SqlBillingStore) -> None:
    """After an outage both may wait in one chunk: the second ends what the first has begun."""
    load(store, 1)
    second = sealed(
        0, change_id="c9", from_rate_plan_id="GOLD", to_rate_plan_id="SILVER", effective_from=NEXT_MIDNIGHT,
        options_created=(), options_ended=("hotspot",),
    )  # fmt: skip

    answers = store.persist([sealed(0), second], now=at(EVENING))

    assert kinds(answers) == ["persisted", "persisted"]
    released = store.release([releasing(0), releasing(9, service_id="s0", account_id="a0")], now=at(MORNING))
    plans = [one.change.subject for one in released if isinstance(one, Released)]
    assert [one.rate_plan_id for one in plans] == ["GOLD", "SILVER"]
    assert plans[1].memberships == (
        Membership(rate_plan_id="GOLD", valid_from=MIDNIGHT, valid_to=NEXT_MIDNIGHT),
        Membership(rate_plan_id="SILVER", valid_from=NEXT_MIDNIGHT),
    )


def test_a_membership_that_ends_by_itself_at_the_midnight_needs_no_ending(store: SqlBillingStore) -> None:
    """A fixed term that runs out just when the change begins is no gap and no overlap."""
    term = Membership(rate_plan_id="BASIC", valid_from=LONG_AGO, valid_to=MIDNIGHT)
    store.load_plans([plan(0, memberships=(term,))], occurred_at=LONG_AGO)

    assert kinds(store.persist([sealed(0)], now=at(EVENING))) == ["persisted"]


def test_results_without_a_sealed_outcome_are_passed_over(store: SqlBillingStore) -> None:
    """Aborted and failed executions concern the scheduler; the store neither writes nor answers."""
    load(store, 1)
    aborted = replace(sealed(0), verdict=ExecutionVerdict.ABORTED, sealed=None, reason="hook said no")

    assert store.persist([aborted], now=at(EVENING)) == [None]
    assert store.counts().persisted == 0


@pytest.mark.parametrize("text", ["\x00", "\\u0000"])
def test_a_nul_character_is_refused_and_what_looks_like_one_is_not(store: SqlBillingStore, text: str) -> None:
    """PostgreSQL cannot store it: the record goes aside on both databases, whichever text it hides in."""
    load(store, 2)
    hidden = sealed(0, fees=(Fee(code=f"CHANGE{text}", amount=Decimal(1), currency="BRL"),))

    answers = store.persist([hidden, sealed(1)], now=at(EVENING))

    assert kinds(answers) == ["nul_character" if text == "\x00" else "persisted", "persisted"]
    asked = [closing(5, change_id=f"c5{text}"), closing(1)]
    assert kinds(store.close(asked, now=at(MIDNIGHT)))[1] == "persisted"
    assert isinstance(store.release([releasing(5, change_id=f"c5{text}"), releasing(1)], now=at(MIDNIGHT))[1], Released)


# -- the deadline ---------------------------------------------------------------------------------------------------


def test_close_finds_what_was_persisted(store: SqlBillingStore) -> None:
    """The answer is the commit time of the outcome, not that of the question."""
    load(store, 1)
    persisted = store.persist([sealed(0)], now=at(EVENING))

    assert store.close([closing(0)], now=at(MIDNIGHT)) == persisted


def test_close_without_an_outcome_is_missed_for_good(store: SqlBillingStore) -> None:
    """Asked again it says the same, with the time of the first decision."""
    first = store.close([closing(0)], now=at(MIDNIGHT))

    assert kinds(first) == ["missed"]
    assert store.close([closing(0)], now=at(MORNING)) == first


def test_an_outcome_after_missed_is_written_late_where_the_policy_accepts_it(store: SqlBillingStore) -> None:
    """Missed stays a fact beside the persisted outcome, and a repeated close still says missed."""
    load(store, 1)
    missed = store.close([closing(0)], now=at(MIDNIGHT))

    late = only_ack(store.persist([sealed(0)], now=at(MORNING)))

    assert (late.kind, late.late, late.committed_at) == (AcknowledgementKind.PERSISTED, True, MORNING)
    assert store.close([closing(0)], now=at(MORNING)) == missed
    counts = store.counts()
    assert (counts.missed, counts.persisted, counts.late) == (1, 1, 1)


def test_an_outcome_after_missed_is_not_written_where_the_policy_refuses_it(store: SqlBillingStore) -> None:
    """A change that was rolled or held must not come true behind the scheduler's back."""
    load(store, 1)
    store.close([closing(0, accept_late=False)], now=at(MIDNIGHT))

    answers = store.persist([sealed(0)], now=at(MORNING))

    assert kinds(answers) == ["missed"]
    assert store.counts().persisted == 0


def test_a_rolled_change_is_in_time_at_its_next_midnight(store: SqlBillingStore) -> None:
    """Missed once, then persisted before the next deadline: two decisions of one change, and no lateness."""
    load(store, 1)
    store.close([closing(0, accept_late=False)], now=at(MIDNIGHT))
    rolled = sealed(0, revision=2, effective_from=NEXT_MIDNIGHT)

    ack = only_ack(store.persist([rolled], now=at(MORNING)))

    assert (ack.kind, ack.revision, ack.late) == (AcknowledgementKind.PERSISTED, 2, False)
    closed = store.close([closing(0, revision=2, deadline_at=NEXT_MIDNIGHT)], now=at(NEXT_MIDNIGHT))
    assert kinds(closed) == ["persisted"]
    assert [(one.deadline, one.missed, one.persisted) for one in store.changes()] == [
        (MIDNIGHT, True, False),
        (NEXT_MIDNIGHT, False, True),
    ]


def test_the_obsolete_outcome_of_a_rolled_change_stays_missed_on_replay(store: SqlBillingStore) -> None:
    """Replaying the topic from the start gives each record its first answer again."""
    load(store, 1)
    store.close([closing(0, accept_late=False)], now=at(MIDNIGHT))
    first = store.persist([sealed(0)], now=at(MORNING))
    store.persist([sealed(0, revision=2, effective_from=NEXT_MIDNIGHT)], now=at(MORNING))

    assert store.persist([sealed(0)], now=at(NEXT_MIDNIGHT)) == first


def test_a_held_change_can_be_finished_late_by_a_newer_revision(store: SqlBillingStore) -> None:
    """An operator's decision counts from its revision on; an older close that comes again does not undo it."""
    load(store, 1)
    held = closing(0, accept_late=False)
    store.close([held], now=at(MIDNIGHT))
    store.close([closing(0, revision=2, accept_late=True)], now=at(MORNING))
    store.close([held], now=at(MORNING))

    ack = only_ack(store.persist([sealed(0)], now=at(MORNING)))

    assert (ack.kind, ack.late) == (AcknowledgementKind.PERSISTED, True)


def test_a_commit_at_the_deadline_is_late_even_if_nobody_has_closed_it(store: SqlBillingStore) -> None:
    """Before 00:00 means before: only the time after COMMIT decides, and close repeats it."""
    load(store, 2)
    on_time = only_ack(store.persist([sealed(0)], now=at(MIDNIGHT - timedelta(milliseconds=1))))
    late = only_ack(store.persist([sealed(1)], now=at(MIDNIGHT)))

    assert (on_time.late, late.late) == (False, True)
    assert only_ack(store.close([closing(1)], now=at(MIDNIGHT))).late


def test_the_clock_is_read_after_the_commit(store: SqlBillingStore, open_store: Open) -> None:
    """At the moment of the reading another connection sees the outcome already."""
    load(store, 1)
    other = open_store()
    seen: list[int] = []

    def now() -> object:
        seen.append(other.counts().persisted)
        return EVENING

    store.persist([sealed(0)], now=now)  # type: ignore[arg-type]

    assert seen == [1]


def test_persist_and_close_at_the_same_moment_decide_once(open_store: Open) -> None:
    """Two writers without a fence race for each change: both hear the same decision, and there is one row."""
    races = 30
    persister, closer = open_store(), open_store()
    load(persister, races)
    heard: dict[str, list[str | None]] = {}
    start = Barrier(2)

    def persist() -> None:
        answers = []
        for number in range(races):
            start.wait()
            answers += persister.persist([sealed(number)], now=at(EVENING))
        heard["persist"] = kinds(answers)

    def close() -> None:
        answers = []
        for number in range(races):
            start.wait()
            answers += closer.close([closing(number, accept_late=False)], now=at(MIDNIGHT))
        heard["close"] = kinds(answers)

    threads = [Thread(target=persist), Thread(target=close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert heard["persist"] == heard["close"]
    decided = [(one.change_id, one.missed, one.persisted) for one in persister.changes()]
    assert len(decided) == races
    assert all(missed != persisted for _, missed, persisted in decided)


# -- release --------------------------------------------------------------------------------------------------------


def test_a_release_publishes_the_next_revision_of_the_plan(store: SqlBillingStore) -> None:
    """It carries the plan before and after, dated at the midnight, and the change that made it."""
    load(store, 1)
    store.persist([sealed(0, silent=True)], now=at(EVENING))

    released = only_release(store.release([releasing(0)], now=at(MIDNIGHT)))

    change = released.change
    assert (change.op, change.revision, change.occurred_at, change.previous) == (Op.UPDATED, 2, MIDNIGHT, plan(0))
    assert change.subject == plan(
        0,
        rate_plan_id="GOLD",
        product_id="MOBILE+",
        memberships=(
            Membership(rate_plan_id="BASIC", valid_from=LONG_AGO, valid_to=MIDNIGHT),
            Membership(rate_plan_id="GOLD", valid_from=MIDNIGHT),
        ),
        options=(
            OptionTerm(option_id="roaming", valid_from=LONG_AGO, valid_to=MIDNIGHT),
            OptionTerm(option_id="hotspot", valid_from=MIDNIGHT),
        ),
        change_id="c0",
        silent=True,
    )
    ack = released.acknowledgement
    assert (ack.kind, ack.committed_at, ack.late) == (AcknowledgementKind.RELEASED, MIDNIGHT, False)
    assert store.plan("s0") == change


def test_a_repeated_release_is_the_same_record(store: SqlBillingStore) -> None:
    """After a crash the record goes out again: it must not become another revision, even with later changes there."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING))
    first = store.release([releasing(0), releasing(0)], now=at(MIDNIGHT))
    store.persist(
        [sealed(0, change_id="c9", from_rate_plan_id="GOLD", effective_from=NEXT_MIDNIGHT, options_ended=("hotspot",))],
        now=at(MORNING),
    )

    again = store.release([releasing(0)], now=at(MORNING))

    assert first == [*again, *again]


def test_a_late_change_is_released_and_says_so(store: SqlBillingStore) -> None:
    """Late is how it was persisted, so the release of a late change carries the flag."""
    load(store, 1)
    store.close([closing(0)], now=at(MIDNIGHT))
    store.persist([sealed(0)], now=at(MORNING))

    assert only_release(store.release([releasing(0)], now=at(MORNING))).acknowledgement.late


def test_a_release_of_nothing_is_refused_alone(store: SqlBillingStore) -> None:
    """It says that scheduler and database disagree: to be looked at, without stopping the others."""
    load(store, 2)
    store.persist([sealed(1)], now=at(EVENING))

    refused, released = store.release([releasing(0), releasing(1)], now=at(MIDNIGHT))

    assert isinstance(refused, Poison)
    assert refused.reason == "nothing_persisted"
    assert isinstance(released, Released)


# -- fence ----------------------------------------------------------------------------------------------------------


def test_an_older_writer_of_a_partition_is_shut_out(open_store: Open) -> None:
    """A process that lost its partition while it was stopped must not write when it goes on; others are untouched."""
    old, new = open_store(), open_store()
    load(old, 2)
    stale, other = old.take_fence("persistence", 0), old.take_fence("persistence", 1)
    fresh = new.take_fence("persistence", 0)

    with pytest.raises(Fenced, match="newer writer"):
        old.persist([sealed(0)], now=at(EVENING), fence=stale)
    with pytest.raises(Fenced):
        old.close([closing(0)], now=at(EVENING), fence=stale)
    with pytest.raises(Fenced):
        old.release([releasing(0)], now=at(EVENING), fence=stale)
    assert new.counts().persisted == 0
    assert kinds(new.persist([sealed(0)], now=at(EVENING), fence=fresh)) == ["persisted"]
    assert kinds(old.persist([sealed(1)], now=at(EVENING), fence=other)) == ["persisted"]


# -- import and constraints -----------------------------------------------------------------------------------------


def test_an_import_is_revision_one_and_can_be_repeated(store: SqlBillingStore) -> None:
    """An importer that crashed publishes the same first revisions again, even of plans that have moved on."""
    first = store.load_plans([plan(0), plan(1)], occurred_at=LONG_AGO)
    store.persist([sealed(0)], now=at(EVENING))
    store.release([releasing(0)], now=at(MIDNIGHT))

    again = store.load_plans([plan(0), plan(1), plan(2)], occurred_at=LONG_AGO)

    assert [(change.op, change.revision, change.subject) for change in first] == [
        (Op.CREATED, 1, plan(0)),
        (Op.CREATED, 1, plan(1)),
    ]
    assert again[:2] == first
    assert again[2].subject == plan(2)
    shown = store.plan("s0")
    assert shown is not None
    assert shown.revision == 2


def test_an_import_with_overlapping_memberships_names_the_service(store: SqlBillingStore) -> None:
    """Nothing of that transaction is imported, so that the file can be corrected and loaded again."""
    twice = (Membership(rate_plan_id="BASIC", valid_from=LONG_AGO), Membership(rate_plan_id="GOLD", valid_from=EVENING))

    with pytest.raises(Misconfigured, match="service s7"):
        store.load_plans([plan(6), plan(7, memberships=twice), plan(8)], occurred_at=LONG_AGO)
    assert store.counts().services == 0


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO membership (service_id, valid_from, rate_plan_id, product_id) VALUES ('s0', {evening}, 'X', 'Y')",
        "UPDATE membership SET valid_to = NULL WHERE ended_by = 'c0'",
        "INSERT INTO service_option (service_id, option_id, valid_from) VALUES ('s0', 'hotspot', {morning})",
        "INSERT INTO membership (service_id, valid_from, rate_plan_id, product_id) VALUES ('?', {evening}, 'X', 'Y')",
        "UPDATE membership SET valid_to = valid_from WHERE change_id = 'c0'",
    ],
)
def test_the_database_itself_refuses_overlaps_and_orphans(
    store: SqlBillingStore, database: Engine, statement: str
) -> None:
    """Someone who writes by hand, or a bug of ours, cannot make a service be in two rate plans at one instant."""
    load(store, 1)
    store.persist([sealed(0)], now=at(EVENING))
    instants = {"evening": f"'{EVENING.isoformat()}'", "morning": f"'{MORNING.isoformat()}'"}

    with database.connect() as connection:
        if database.dialect.name == "sqlite":
            connection.execute(text("PRAGMA foreign_keys = ON"))
        with pytest.raises(IntegrityError):
            connection.execute(text(statement.format(**instants)))


def test_a_membership_written_behind_our_back_is_refused_where_it_overlaps(
    store: SqlBillingStore, database: Engine
) -> None:
    """Before the change or after it: whichever comes second is refused, by the constraint and by its name."""
    load(store, 3)
    store.persist([sealed(0)], now=at(EVENING))
    insert = (
        "INSERT INTO membership (service_id, valid_from, rate_plan_id, product_id) "
        f"VALUES ('%s', '{MORNING.isoformat(timespec='microseconds')}', 'FREE', 'MOBILE')"
    )
    ended = f"UPDATE membership SET valid_to = '{MORNING.isoformat(timespec='microseconds')}' WHERE service_id = 's1'"

    with pytest.raises(IntegrityError, match="membership_no_overlap"), database.begin() as connection:
        connection.exec_driver_sql(insert % "s0")
    with database.begin() as connection:
        connection.exec_driver_sql(ended)
        connection.exec_driver_sql(insert % "s1")
    answers = store.persist([sealed(1), sealed(2)], now=at(EVENING))

    assert kinds(answers) == ["constraint_violated", "persisted"]
    assert isinstance(answers[0], Poison)
    assert "membership_no_overlap" in answers[0].detail


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("UPDATE fee SET amount = '99' WHERE change_id = 'c1'", "fee"),
        ("DELETE FROM fee WHERE change_id = 'c1'", "fee"),
        ("UPDATE task SET details = '{}' WHERE change_id = 'c1'", "task"),
        ("UPDATE membership SET product_id = 'OTHER' WHERE change_id = 'c1'", "membership"),
        ("DELETE FROM membership WHERE change_id = 'c1'", "membership"),
        ("DELETE FROM membership WHERE ended_by = 'c1'", "membership"),
        ("DELETE FROM service_option WHERE change_id = 'c1'", "service_option"),
        (
            "UPDATE service_option SET valid_to = NULL, ended_by = NULL WHERE service_id = 's1' "
            "AND option_id = 'roaming'",
            "service_option",
        ),
    ],
)
def test_rows_that_were_changed_by_hand_show_in_the_reconciliation(
    store: SqlBillingStore, database: Engine, statement: str, table: str
) -> None:
    """The sealed body beside the rows tells what should be there, and what should be over."""
    load(store, 3)
    store.persist([sealed(number) for number in range(3)], now=at(EVENING))

    with database.begin() as connection:
        connection.exec_driver_sql(statement)

    stored = store.outcomes(["c0", "c1", "c2", "unknown"])
    assert {change: one.differing for change, one in stored.items()} == {"c0": (), "c1": (table,), "c2": ()}


def test_reading_all_decisions_goes_over_pages(store: SqlBillingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change once, in order, however many pages; lateness is judged by the commit time."""
    monkeypatch.setattr("streams.sinks.billing.read.PAGE", 3)
    load(store, 10)
    store.persist([sealed(number) for number in range(8)], now=at(EVENING))
    store.persist([sealed(8)], now=at(MORNING))
    store.close([closing(9)], now=at(MIDNIGHT))
    store.release([releasing(0)], now=at(MIDNIGHT))

    found = list(store.changes())

    assert [one.change_id for one in found] == [f"c{number}" for number in range(10)]
    assert [one.late for one in found] == [False] * 8 + [True, False]
    assert (found[0].plan_revision, found[1].plan_revision, found[9].missed) == (2, None, True)
    assert found[0].hash == store.outcomes(["c0"])["c0"].hash
