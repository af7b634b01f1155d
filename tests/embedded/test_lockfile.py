"""Lock files pin coordinates and checksums, and nothing about the machine that downloads."""

from __future__ import annotations

from importlib.resources import files

import pytest

from agents.embedded import DEFAULT_KAFKA_VERSION, StackError, lockfile
from agents.embedded.jars import REGISTRY_LOCK

COMMITTED = [lockfile.kafka_lock_name(DEFAULT_KAFKA_VERSION), lockfile.kafka_lock_name("3.9.2"), REGISTRY_LOCK]


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_lock_is_written_as_it_would_be_rendered(name: str) -> None:
    """So a lock made anew differs only where the jars differ."""
    text = files("agents.embedded").joinpath(name).read_text("utf-8")
    comment = text.splitlines()[0].removeprefix("# ")

    assert lockfile.render(lockfile.parse(text, name), comment) == text


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_lock_names_no_host(name: str) -> None:
    """The repository is a setting of the machine; a host in the lock would override its mirror."""
    text = files("agents.embedded").joinpath(name).read_text("utf-8")

    assert "/" not in text


@pytest.mark.parametrize(
    ("coordinates", "path"),
    [
        ("org.apache.kafka:kafka_2.13:4.3.0:jar", "org/apache/kafka/kafka_2.13/4.3.0/kafka_2.13-4.3.0.jar"),
        ("io.a:app:3.3.3:all:tar.gz", "io/a/app/3.3.3/app-3.3.3-all.tar.gz"),
    ],
)
def test_coordinates_tell_the_place_in_any_maven_repository(coordinates: str, path: str) -> None:
    """Group by directories, then artifact and version; the classifier goes into the file name."""
    artifact = lockfile.parse_artifact(coordinates)

    assert str(artifact.path) == path
    assert str(artifact) == coordinates


@pytest.mark.parametrize(
    "line", ["abc  g:a:1:jar", f"{'0' * 64}  g:a:jar", f"{'0' * 64} g:a:1:jar", f"{'0' * 64}  g::1:jar", "g:a:1:jar"]
)
def test_an_unreadable_line_is_an_error_with_its_number(line: str) -> None:
    """A line that is skipped would be a jar that is missing or not checked."""
    with pytest.raises(StackError) as raised:
        lockfile.parse(f"# comment\n{line}\n", "some.lock")

    assert raised.value.where == "some.lock, line 2"
