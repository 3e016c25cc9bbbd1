"""The Lua files and what is read from their headers."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from orchestration.state.keys import KEYS, KeySpace, lua_key_functions
from orchestration.state.scripts import load_script

NAMES = sorted(
    Path(entry.name).stem for entry in files("orchestration.state.lua").iterdir() if entry.name.endswith(".lua")
)
CONTRACT = ("-- ARGV:", "-- INCLUDE:", "-- Reply:", "-- Refusals:", "-- Stream:")


@pytest.mark.parametrize("name", NAMES)
def test_every_script_has_a_contract_and_loads(name: str) -> None:
    text = files("orchestration.state.lua").joinpath(f"{name}.lua").read_text()
    missing = [line for line in CONTRACT if line not in text]
    assert not missing
    assert load_script(name).source.startswith("local prefix = KEYS[1]")


@pytest.mark.parametrize("name", NAMES)
def test_no_script_makes_globals_or_reads_json(name: str) -> None:
    source = load_script(name).source
    code = re.sub(r"--.*", "", source)
    assert "cjson" not in code
    assert not re.findall(r"^(?:function )", code, re.MULTILINE), "functions are local"


def test_a_call_with_other_names_than_the_header_is_refused() -> None:
    with pytest.raises(TypeError, match=r"stop_worker\.lua takes worker; got name"):
        load_script("stop_worker")(None, KeySpace("x"), name="w")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stop_worker"):
        load_script("stop_worker")(None, KeySpace("x"), ["more"], worker="w")  # type: ignore[arg-type]


def test_python_and_lua_spell_every_key_alike() -> None:
    source = " ".join(f"{name}_key(" for name in KEYS)
    functions = lua_key_functions(source)
    for name, key in KEYS.items():
        expression = re.search(rf"function {name}_key\((.*)\) return prefix \.\. (.*) end", functions)
        assert expression, name
        parameters = [part for part in expression[1].split(", ") if part]
        values = {parameter: f"<{index}>" for index, parameter in enumerate(parameters)}
        spelled = "".join(values.get(part, part.strip("'")) for part in expression[2].split(" .. "))
        assert KeySpace("n").key(name, *values.values()) == "pz:{n}:" + spelled
        assert len(parameters) == key.parameters


def test_only_keys_that_a_script_uses_become_functions() -> None:
    assert lua_key_functions("own_key(id)").count("local function") == 1
