"""Names of topics that several modules read or write. What each holds, and its settings: ``schemas/topics.toml``."""

from typing import Final

# time
TICKS: Final = "clock.ticks"
DUE: Final = "clock.due"

# what happened
FINDINGS: Final = "events.findings"

# rate plan changes, in the order of their life
REQUESTS: Final = "plan-change.requests"
REPLIES: Final = "plan-change.replies"
VALIDATED: Final = "plan-change.validated"
PLAN_CONTEXTS: Final = "plan-change.contexts"
COMMANDS: Final = "plan-change.commands"
OUTCOMES: Final = "plan-change.outcomes"
SETTLEMENTS: Final = "plan-change.settlements"
ACKNOWLEDGEMENTS: Final = "plan-change.acknowledgements"

# what the billing system has
SERVICE_PLANS: Final = "billing.service-plan"
MATRIX_ELEMENTS: Final = "catalog.matrix-element"
USAGE_CONTEXTS: Final = "usage.contexts"
CONTRACTS: Final = "usage.contracts"

# delivery
RESULTS: Final = "delivery.results"
REPLAYS: Final = "delivery.replays"

# what people decide
ROUTES: Final = "config.routes"
SUBSCRIPTIONS: Final = "config.subscriptions"
SOURCES: Final = "config.sources"
EVENT_RULES: Final = "config.event-rules"

# rows of data sources
SHARED: Final = "sources.shared"
