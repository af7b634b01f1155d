"""Delivery of events to subscribers, as pure decisions over rows.

A **unit** is one event for one recipient of one subscription. It is made once by intake, attempted by a schedule, and
ends as delivered, dead or discarded::

    queue record ──intake──▶ pending ──attempt──▶ in flight ──result──▶ delivered
                                ▲                     │
                                └──── retry, later ───┴──exhausted──▶ dead (dead letter)

``units``      the rows, their keys and their (de)serialisation
``messages``   what travels between the delivery worker and the dispatch worker
``recipients`` who gets a unit of an event
``retries``    when the next attempt is due
``window``     how many attempts of a subscription are under way at once
``index``      what to do next, derived from the rows, in memory
``desk``       the decisions: accept, settle, replay, wake
``flow``       whose turn it is, what goes out together, and what an end lets go on
``effects``    what is to be done after a decision
``book``       the subscriptions, as they are looked up
``hops``       the loop guard of forwarding
``made``       the dispatch worker's rows: which attempts were begun, how an endpoint fares
``pace``       how fast an endpoint takes requests
``endpoint``   how an endpoint fares: its breaker, and when it is disabled
``ledger``     the equation that must always hold, and its check
``status``     what people are shown of a subscription
"""
