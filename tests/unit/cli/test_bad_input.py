"""Wrong use of the command: the right exit code, a sentence that helps, no traceback, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import get_settings
from parallelizer.cli.main import run
from tests.support.recordings import LOAVES

GOOD = """\
name: tidy
payload_schema: {type: object, required: [order_id], properties: {order_id: {type: integer}}}
actions:
  greet: {uses: core.echo, with: {value: "${{ payload.order_id }}"}}
"""
NOWHERE = "127.0.0.1:1"
OURS = ("REDIS_URL", "DATABASE_URL", "BROKER_URL", "DATA_DIR", "ACTION_MODULES", "PARALLELIZER_DEBUG")


def parallelizer(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, with no services set but those given."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    command = [sys.executable, "-m", "parallelizer", *arguments]
    return subprocess.run(
        command, cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )


def run_here(folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of the command, run in this process: a fresh one takes a second."""
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["parallelizer", *arguments])
    get_settings.cache_clear()
    with pytest.raises(SystemExit) as ended:
        run()
    get_settings.cache_clear()
    return ended.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good definition and several that are none."""
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "latin.yaml").write_bytes("name: café\n".encode("latin-1"))
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "loaves.json").write_bytes(LOAVES["1.5"].read_bytes())
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "wrong.yaml").write_text(GOOD.replace("core.echo", "core.eco").replace("greet:", "greet: &x"))
    with (tmp_path / "big.yaml").open("wb") as file:
        file.truncate(50_000_000)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "Missing argument"),
        (["run", "good.yaml", "--folow"], "No such option: --folow"),
        (["rum", "good.yaml"], "No such command 'rum'. Did you mean 'run'"),
        (["run", "good.yaml", "--payload", "{order_id: 7}"], "not JSON"),
        (["run", "good.yaml", "--payload", "[7]"], "must be a JSON object"),
        (["run", "good.yaml", "--payload", "@nowhere.json"], "can't read the payload file nowhere.json"),
        (["run", "good.yaml", "--payload", "{}"], "order_id"),
        (["run", "good.yaml", "--payload", '{"order_id": "x"}'], "payload.order_id"),
        (["run", "nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["run", "folder.yaml"], "folder.yaml: a folder"),
        (["run", "."], "a folder, not a file"),
        (["run", "latin.yaml"], "latin.yaml"),
        (["run", "big.yaml"], "big.yaml"),
        (["run", "readme.txt"], "ends in .yaml, .yml, .json"),
        (["run", "list.json"], "list.json"),
        (["run", "no such name"], "neither a file nor a name"),
        (["run", "name@0"], "the version after @"),
        (["run", "good.yaml", "--slots", "3"], "--slots is for a recorded execution; it goes with --wfformat"),
        (["run", "good.yaml", "--time-scale", "1"], "--time-scale is for a recorded execution"),
        (["run", "good.yaml", "--target-seconds", "1"], "--target-seconds is for a recorded execution"),
        (["run", "--wfformat", "loaves.json", "--payload", "{}"], "a recording has no use for --payload"),
        (["run", "--wfformat", "loaves.json", "--no-follow"], "a recording has no use for --no-follow"),
        (["run", "--wfformat", "loaves.json", "--slots", "0"], "--slots"),
        (["run", "--wfformat", "loaves.json", "--time-scale", "0"], "--time-scale is 0; it must be more than 0"),
        (["run", "--wfformat", "loaves.json", "--time-scale", "nan"], "--time-scale is nan"),
        (["run", "--wfformat", "loaves.json", "--target-seconds", "-1"], "--target-seconds is -1"),
        (["run", "--wfformat", "loaves.json", "--time-scale", "1", "--target-seconds", "9"], "leave one out"),
        (["run", "--wfformat", "loaves.json", "--time-scale", "1e6"], "choose a smaller one"),
        (["run", "--wfformat", "good.yaml"], "a definition is run without --wfformat"),
        (["run", "--wfformat", "nowhere.json"], "nowhere.json: there is no such file"),
        (["run", "loaves.json"], "unknown key 'schemaVersion'"),
        (["validate", "--wfformat", "loaves.json", "--as", "yaml"], "--as is for definitions"),
        (["validate", "--wfformat", "list.json"], "list.json:1:1: not WfFormat"),
        (["validate", "wrong.yaml"], "wrong.yaml:4:10"),
        (["validate", "good.yaml", "--as", "toml"], "toml"),
        (["graph", "good.yaml", "--format", "png"], "png"),
        (["graph", "good.yaml", "-o", "no/such/folder/out.svg"], "no/such/folder"),
        (["list", "--limit", "0"], "--limit"),
        (["list", "--status", "done"], "done"),
    ],
    ids=" ".join,
)
def test_wrong_use_exits_2_and_says_why(
    folder: Path,
    arguments: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(folder.iterdir())
    code = run_here(folder, arguments, monkeypatch)
    result, said = capsys.readouterr()
    assert (code, complaint in said, result) == (2, True, ""), said
    assert "Traceback" not in said
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", [["run", "good.yaml", "--payload", '{"order_id": 7}'], ["list"]])
def test_a_service_out_of_reach_exits_3_and_shows_no_password(folder: Path, command: list[str]) -> None:
    urls = {"REDIS_URL": f"redis://:s3cret@{NOWHERE}/0", "DATABASE_URL": f"postgresql://me:s3cret@{NOWHERE}/x"}
    done = parallelizer(folder, *command, **urls)
    assert done.returncode == 3, done.stderr
    assert f"Redis at {NOWHERE}" in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["list"], ["status", "x"]])
def test_where_there_is_nothing_yet_it_says_how_to_begin(folder: Path, command: list[str]) -> None:
    done = parallelizer(folder, *command)
    assert done.returncode == 3
    assert "parallelizer up" in done.stderr
    assert not (folder / ".parallelizer").exists()


def test_a_wrong_setting_is_named(folder: Path) -> None:
    done = parallelizer(folder, "run", "good.yaml", MAX_CONCURRENT_BRANCHES="many")
    assert done.returncode == 2
    assert "MAX_CONCURRENT_BRANCHES" in done.stderr


def test_an_action_module_that_is_not_there_is_named(folder: Path) -> None:
    done = parallelizer(folder, "validate", "good.yaml", ACTION_MODULES="no_such_module")
    assert done.returncode == 2
    assert "no_such_module" in done.stderr


def test_a_package_of_somebody_else_is_reported_with_its_file(folder: Path) -> None:
    (folder / "config").mkdir()
    (folder / "config" / "__init__.py").write_text("")
    done = parallelizer(folder, "list")
    assert done.returncode == 2
    assert str(folder / "config" / "__init__.py") in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_printed(folder: Path) -> None:
    done = parallelizer(folder, "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("parallelizer ")
