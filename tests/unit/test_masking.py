"""Secrets are seen in no log, however they come; what is no secret stays as it is; no text makes this slow."""

from __future__ import annotations

import string
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.masking import MASK, Masker, secrets_of
from config.settings import load_settings

CANARY = st.text(string.ascii_letters + string.digits + "-_.~+/", min_size=8, max_size=40).map(lambda text: f"C{text}Y")
NAMES = st.sampled_from(
    ["password", "PASSWORD", "db_passwd", "token", "X-Auth-Token", "client_secret", "api_key", "apiKey",
     "Authorization", "aws_secret_access_key", "credentials", "Set-Cookie", "passphrase"]
)  # fmt: skip
#: How a name and a value stand in a text.
SHAPES = st.sampled_from(
    ["{n}={v}", "{n}: {v}", "{n} = {v}", "{n}:{v},", "'{n}': '{v}'", '"{n}": "{v}"', "?a=1&{n}={v}&b=2",
     "{n}: Bearer {v}", "{n}='{v}'", '{{"{n}":"{v}"}}', "[{n}] => {v}", '"{{\\"{n}\\": \\"{v}\\"}}"']
)  # fmt: skip
AROUND = st.text(max_size=30)


@given(AROUND, NAMES, SHAPES, CANARY, AROUND)
def test_a_value_whose_name_says_that_it_is_secret_is_hidden(
    before: str, name: str, shape: str, secret: str, after: str
) -> None:
    text = f"{before} {shape.format(n=name, v=secret)} {after}"
    assert secret not in Masker().text(text)


@given(AROUND, st.text(string.ascii_letters, max_size=10), CANARY, AROUND)
def test_a_password_in_a_url_is_hidden(before: str, user: str, secret: str, after: str) -> None:
    secret = secret.replace("/", "%2F")
    shown = Masker().text(f"{before} amqp://{user}:{secret}@host:5672/v {after}")
    assert secret not in shown
    assert f"amqp://{user}:{MASK}@host:5672/v" in shown


@given(st.text(), CANARY, st.text())
def test_what_the_settings_hold_is_hidden_wherever_it_stands(before: str, secret: str, after: str) -> None:
    assert secret not in Masker([secret]).text(f"{before}{secret}{after}")


def _nested(secret: str) -> st.SearchStrategy[Any]:
    leaf = st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.just({"password": secret}),
                     st.just(f"token={secret}"), st.just({f"api_key={secret}": 1}))  # fmt: skip
    return st.recursive(
        leaf, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=20
    )


@given(st.data(), CANARY)
def test_structured_values_hide_theirs_at_any_depth(data: st.DataObject, secret: str) -> None:
    assert secret not in repr(Masker().field("order", data.draw(_nested(secret))))


@given(st.text())
def test_a_text_is_masked_once(text: str) -> None:
    masker = Masker(["canary-1", "other-canary"])
    assert masker.text(masker.text(text)) == masker.text(text)


@pytest.mark.parametrize(
    "text",
    [
        "sold 3 of 17 to order 5e55", "max_tokens=100, tokens: 7", "https://host:8080/path?page=2#x@y", "12:30:05 a=b",
        '{"url": "http://host:80", "mail": "me@example.org"}', "the password was wrong", "",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert Masker(["canary-1"]).text(text) == text


def test_a_field_with_a_secret_name_shows_nothing() -> None:
    masker = Masker()
    assert masker.field("db_password", {"a": 1}) == MASK
    assert masker.field("sku", {"Authorization": "x", "n": None, "deep": [{"token": 5}]}) == {
        "Authorization": MASK, "n": None, "deep": [{"token": MASK}],
    }  # fmt: skip


def test_values_that_are_no_json_are_shown_as_texts() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    value = Masker().value([2**70, float("inf"), Broken(), {1, 2}, b"password=hidden-one", "\ud800"])
    assert value == [str(2**70), "inf", "(Broken that can't be shown)", [1, 2], f"b'password={MASK}'", "?"]


def test_the_settings_tell_their_secrets() -> None:
    settings = load_settings(
        redis_url="redis://:redis-canary@host/0", database_url="postgresql://me:pg%2Bcanary@host/db",
        broker_url="amqp://me:amqp-canary@host/v",
    )  # fmt: skip
    assert secrets_of(settings) == {"redis-canary", "pg%2Bcanary", "pg+canary", "amqp-canary"}


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000, "token" * 20_000, "token " * 20_000, "token=" * 16_000, "password: '" * 9_000, "://a:" * 20_000,
        'secret:"' + '\\"' * 50_000, "token" + " " * 100_000, "authorization: bearer " * 4_500,
    ],
)  # fmt: skip
def test_no_text_makes_masking_slow(text: str) -> None:
    began = time.process_time()
    Masker(["canary-1"]).text(text)
    assert time.process_time() - began < 2
