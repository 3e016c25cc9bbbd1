"""The settings that say what built-in actions may do."""

from __future__ import annotations

import pytest

from config.settings import WrongSetting, load_settings


def test_by_default_nothing_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_ALLOWED_NETWORKS", "PYTHON_CALL_ALLOWED"):
        monkeypatch.delenv(name, raising=False)
    assert load_settings().action_options == {"http_allowed_networks": (), "python_call_allowed": ()}


def test_they_are_lists_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_ALLOWED_NETWORKS", "10.1.0.0/16, fd12::/64,")
    monkeypatch.setenv("PYTHON_CALL_ALLOWED", "myshop.*,math:sqrt,a.b:C.d")
    assert load_settings().action_options == {
        "http_allowed_networks": ("10.1.0.0/16", "fd12::/64"),
        "python_call_allowed": ("myshop.*", "math:sqrt", "a.b:C.d"),
    }


@pytest.mark.parametrize("networks", ["10.1.2.3/16", "localhost", "10.0.0.0/33", "*"])
def test_a_wrong_network_is_named(networks: str) -> None:
    with pytest.raises(WrongSetting, match=r"HTTP_ALLOWED_NETWORKS: .*10\.1\.0\.0/16"):
        load_settings(http_allowed_networks=networks)


@pytest.mark.parametrize(
    "pattern",
    ["*", "myshop", ".*", "my*.*", "*.orders", "myshop.*:f", "myshop:*", "_a.*", "a._b.*", "a:_b", "a:b._c", "a..b:c",
     "a:"],
)  # fmt: skip
def test_a_wrong_pattern_is_named(pattern: str) -> None:
    with pytest.raises(WrongSetting, match=r"PYTHON_CALL_ALLOWED: .* is neither"):
        load_settings(python_call_allowed=pattern)
