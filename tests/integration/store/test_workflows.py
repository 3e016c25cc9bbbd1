"""Versions: content-addressed, numbered by name, found by name or number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestration.errors import UnknownWorkflow, WorkflowExecutionError
from orchestration.store import workflows
from orchestration.store.pool import Database


def _register(database: Database, name: str, version_id: str, *, publish: bool = True) -> workflows.WorkflowVersion:
    return workflows.register_version(database, name, version_id, {"name": name, "actions": {}}, publish)


def test_the_same_content_is_the_same_version(database: Database) -> None:
    first = _register(database, "same", "same-1")
    assert _register(database, "same", "same-1") == first
    assert _register(database, "same", "same-1", publish=False) == first
    assert (first.number, first.published) == (1, True)


def test_numbers_count_per_name(database: Database) -> None:
    assert [_register(database, "a", f"a-{n}").number for n in range(3)] == [1, 2, 3]
    assert _register(database, "b", "b-0").number == 1


def test_a_name_runs_what_was_published_last(database: Database) -> None:
    _register(database, "last", "last-1")
    _register(database, "last", "last-2", publish=False)
    assert workflows.find_version(database, "last").number == 1
    _register(database, "last", "last-3")
    assert workflows.find_version(database, "last").number == 3
    _register(database, "last", "last-2")
    assert workflows.find_version(database, "last").number == 2
    assert workflows.find_version(database, "last", 3).version_id == "last-3"
    assert [version.number for version in workflows.list_versions(database, "last")] == [3, 2, 1]


def test_many_may_register_at_once(database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: _register(database, "race", f"race-{n % 5}", publish=n % 2 == 0), range(20)))
    assert {(version.version_id, version.number) for version in found} == {
        (version.version_id, version.number) for version in workflows.list_versions(database, "race")
    }
    assert sorted({version.number for version in found}) == [1, 2, 3, 4, 5]


def test_a_definition_comes_back_in_its_own_order(database: Database) -> None:
    definition = {"name": "order", "actions": {"z": {"uses": "x"}, "a": {"uses": "ä"}}}
    workflows.register_version(database, "order", "order-1", definition, publish=False)
    loaded = workflows.load_version(database, "order-1")
    assert (loaded.workflow, loaded.number, loaded.published) == ("order", 1, False)
    assert list(loaded.definition["actions"]) == ["z", "a"]


def test_an_unknown_name_offers_the_nearest(database: Database) -> None:
    _register(database, "order-fulfilment", "of-1")
    with pytest.raises(UnknownWorkflow, match="did you mean 'order-fulfilment'"):
        workflows.find_version(database, "order-fulfillment")


def test_an_unknown_number_offers_those_there_are(database: Database) -> None:
    _register(database, "numbers", "numbers-1")
    with pytest.raises(UnknownWorkflow, match="no version 7; there are: 1"):
        workflows.find_version(database, "numbers", 7)
    with pytest.raises(UnknownWorkflow, match="no version"):
        workflows.find_version(database, "numbers", 10**9)


def test_a_workflow_that_was_only_run_has_no_published_version(database: Database) -> None:
    _register(database, "ad-hoc", "ad-hoc-1", publish=False)
    with pytest.raises(UnknownWorkflow, match="ad-hoc@1"):
        workflows.find_version(database, "ad-hoc")
    assert "ad-hoc" not in [summary.current.workflow for summary in workflows.list_workflows(database)]


def test_a_version_of_another_name_is_refused(database: Database) -> None:
    _register(database, "mine", "taken")
    with pytest.raises(WorkflowExecutionError, match="belongs to workflow 'mine'"):
        _register(database, "yours", "taken")


def test_an_unknown_version_id_is_no_version(database: Database) -> None:
    with pytest.raises(UnknownWorkflow, match="nothing"):
        workflows.load_version(database, "nothing")


def test_workflows_are_listed_with_what_their_names_run(database: Database) -> None:
    _register(database, "listed", "listed-1")
    _register(database, "listed", "listed-2")
    (found,) = [one for one in workflows.list_workflows(database) if one.current.workflow == "listed"]
    assert (found.current.number, found.versions) == (2, 2)
