"""Every setting once: name, unit, default, reason.

Sources, first wins: environment, `.env`, `parallelizer.toml` (table `[processor]`; path in `PARALLELIZER_CONFIG`).
A wrong value stops the start with `WrongSetting`, which names the setting.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from config.broker import check_broker_url

CONFIG_FILE_VARIABLE = "PARALLELIZER_CONFIG"
DEFAULT_CONFIG_FILE = "parallelizer.toml"
TOML_TABLE = "processor"
_NAME = r"(?!_)\w+(?:\.(?!_)\w+)*"
_CALL_PATTERN = re.compile(rf"{_NAME}(?:\.\*|:{_NAME})")


class WrongSetting(ValueError):
    """A setting has a wrong value; each line of the message names one setting and what is allowed."""


class Settings(BaseSettings):
    """The processor's settings; field names in capitals are the environment variables."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, hide_input_in_errors=True,
        env_ignore_empty=True, populate_by_name=True,
    )  # fmt: skip

    # Services
    redis_url: str | None = Field(None, description="Live state and, unless BROKER_URL is set, the broker.")
    database_url: str | None = Field(None, description="PostgreSQL, the record of truth.")
    broker_url: str | None = Field(None, description="Celery's broker, a Redis or a RabbitMQ; by default REDIS_URL.")
    data_dir: Path = Field(Path(".parallelizer"), description="Where embedded servers and spool files live.")
    namespace: str = Field(
        "default", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Prefix of all Redis keys: pz:{namespace}:…"
    )

    # Actions
    action_modules: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules with @action functions, separated by commas."
    )
    http_allowed_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks beside the public internet that http.request may call, as in 10.1.0.0/16,fd12::/64.",
    )
    python_call_allowed: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Functions that python.call may call: `package.*` or `module:function`, separated by commas."
    )

    # Limits
    max_concurrent_branches: int = Field(10, ge=1, le=10_000, description="Branches of one flow session at once.")
    max_concurrent_branches_global: int = Field(
        0, ge=0, le=1_000_000, description="Branches of the whole fleet at once; 0: no limit but the slots."
    )
    max_concurrent_workflows: int = Field(
        0, ge=0, le=1_000_000, description="Flow sessions running at once; more are queued; 0: no limit."
    )
    branch_processing_timeout_secs: float = Field(
        300.0, gt=0, le=604_800, description="Seconds a branch may run, unless the definition says otherwise.",
        validation_alias=AliasChoices("branch_processing_timeout_secs", "branch_timeout_seconds"),
    )  # fmt: skip
    branch_grace_seconds: float = Field(
        5.0, gt=0, le=3600, description="Seconds between the soft and the hard time limit of a runner."
    )
    max_payload_bytes: int = Field(1_048_576, ge=2, le=67_108_864, description="Largest payload, as JSON.")
    max_result_bytes: int = Field(
        262_144, ge=64, le=16_777_216, description="Largest result kept in Redis; larger ones are kept in PostgreSQL."
    )
    max_stored_result_bytes: int = Field(
        67_108_864, ge=1024, le=536_870_912, description="Largest result at all; an action that returns more fails."
    )
    max_item_results_bytes: int = Field(
        8_388_608, ge=0, le=1_073_741_824,
        description="Results of one for_each kept in Redis; what is beyond is read from PostgreSQL.",
    )  # fmt: skip
    max_for_each_items: int = Field(1_000_000, ge=1, le=100_000_000, description="Largest for_each.")
    max_actions: int = Field(20_000, ge=1, le=1_000_000, description="Most actions in one definition.")
    max_branch_crashes: int = Field(3, ge=1, le=100, description="Crashes after which a branch fails as poison.")

    # Runners
    dispatch: str = Field(
        "counted", pattern="^(counted|chord)$",
        description="Dispatcher of definitions that name none: counted in Redis, or a Celery chord.",
    )  # fmt: skip
    runner_slice_seconds: float = Field(1.0, ge=0, le=3600, description="A runner's turn when others wait.")
    runner_async_branches: int = Field(
        50, ge=1, le=10_000, description="Async branches of one session that wait side by side in one runner."
    )
    inline_fork_ms: int = Field(
        5, ge=0, le=1000, description="A fork expected to be this short, ms, is not shared; 0: every fork is."
    )
    lease_seconds: float = Field(15.0, ge=1, le=3600, description="Without renewal, a claim is lost after this.")

    # Status channel
    max_send_retries: int = Field(5, ge=0, le=100, description="Attempts to send a status update before the fallback.")
    base_retry_delay_ms: int = Field(100, ge=1, le=60_000, description="First wait between them; doubles each time.")
    spool_dir: Path | None = Field(
        None, description="Where updates wait that neither Redis nor PostgreSQL takes; by default `spool` in DATA_DIR."
    )
    spool_max_bytes: int = Field(
        268_435_456, ge=1_048_576, le=1_099_511_627_776, description="Updates that may wait there."
    )
    status_batch_rows: int = Field(5000, ge=1, le=100_000, description="Most rows in one write to PostgreSQL.")

    status_stream_max_bytes: int = Field(
        67_108_864, ge=1_048_576, le=68_719_476_736,
        description="Status updates that may wait in Redis; beyond it runners claim nothing until they are written.",
    )  # fmt: skip

    # PostgreSQL
    database_pool_size: int = Field(4, ge=1, le=100, description="Connections for each process.")
    statement_timeout_seconds: float = Field(60.0, gt=0, le=86_400, description="PostgreSQL's statement_timeout.")
    retention_days: int = Field(30, ge=1, le=36_500, description="Finished runs are kept this long; whole days.")

    # Metrics
    metrics_enabled: bool = Field(
        True,
        description="Whether what ends is counted in PostgreSQL, and shown; without, what ends is never counted. "
        "The same for the whole fleet.",
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65_535,
        description="Where a worker shows its metrics: the first free port from here on; 0: any; none: nowhere.",
    )  # fmt: skip
    metrics_address: str = Field("127.0.0.1", description="The address of this host at which it does.")
    metrics_max_names: int = Field(
        200, ge=1, le=1000,
        description="Workflows, their actions, queues and types of errors that metrics tell apart, of each so many; "
        "all others are `other`.",
    )  # fmt: skip

    # Pages in Flower
    dashboard_operators: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Who may cancel, pause and act in Flower, by user name or e-mail address, separated by commas; "
        "empty: whoever is signed in. Others may look.",
    )

    # For tests
    crash_at: str = Field(
        "", description="Kills the process at a probe, as `<probe>:<n>` (see docs/reliability.md). Never in production."
    )

    # Logs
    log_level: str = Field("info", description="debug, info, warning or error; `name=level` pairs for components.")
    task_log_lines: int = Field(
        500, ge=0, le=1_000_000, description="Log lines kept with one attempt of a task; 0: none are kept at all."
    )
    task_log_bytes: int = Field(
        65_536, ge=1024, le=16_777_216, description="Bytes of log lines kept with one attempt of a task."
    )
    log_format: str = Field("auto", pattern="^(auto|json|console)$", description="auto: console on a terminal.")

    @property
    def spool_folder(self) -> Path:
        """Where the spool is."""
        return self.spool_dir or self.data_dir / "spool"

    @property
    def action_options(self) -> Mapping[str, object]:
        """What built-in actions find in `ctx.options`; nothing else of the settings reaches an action."""
        return {
            "http_allowed_networks": self.http_allowed_networks,
            "python_call_allowed": self.python_call_allowed,
        }

    @field_validator(
        "action_modules", "http_allowed_networks", "python_call_allowed", "dashboard_operators", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("http_allowed_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}; expected networks such as 10.1.0.0/16, separated by commas") from None
        return value

    @field_validator("python_call_allowed")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not _CALL_PATTERN.fullmatch(pattern):
                raise ValueError(
                    f"{pattern!r} is neither package.* nor module:function, without a leading _ in any part"
                )
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        return _check_url(value, ("redis", "rediss", "unix"), "redis://[:password@]host:port/database")

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str | None) -> str | None:
        return _check_url(value, ("postgresql", "postgres"), "postgresql://user:password@host:port/database")

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, value: str | None) -> str | None:
        if value is not None:
            check_broker_url(value)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class passes it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, _TomlTable(settings_cls)


class _TomlTable(PydanticBaseSettingsSource):
    """The `[processor]` table of the TOML file; an unknown name in it is a mistake, not a comment."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the base class asks for it
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        named = os.environ.get(CONFIG_FILE_VARIABLE)
        path = Path(named or DEFAULT_CONFIG_FILE)
        if not path.is_file():
            if named:
                raise WrongSetting(f"{CONFIG_FILE_VARIABLE}={named}: there is no such file")
            return {}
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get(TOML_TABLE, {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise WrongSetting(f"{path}: not TOML: {error}") from error
        if not isinstance(table, dict):
            raise WrongSetting(f"{path}: {TOML_TABLE} must be a table, as in [{TOML_TABLE}]")
        known = set(Settings.model_fields) | {"branch_timeout_seconds"}
        unknown = sorted(set(table) - known)
        if unknown:
            raise WrongSetting(f"{path}: [{TOML_TABLE}] has unknown settings: {', '.join(unknown)}")
        return table


def _check_url(value: str | None, schemes: tuple[str, ...], example: str) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL ({error}); expected {example}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"its scheme must be one of {', '.join(schemes)}; expected {example}")
    return value


def load_settings(**overrides: Any) -> Settings:
    """Read the settings afresh.

    Args: overrides: settings by field name; they win over every other source.
    Raises: WrongSetting: one line per wrong setting.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in e['loc']).upper()}: {_reason(e)}" for e in error.errors()]
        raise WrongSetting("\n".join(lines)) from None


def _reason(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises: WrongSetting: see `load_settings`.
    """
    return load_settings()
