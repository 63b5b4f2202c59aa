"""What a message tells the reader to type exists: options, settings, arguments, commands."""

import ast
import inspect
import re
import tomllib
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

import sftlab
from sftlab.cli.app import WORDS
from sftlab.train import Settings

PACKAGE = Path(sftlab.__file__).parent
ROOMS = "data chat measure planner train sweeps course show".split()
OPTIONS = {
    command: {f"--{name.strip('_').replace('_', '-')}" for name in words.get("options", {})}
    for command, words in WORDS.items()
}
LIBRARIES = {"add_special_tokens", "orient", "lines", "row_group_size"}  # of libraries


def toml_remedies(path):
    found = tomllib.loads((PACKAGE / path).read_text(encoding="utf-8")).values()
    return [one.get("remedy", "") if isinstance(one, dict) else one[1] for one in found]


def messages():
    """The texts of errors and warnings in the package's code."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            warns = isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
            if isinstance(node, ast.Raise) or warns:
                texts = [one for one in ast.walk(node) if isinstance(one, ast.Constant)]
                yield " ".join(one.value for one in texts if isinstance(one.value, str))


def texts():
    return [*messages(), *toml_remedies("data/problems.toml"), *toml_remedies("chat/findings.toml")]


def parameters():
    """Names of the parameters of all public functions, and of all fields of public classes."""
    names = {one.name for one in fields(Settings)}
    for module in (sftlab, *(import_module(f"sftlab.{room}") for room in ROOMS)):
        for public in (getattr(module, name) for name in module.__all__):
            own = vars(public).values() if inspect.isclass(public) else [public]
            names |= {
                n
                for one in own
                if inspect.isfunction(one)
                for n in inspect.signature(one).parameters
            }
    return names


@pytest.mark.parametrize(
    ("file", "commands"),
    [("data/problems.toml", "validate doctor mask train"), ("chat/findings.toml", "doctor train")],
)
def test_an_option_in_a_remedy_exists_in_each_command_that_prints_it(file, commands):
    for remedy in toml_remedies(file):
        whole = re.findall(r"`sftlab ([a-z]+)([^`]*)`", remedy)
        rest = re.sub(r"`sftlab [^`]*`", "", remedy)
        for command, text in [*whole, *((command, rest) for command in commands.split())]:
            named = re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
            assert {*named} <= OPTIONS[command], remedy


def test_every_option_that_a_message_names_is_one_of_a_command():
    known = set().union(*OPTIONS.values())
    named = {
        one: text for text in messages() for one in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
    }
    assert len(named) > 8
    assert {one: text for one, text in named.items() if one not in known} == {}


def test_every_command_that_a_message_names_exists():
    named = {one for text in texts() for one in re.findall(r"`sftlab ([a-z]+)", text)}
    assert {"run", "train"} <= named
    assert named <= {*WORDS}


def test_every_setting_that_a_message_names_exists():
    form = r"""(?<![\w.'"-])([a-z][a-z_]+)=(?=["'\w\[{])"""
    named = {one: text for text in texts() for one in re.findall(form, text)}
    known = parameters() | LIBRARIES
    assert {one: text for one, text in named.items() if one not in known} == {}
