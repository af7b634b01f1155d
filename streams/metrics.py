"""The names of all metrics, in one place.

A name of ours ends with its unit (``_seconds``, ``_records``, ``_total`` for what only grows). The families ``kafka_…``
have the names of kafka_exporter and kafka-lag-exporter, whatever their units, because dashboards ask for them.
docs/metrics.md has the same list; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Family(StrEnum):
    """Where a metric belongs; the first two can be switched off."""

    KAFKA_EXPORTER = "kafka_exporter"
    KAFKA_LAG_EXPORTER = "kafka-lag-exporter"
    GROUPS = "groups"
    MONITOR = "monitor"
    CURFEW = "curfew"
    CANARY = "canary"
    WATCHDOG = "watchdog"
    WORKER = "worker"


class Kind(StrEnum):
    """Prometheus' types, as far as they are used."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One name; ``help`` is a sentence with the unit where the name has none."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    family: Family


ALL: Final[dict[str, Metric]] = {}


def _define(family: Family, kind: Kind, name: str, labels: str, help: str) -> Metric:
    ALL[name] = Metric(name=name, kind=kind, labels=tuple(labels.split()), help=help, family=family)
    return ALL[name]


def _of(family: Family, kind: Kind, *rows: tuple[str, str, str]) -> list[Metric]:
    return [_define(family, kind, *row) for row in rows]


_G, _C, _H = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM

# -- family A: the names of kafka_exporter --------------------------------------------------------------------------

(
    BROKERS, BROKER_INFO, TOPIC_PARTITIONS, CURRENT_OFFSET, OLDEST_OFFSET, IN_SYNC, LEADER, LEADER_PREFERRED, REPLICAS,
    UNDER_REPLICATED, A_OFFSET, A_OFFSET_SUM, A_LAG, A_LAG_SUM, A_MEMBERS,
) = _of(
    Family.KAFKA_EXPORTER, _G,
    ("kafka_brokers", "", "Brokers of the cluster"),
    ("kafka_broker_info", "id address", "1 for each broker"),
    ("kafka_topic_partitions", "topic", "Partitions of the topic"),
    ("kafka_topic_partition_current_offset", "topic partition", "End offset of the partition"),
    ("kafka_topic_partition_oldest_offset", "topic partition", "Start offset of the partition"),
    ("kafka_topic_partition_in_sync_replica", "topic partition", "Replicas that are in sync"),
    ("kafka_topic_partition_leader", "topic partition", "Id of the leader, -1 without one"),
    ("kafka_topic_partition_leader_is_preferred", "topic partition", "1 if the first replica leads"),
    ("kafka_topic_partition_replicas", "topic partition", "Replicas of the partition"),
    ("kafka_topic_partition_under_replicated_partition", "topic partition", "1 if a replica is not in sync"),
    ("kafka_consumergroup_current_offset", "consumergroup topic partition", "Committed offset"),
    ("kafka_consumergroup_current_offset_sum", "consumergroup topic", "Committed offsets, all partitions"),
    ("kafka_consumergroup_lag", "consumergroup topic partition", "Records from the committed offset to the end"),
    ("kafka_consumergroup_lag_sum", "consumergroup topic", "The same, all partitions"),
    ("kafka_consumergroup_members", "consumergroup", "Members of the group"),
)  # fmt: skip

# -- family B: the names of kafka-lag-exporter ----------------------------------------------------------------------

_PARTITION_OF_GROUP = "cluster_name group topic partition member_host consumer_id client_id"
(
    B_LAG, B_LAG_SECONDS, B_OFFSET, B_MAX_LAG, B_MAX_LAG_SECONDS, B_SUM_LAG, B_TOPIC_SUM_LAG, B_LATEST, B_EARLIEST,
    B_POLL_TIME,
) = _of(
    Family.KAFKA_LAG_EXPORTER, _G,
    ("kafka_consumergroup_group_lag", _PARTITION_OF_GROUP, "Records from the committed offset to the end"),
    ("kafka_consumergroup_group_lag_seconds", _PARTITION_OF_GROUP, "Age of the first unread record, seconds"),
    ("kafka_consumergroup_group_offset", _PARTITION_OF_GROUP, "Committed offset"),
    ("kafka_consumergroup_group_max_lag", "cluster_name group", "Lag of the partition that is furthest behind"),
    ("kafka_consumergroup_group_max_lag_seconds", "cluster_name group", "The greatest of these ages, seconds"),
    ("kafka_consumergroup_group_sum_lag", "cluster_name group", "Lag of all partitions"),
    ("kafka_consumergroup_group_topic_sum_lag", "cluster_name group topic", "Lag of all partitions of a topic"),
    ("kafka_partition_latest_offset", "cluster_name topic partition", "End offset of the partition"),
    ("kafka_partition_earliest_offset", "cluster_name topic partition", "Start offset of the partition"),
    ("kafka_consumergroup_poll_time_ms", "cluster_name", "How long the last look took, milliseconds"),
)  # fmt: skip

# -- groups, under names of ours ------------------------------------------------------------------------------------

(GROUP_STATUS, GROUP_LAG, GROUP_TIME_LAG, GROUP_INFERRED, PARTITION_STATUS) = _of(
    Family.GROUPS, _G,
    ("curfew_group_status", "group", "Worst partition: 1 OK, 2 WARN, 4 STOP, 5 STALL, 6 REWIND"),
    ("curfew_group_lag_records", "group", "Records behind, all partitions"),
    ("curfew_group_time_lag_seconds", "group", "Age of the oldest unread record; absent where nobody knows"),
    ("curfew_group_status_inferred", "group", "1 if judged without the times of commits"),
    ("curfew_partition_status", "group topic partition", "The same numbers, only partitions that are not OK"),
)  # fmt: skip

# -- the monitor itself ---------------------------------------------------------------------------------------------

(MONITOR_UP, MONITOR_LOOKED_AT, MONITOR_LOOK_SECONDS, MONITOR_GROUPS, MONITOR_INFERRED) = _of(
    Family.MONITOR, _G,
    ("curfew_monitor_up", "", "1 if the last look at the cluster worked"),
    ("curfew_monitor_last_look_timestamp_seconds", "", "When the last look that worked ended, Unix time"),
    ("curfew_monitor_look_seconds", "", "How long it took"),
    ("curfew_monitor_groups", "", "Groups that it saw"),
    ("curfew_monitor_offset_fetch", "", "1 if __consumer_offsets cannot be read and groups are asked one by one"),
)  # fmt: skip

# -- Curfew: ticks, deadlines, deliveries, dead letters, the ledger -------------------------------------------------

(TICK_AGE, BUSINESS_TIME) = _of(
    Family.CURFEW, _G,
    ("curfew_tick_age_seconds", "", "Since the newest tick was written, by the machine's clock"),
    ("curfew_business_time_seconds", "", "Business time of the newest tick, Unix time"),
)  # fmt: skip
(
    DEADLINE_SLACK, DEADLINE_REMAINING, DEADLINE_ETA, DEADLINE_AT, DEADLINE_CHANGES, DEADLINE_MISSED, DEADLINE_STATE,
    PERSIST_RATE,
) = _of(
    Family.CURFEW, _G,
    ("curfew_deadline_slack_seconds", "zone date", "Deadline minus estimate, negative: too late; absent without rate"),
    ("curfew_deadline_remaining_changes", "zone date", "Not persisted yet"),
    ("curfew_deadline_eta_timestamp_seconds", "zone date", "When the work is done at this rate, Unix time"),
    ("curfew_deadline_timestamp_seconds", "zone date", "The first instant of the date in the zone, Unix time"),
    ("curfew_deadline_changes", "zone date stage", "Changes by stage"),
    ("curfew_deadline_missed_changes", "zone date", "Not persisted at this deadline"),
    ("curfew_deadline_state", "zone date", "0 ok, 1 at risk, 2 late"),
    ("curfew_persisted_changes_per_second", "", "Rate of commits of the billing store, business time"),
)  # fmt: skip
(DELIVERIES, DELIVERY_OLDEST, LEDGER_DIFFERENCE, LEDGER_AT) = _of(
    Family.CURFEW, _G,
    ("curfew_deliveries", "subscription state", "Units by state: filtered, pending, delivered, dead, discarded"),
    ("curfew_delivery_oldest_pending_seconds", "subscription", "Age of the oldest unit that is not delivered"),
    ("curfew_ledger_difference", "subscription", "Events that are missing or nobody's; anything but 0 is a fault"),
    ("curfew_ledger_timestamp_seconds", "", "When the ledger was checked, Unix time"),
)  # fmt: skip
(NOT_COUNTED,) = _of(
    Family.CURFEW, _G,
    ("curfew_monitor_not_counted", "what", "1 if the last count failed: its metrics here are old or absent"),
)  # fmt: skip
(DEAD_LETTERS,) = _of(
    Family.CURFEW, _C,
    ("curfew_dead_letters_total", "app reason", "Dead letters in the topics when the monitor started, and since"),
)  # fmt: skip

# -- canary and watchdog --------------------------------------------------------------------------------------------

(CANARY_SECONDS,) = _of(
    Family.CANARY, _H,
    ("curfew_canary_seconds", "stage", "Changes of the canary by stage (accepted, persisted, effective, round_trip)"),
)  # fmt: skip
(CANARY_STATE,) = _of(
    Family.CANARY, _G,
    ("curfew_canary_state", "", "0 ok, 1 at risk, 2 missed"),
)  # fmt: skip
(WATCHDOG_ALARM, WATCHDOG_OPEN, WATCHDOG_OVERDUE, WATCHDOG_MISSED, WATCHDOG_BLIND) = _of(
    Family.WATCHDOG, _G,
    ("curfew_watchdog_alarm", "deadline", "0 ok, 1 at risk, 2 missed: what the watchdog has told people"),
    ("curfew_watchdog_open_changes", "deadline", "Accepted and not persisted"),
    ("curfew_watchdog_overdue_changes", "deadline", "Of these, should be done by now"),
    ("curfew_watchdog_missed_changes", "deadline", "Recorded as missed by the billing store"),
    ("curfew_watchdog_blind", "", "1 if it cannot read Kafka"),
)  # fmt: skip

# -- workers, each on its health port -------------------------------------------------------------------------------

(
    WORKER_RECORDS, WORKER_OUTPUTS, WORKER_ROWS, WORKER_RETRIES, WORKER_DEAD_LETTERS, WORKER_RESTARTS, PROCESS_CPU,
) = _of(
    Family.WORKER, _C,
    ("curfew_worker_records_total", "app instance", "Records handled"),
    ("curfew_worker_outputs_total", "app instance", "Records produced"),
    ("curfew_worker_rows_total", "app instance", "Rows written"),
    ("curfew_worker_retries_total", "app instance", "Chunks tried again"),
    ("curfew_worker_dead_letters_total", "app instance reason", "Records put aside"),
    ("curfew_worker_restarts_total", "app instance", "How often the supervisor has started it again"),
    ("process_cpu_seconds_total", "", "Processor time of the process"),
)  # fmt: skip
(WORKER_CHUNK_SECONDS,) = _of(
    Family.WORKER, _H,
    ("curfew_worker_chunk_seconds", "app instance", "From a chunk's first decision until it is durable"),
)  # fmt: skip
(
    WORKER_ALIVE, WORKER_OUTSTANDING, WORKER_LAG, WORKER_BUSINESS_TIME, SOURCE_WAITING, PROCESS_MEMORY, PROCESS_START,
) = _of(
    Family.WORKER, _G,
    ("curfew_worker_alive", "app instance", "1 if it polls Kafka"),
    ("curfew_worker_outstanding_chunks", "app instance", "Fetched and not done"),
    ("curfew_worker_lag_records", "app instance topic partition", "Records behind, as the worker itself sees it"),
    ("curfew_worker_business_time_seconds", "app instance partition", "Business time, Unix time"),
    ("curfew_source_waiting", "instance source", "Worker sources: 1 if the source cannot be read or written"),
    ("process_resident_memory_bytes", "", "Resident memory of the process"),
    ("process_start_time_seconds", "", "When the process started, Unix time"),
)  # fmt: skip


def names(families: Iterable[Family]) -> list[str]:
    """All names of these families."""
    wanted = {*families}
    return [name for name, metric in ALL.items() if metric.family in wanted]
