"""The built-in `python.call`, and the ways around its allow-list."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.engine.invoke import CallContext
from orchestration.registry import find_action, load_actions
from parallelizer.actions.python import FunctionMissing, FunctionRefused, call, find_function

#: What an operator's package may look like: its own functions, and all that such modules import.
SHOP = """
import asyncio
import functools
import os
import os.path as paths
import random
import subprocess
from builtins import eval as compute, exec as perform
from functools import partial
from os import system
from subprocess import run
from subprocess import Popen as Process

import shop.tools

def total(prices, vat=0):
    "A sum."
    return sum(prices) * (1 + vat)

async def later(value):
    await asyncio.sleep(0)
    return value

def _hidden():
    raise AssertionError("called")

def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

@logged
def doubled(value):
    return 2 * value

@functools.lru_cache
def cached(value):
    return value

shell = partial(subprocess.run, shell=True)
wrapped_system = functools.wraps(os.system)(lambda command: os.system(command))
join = ",".join
text = "text"

class Order:
    @staticmethod
    def parse(text):
        return text.split()

    @classmethod
    def name_of(cls):
        return cls.__name__

    def method(self):
        raise AssertionError("called")

    @property
    def price(self):
        raise AssertionError("called")

    class Line:
        @staticmethod
        def one():
            return 1

    run = staticmethod(subprocess.run)
    module = os

class Meta(type):
    def __getattr__(cls, name):
        return os.system

class Lazy(metaclass=Meta):
    pass

class Table(dict):
    pass

order = Order()

def __getattr__(name):
    if name == "dynamic":
        return os.system
    raise AttributeError(name)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("packages")
    for name, text in {
        "shop/__init__.py": "",
        "shop/tools.py": "def tool():\n    return 'tool'\n",
        "shop/orders.py": SHOP,
        "shop/broken.py": "raise RuntimeError('no licence')\n",
        "shop/_private.py": "def secret():\n    return 1\n",
        "shopping.py": "raise AssertionError('imported')\n",
        "trap.py": "raise AssertionError('imported')\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def run(function: Any, allowed: tuple[str, ...] = ("shop.*",), **inputs: Any) -> Any:
    logger = logging.LoggerAdapter(logging.getLogger("test"), {})
    options = {"python_call_allowed": allowed}
    return call(CallContext("session", "workflow", "a", None, 1, "session/a", logger, options), function, **inputs)


def test_it_is_found_through_its_entry_point() -> None:
    load_actions(())
    assert find_action("python.call").takes_context


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("function", "inputs", "expected"),
    [
        ("shop.orders:total", {"args": [[1, 2]], "kwargs": {"vat": 1}}, 6),
        ("shop.orders:later", {"args": ["soon"]}, "soon"),
        ("shop.orders:doubled", {"args": [4]}, 8),
        ("shop.orders:cached", {"args": [4]}, 4),
        ("shop.orders:Order.parse", {"args": ["a b"]}, ["a", "b"]),
        ("shop.orders:Order.name_of", {}, "Order"),
        ("shop.orders:Order.Line.one", {}, 1),
        ("shop.tools:tool", {}, "tool"),
    ],
)
def test_functions_of_an_allowed_package_are_called(function: str, inputs: dict[str, Any], expected: object) -> None:
    assert run(function, **inputs) == expected
    assert run(function, (function,), **inputs) == expected


@pytest.mark.parametrize(
    ("function", "inputs", "expected"),
    [
        ("math:sqrt", {"args": [9]}, 3.0),
        ("os.path:basename", {"args": ["/a/b"]}, "b"),
        ("operator:add", {"args": [1, 2]}, 3),
        ("datetime:datetime.fromtimestamp", {"args": [0]}, None),
        ("random:choice", {"args": [["x"]]}, "x"),
    ],
)
def test_a_function_that_is_written_out_is_called_wherever_it_comes_from(
    function: str, inputs: dict[str, Any], expected: object
) -> None:
    result = run(function, ("json.*", function), **inputs)
    assert expected is None or result == expected


def test_without_the_setting_nothing_is_called_and_the_error_names_it() -> None:
    with pytest.raises(FunctionRefused, match=r"'math:sqrt'.*PYTHON_CALL_ALLOWED: it is empty"):
        run("math:sqrt", (), args=[1])


@pytest.mark.parametrize(
    "function",
    ["trap:run", "shopping:run", "shop_:run", "os:system", "subprocess:run", "builtins:eval", "shop.orders.x:run",
     "math:sqrt", "sho:p", "Shop.orders:total", "importlib:import_module"],
)  # fmt: skip
def test_what_no_pattern_matches_is_not_even_imported(function: str, shop: Path) -> None:
    allowed = ("shop.orders:total", "shop.tools.*", "shop.nothing:here")
    before = set(sys.modules)
    with pytest.raises(FunctionRefused, match=r"not allowed.*shop\.nothing:here, shop\.orders:total, shop\.tools\.\*"):
        run(function, allowed)
    assert set(sys.modules) == before


@pytest.mark.parametrize("allowed", ["shop.orders:tota", "shop.orders:total.x", "shop:orders.total", "shop.order.*"])
def test_patterns_end_where_a_name_ends(allowed: str, shop: Path) -> None:
    with pytest.raises(FunctionRefused):
        run("shop.orders:total", (allowed,), args=[[]])


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "function",
    [
        # modules and functions that an allowed module imports
        "shop.orders:os.system", "shop.orders:subprocess.run", "shop.orders:system", "shop.orders:run",
        "shop.orders:compute", "shop.orders:perform", "shop.orders:paths.join", "shop.orders:os",
        "shop.orders:random.choice",
        "shop:tools.tool", "shop.orders:asyncio.subprocess.create_subprocess_shell", "shop.orders:shop.tools.tool",
        # objects that call them
        "shop.orders:shell", "shop.orders:wrapped_system", "shop.orders:partial", "shop.orders:Process",
        "shop.orders:join",
        "shop.orders:dynamic", "shop.orders:Process.communicate", "shop.orders:functools.partial",
        # through classes
        "shop.orders:Order", "shop.orders:Order.run", "shop.orders:Order.module.system", "shop.orders:Order.method",
        "shop.orders:Order.price", "shop.orders:Order.mro", "shop.orders:Lazy.system", "shop.orders:Table.fromkeys",
        "shop.orders:order.parse", "shop.orders:order", "shop.orders:text.join", "shop.orders:text",
        # through functions
        "shop.orders:total.x", "shop.orders:cached.cache_clear", "shop.orders:doubled.__wrapped__",
        "shop.orders:total.__globals__", "shop.orders:total.__code__.replace",
        # private names
        "shop.orders:_hidden", "shop.orders:__builtins__", "shop.orders:__loader__.get_data", "shop._private:secret",
        "shop.orders:Order.__subclasses__", "shop.orders:Order.__init__.__globals__", "shop.orders:__import__",
        "shop.orders:__getattr__", "__main__:run", "_thread:start_new_thread",
        # no names
        "", ":", "shop.orders", "shop.orders:", ":total", "shop.orders.total", "shop.orders:total()",
        "shop..orders:total",
        "shop.orders:total.", "shop.orders:.total", ".shop:total", "shop.orders:to tal", "shop.orders:total\n",
        "shop.orders::total", "shop/orders:total", "../shop:total", "shop.*", "shop.orders:*", "shop.orders:a;b",
        "1:2", None, 7,
    ],
)  # fmt: skip
def test_no_name_leads_out_of_an_allowed_package(function: Any) -> None:
    with pytest.raises((FunctionRefused, FunctionMissing)) as caught:
        run(function)
    assert isinstance(caught.value, FunctionRefused) or "Lazy" in function


@pytest.mark.usefixtures("shop")
def test_the_error_says_how_to_allow_one_foreign_function() -> None:
    with pytest.raises(FunctionRefused, match=r"defined in subprocess.*PYTHON_CALL_ALLOWED must have shop\.orders:run"):
        run("shop.orders:run")
    done = run("shop.orders:run", ("shop.orders:run",), args=[[sys.executable, "-c", ""]])
    assert isinstance(done, subprocess.CompletedProcess)


@pytest.mark.usefixtures("shop")
def test_a_module_is_never_walked_into_even_when_the_name_is_written_out() -> None:
    with pytest.raises(FunctionRefused, match="os is a module"):
        run("shop.orders:os.getpid", ("shop.orders:os.getpid",))


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("shop.nowhere:f", "'shop.nowhere' can't be imported.*No module named"),
        ("shop.broken:f", "'shop.broken' can't be imported.*no licence"),
        ("shop.orders:nothing", "the module shop.orders has no nothing"),
        ("shop.orders:Order.nothing", "the class Order has no nothing"),
    ],
)
def test_what_is_allowed_and_not_there_is_named(function: str, reason: str) -> None:
    with pytest.raises(FunctionMissing, match=reason):
        run(function)


@pytest.mark.usefixtures("shop")
def test_inputs_of_a_wrong_kind_are_named() -> None:
    with pytest.raises(TypeError, match="args must be a list; it is str"):
        run("shop.orders:total", args="12")
    with pytest.raises(TypeError, match="kwargs must be an object; it is list"):
        run("shop.orders:total", kwargs=[1])


@pytest.mark.usefixtures("shop")
def test_what_the_function_raises_is_raised() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        run("shop.orders:total", args=[7])


def test_only_functions_are_found() -> None:
    with pytest.raises(FunctionRefused, match="is a float, not a function"):
        find_function("math:pi", ("math:pi",))
