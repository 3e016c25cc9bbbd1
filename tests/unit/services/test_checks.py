"""What the doctor says without any server."""

from __future__ import annotations

from pathlib import Path

from config.settings import load_settings
from parallelizer.services.checks import Grade, check_actions, check_packages


def test_our_packages_are_found_to_be_ours(tmp_path: Path) -> None:
    assert [finding.grade for finding in check_packages(tmp_path)] == [Grade.OK]


def test_a_module_that_hides_one_of_our_packages_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").touch()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").touch()
    found = {finding.message: finding for finding in check_packages(tmp_path)}
    assert len(found) == 2
    assert all(finding.grade is Grade.WRONG and finding.remedy for finding in found.values())
    assert any(str(tmp_path / "tasks.py") in message for message in found)


def test_an_action_module_that_cannot_be_imported_is_named() -> None:
    (finding,) = check_actions(load_settings(action_modules="no_such_module"))
    assert finding.grade is Grade.WRONG
    assert "no_such_module" in finding.message
