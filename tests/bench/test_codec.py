"""The codec bench: every frequent record is compared, both ways."""

from __future__ import annotations

from agents.bench.codec import SCHEMAS, measure


def test_the_report_has_a_ratio_for_every_record_and_the_least_of_them() -> None:
    report = measure(rounds=1)
    found = [one[way]["ratio_to_fastavro"] for one in report["records"].values() for way in ("write", "read")]

    assert list(report["records"]) == list(SCHEMAS)
    assert report["least_ratio_to_fastavro"] == min(found)
    assert all(ratio > 0 for ratio in found)
