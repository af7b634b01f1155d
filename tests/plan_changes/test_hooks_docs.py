"""docs/hooks.md is true: its example is installed as a package would be, and runs; so do the hooks to copy."""

from __future__ import annotations

import asyncio
import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agents.plan_changes import hooks
from agents.plan_changes.dry_run import DryRun, DryRuns
from agents.plan_changes.hooks_examples import HOOKS
from streams.core.hooks import FailurePolicy, Hook, Hookpoint, HookRegistry
from streams.core.outcome import Release, TaskKind
from streams.core.plan_change.machine import Change
from streams.core.plan_change.messages import AcknowledgementKind, ExecutionResult
from tests.plan_changes.makers import NOON, START, a_request, acknowledgement, an_element, pending
from tests.plan_changes.plant import Plant, a_plan, a_service, an_account

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()


class Crm:
    """What the example talks to: one blocked account, and the tickets that were closed, by key."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed: list[tuple[str, str]] = []
        crm = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                crm.asked.append(self.path)
                self._answer({"blocked": self.path.endswith("/A-blocked")})

            def do_POST(self) -> None:
                crm.closed.append((self.path, self.headers["Idempotency-Key"]))
                self._answer({})

            def _answer(self, body: object) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def crm() -> Iterator[Crm]:
    made = Crm()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def installed(crm: Crm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HookRegistry]:
    """The page's example as an installed distribution with the page's entry point, and no settings."""
    example = re.search(r"<!-- tests/plan_changes/test_hooks_docs.py.*?-->\n```python\n(.*?)```", PAGE, re.S)
    entry_point = re.search(r'entry-points\."(.*?)"\]\nacme = "(.*?)"', PAGE)
    assert example is not None
    assert entry_point is not None
    package, metadata = tmp_path / "acme_billing", tmp_path / "acme_billing-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").touch()
    (package / "hooks.py").write_text(example[1])
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-billing\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{entry_point[1]}]\nacme = {entry_point[2]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ACME_CRM_URL", crm.url)
    yield hooks.load([])
    for name in [name for name in sys.modules if name.startswith("acme_billing")]:
        del sys.modules[name]


def all_of(registry: HookRegistry) -> tuple[Hook, ...]:
    return tuple(hook for found in registry.by_key.values() for hook in found)


def dry(registry: HookRegistry, change: Change) -> DryRun:
    return asyncio.run(DryRuns(registry).run(change, NOON, order=True))


def test_an_installed_package_declares_its_hooks(installed: HookRegistry) -> None:
    """By the entry point that the page names, without a setting."""
    assert {hook.name: hook.key for hook in all_of(installed)} == {
        "not-blocked": Hookpoint.ORDER,
        "welcome-kit": f"{Hookpoint.PRIOR}.basic-to-plus",
        "close-ticket": Hookpoint.POST,
    }


def test_declared_twice_it_is_loaded_once(installed: HookRegistry) -> None:
    """By the setting and by the entry point, as after a migration from one to the other."""
    assert hooks.load(["acme_billing.hooks:HOOKS"]) == installed


def test_the_example_in_a_dry_run_asks_but_does_nothing(installed: HookRegistry, crm: Crm) -> None:
    """Its fee and its task are in the outcome; no ticket is closed."""
    run = dry(installed, pending())

    assert run.reasons == ()
    assert run.outcome is not None
    assert [fee.code for fee in run.outcome.fees] == ["change", "welcome-kit"]
    assert [(task.name, task.release) for task in run.outcome.tasks] == [("welcome", Release.EFFECTIVE)]
    assert (crm.asked, crm.closed) == (["/accounts/A1"], [])


def test_the_example_of_a_blocked_account_refuses_the_order(installed: HookRegistry) -> None:
    """With its reason."""
    assert dry(installed, replace(pending(), account_id="A-blocked")).reasons == ("account_blocked",)


def test_silent_and_no_fees_are_kept_for_the_hook(installed: HookRegistry) -> None:
    """It asks for a message and a fee all the same."""
    run = dry(installed, replace(pending(), silent=True, apply_fees=False))

    assert run.outcome is not None
    assert (run.outcome.tasks, run.outcome.fees) == ((), ())


def test_the_example_in_earnest_closes_the_ticket_under_the_change_s_key(installed: HookRegistry, crm: Crm) -> None:
    """Through scheduler and executor, from the order to the post work."""
    plant = Plant(hooks=all_of(installed))
    plant.knows(an_account(), a_service(), a_plan())
    plant.tick(NOON)
    replies = plant.replies(plant.execute(plant.request(a_request())))
    assert [reply.accepted for reply in replies] == [True]
    assert replies[0].change_id is not None
    change = replace(pending(), change_id=replies[0].change_id)
    plant.execute(plant.tick(START + timedelta(hours=3)))
    plant.execute(plant.acknowledge(acknowledgement(change, AcknowledgementKind.PERSISTED, START + timedelta(hours=3))))

    assert crm.closed == [("/tickets/S1/close", f"{change.change_id}/1")]


def test_the_hooks_to_copy_do_what_they_say() -> None:
    """A fee for orders through a person, a task for the network, no roaming with a data-only plan."""
    registry = HookRegistry.of(HOOKS)
    data_only = an_element(to_rate_plan_id="data-only")

    by_web, by_shop = (dry(registry, replace(pending(), channel=channel)) for channel in ("web", "shop"))
    without = dry(registry, replace(pending(), element=data_only, to_rate_plan_id="data-only"))

    assert by_web.outcome is not None
    assert by_shop.outcome is not None
    assert without.outcome is not None
    assert [fee.code for fee in by_web.outcome.fees] == ["change"]
    assert [fee.code for fee in by_shop.outcome.fees] == ["change", "assisted-order"]
    assert [(task.kind, task.release, task.details["profile"]) for task in by_web.outcome.tasks] == [
        (TaskKind.PROVISIONING, Release.EFFECTIVE, "plus")
    ]
    assert [term.option_id for term in by_web.outcome.options_created] == ["roaming"]
    assert without.outcome.options_created == ()


@pytest.mark.parametrize("names", [Hookpoint, FailurePolicy, Release], ids=lambda names: names.__name__)
def test_the_page_names_all_there_is(names: type[Hookpoint] | type[FailurePolicy] | type[Release]) -> None:
    """A new hookpoint, policy or release belongs on it."""
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_every_result_that_the_page_speaks_of_is_recorded(installed: HookRegistry, crm: Crm) -> None:
    """A command that comes again calls no hook."""
    plant = Plant(hooks=all_of(installed))
    plant.knows(an_account(), a_service(), a_plan())
    plant.tick(NOON)
    asked = plant.request(a_request())
    plant.execute(asked)
    plant.execute(asked)

    results = plant.read(plant.execution.sent, "plan-change.outcomes", ExecutionResult)
    assert (len(results), results[0], crm.asked) == (2, results[1], ["/accounts/A1"])
