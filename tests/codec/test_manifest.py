"""The topic manifest: what it says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams import topics
from streams.core.errors import Misconfigured
from streams.kafka.manifest import MANIFEST, Manifest, managed

GOOD = """
[defaults]
partitions = 4
replication = -1
retention_hours = 168
[groups.a]
about = "a"
barrier = true
store = true
[groups.b]
about = "b"
barrier = false
[queues]
names = ["one"]
[topics."x"]
about = "x"
key = "id"
value = "curfew.clock.Tick"
cleanup = "delete"
writer = "w"
readers = ["a"]
[topics."y"]
about = "y"
key = "id"
cleanup = "compact"
writer = "w"
readers = ["b"]
[templates."queue.*"]
for_each = "queue"
about = "q"
key = "id"
value = "curfew.events.Event"
cleanup = "delete"
writer = "a"
readers = ["a"]
[templates."*-store-changelog"]
for_each = "store"
about = "s"
key = "row"
cleanup = "compact"
writer = "*"
readers = []
"""


def _load(root: Path, text: str) -> Manifest:
    path = root / "topics.toml"
    path.write_text(text)
    return Manifest.load(path)


def test_our_manifest_is_sound() -> None:
    """Every schema exists, every reader is a group, keys meet."""
    manifest = Manifest.load()

    assert {"billing.account", "clock.ticks", "dead-letters.events", "events-store-changelog"} <= manifest.topics.keys()
    assert manifest.subjects()["queue.customer-events-value"] == "curfew.events.Event"
    assert [group for group, entry in manifest.groups.items() if not entry.barrier] == ["sources"]


def test_templates_become_topics_of_groups_and_queues(tmp_path: Path) -> None:
    """A changelog only for a group with a store; the group is its writer."""
    manifest = _load(tmp_path, GOOD)

    assert manifest.topics.keys() == {"x", "y", "queue.one", "a-store-changelog"}
    assert manifest.topics["a-store-changelog"].writer == "a"
    assert [topic.name for topic in manifest.read_by("a")] == ["x", "queue.one"]


def test_settings_are_those_of_kafka(tmp_path: Path) -> None:
    """Hours become milliseconds, and a compacted topic has no retention."""
    manifest = _load(tmp_path, GOOD)

    assert manifest.topics["x"].kafka_config == {"cleanup.policy": "delete", "retention.ms": "604800000"}
    assert manifest.topics["y"].kafka_config == {"cleanup.policy": "compact"}


def test_any_queue_is_a_topic_of_the_manifest(tmp_path: Path) -> None:
    """People make queues while it runs; a misspelt other topic is refused."""
    manifest = _load(tmp_path, GOOD)

    assert manifest.topic("queue.made-later").value == "curfew.events.Event"
    assert "queue.there" in managed(manifest, ["queue.there", "foreign", "queue.NOT_OURS"]).topics
    with pytest.raises(Misconfigured, match=r"has no topic 'quue\.x'"):
        manifest.topic("quue.x")


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "a" * 101, "a b", "a/b"])
def test_a_name_that_cannot_be_a_queue_is_refused(name: str, tmp_path: Path) -> None:
    """Before Kafka makes a topic that nothing can read."""
    with pytest.raises(Misconfigured, match="cannot be a queue's name"):
        _load(tmp_path, GOOD).with_queues(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('key = "id"\nvalue = "curfew.clock.Tick"', 'keys = "id"', r'\[topics\."x"\].*`keys?`'),
        ('cleanup = "compact"', 'cleanup = "compactt"', r'\[topics\."y"\].*compactt'),
        ("curfew.clock.Tick", "curfew.clock.Tock", r"there is no schema curfew\.clock\.Tock: add"),
        ('readers = ["b"]', 'readers = ["c"]', r"the reader 'c' is no group: add \[groups\.c\]"),
        (
            'readers = ["b"]',
            'readers = ["a"]\npartitions = 3',
            r"group a reads .* different numbers.*x 4, y 3",
        ),
        ('writer = "w"\nreaders = ["b"]', 'writer = "w"\npartitions = 0\nreaders = []', "a topic has at least one"),
        ("[queues]", "[queue]", r"there is no section \[queue\]"),
        ('[templates."queue.*"]', '[templates."queues.*"]', r'section \[templates\."queue\.\*"\] is missing'),
        ('for_each = "store"', 'for_each = "shop"', "shop"),
        ("partitions = 4", "partitions = four", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_file_and_entry(old: str, new: str, message: str, tmp_path: Path) -> None:
    """The person edits this file by hand."""
    assert old in GOOD

    with pytest.raises(Misconfigured, match=message) as caught:
        _load(tmp_path, GOOD.replace(old, new))
    assert "topics.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Instead of a stack trace."""
    with pytest.raises(Misconfigured, match=r"nowhere\.toml cannot be read"):
        Manifest.load(tmp_path / "nowhere.toml")


def test_every_topic_has_one_writer_and_says_what_it_is_about() -> None:
    """One writer per topic is what makes revisions mean something."""
    manifest = Manifest.load(MANIFEST)

    assert [topic.name for topic in manifest.topics.values() if not topic.writer or not topic.about] == []


def test_topics_that_modules_name_are_in_the_manifest() -> None:
    named = {name for constant, name in vars(topics).items() if constant.isupper()}

    assert named
    assert named <= Manifest.load().topics.keys()
