"""``asyncworker functions``: what a dataset can be put through."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import click
import msgspec

from asyncworker.cli.command import Call, command
from asyncworker.cli.table import show_table
from asyncworker.cli.target import engine_for
from asyncworker.errors import BadParameters
from asyncworker.mapreduce.catalogue import Catalogue
from asyncworker.mapreduce.functions.function import Function

SHOWN = 7
"""An object of as many properties or more is called one, without their names."""


def body(call: Call, words: tuple[str, ...]) -> None:
    """List the processing functions, or show one: its parameters, and an example.

    The document of "show NAME --json" has the JSON Schema of its parameters. With --app your own are listed, too: "mapper+" and "+reducer", of which any pair is a function as well.
    """
    catalogue = engine_for(call, broker="memory://").functions
    match words:
        case () | ("ls",):
            listing(call, catalogue)
        case ("show", name) | (name,):
            explain(call, catalogue.find(name))
        case _:
            raise BadParameters(f"one function at a time, not {' '.join(words)!r}")


def listing(call: Call, catalogue: Catalogue) -> None:
    known = [catalogue.find(each) for each in catalogue.names()]
    if call.settings.json:
        call.document([{"name": function.name, "summary": function.summary} for function in known])
    else:
        show_table(call, ("function", "what it does"), [(function.name, function.summary) for function in known])


def explain(call: Call, function: Function) -> None:
    if call.settings.json:
        call.document({"name": function.name, "summary": function.summary, "schema": function.schema})
        return
    call.show(f"{function.name}: {function.summary}\n")
    if rows := list(parameters(function.schema)):
        show_table(call, ("parameter", "type", "what it is"), rows)
    for example in function.schema.get("examples", ()):
        params = shlex.quote(msgspec.json.encode(example).decode())
        call.show(f"\nExample:\n  asyncworker run data.csv --function {function.name} --params {params}")


def parameters(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each parameter that a schema describes: its path, its type, and what it is."""
    for name, of in schema.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        if "properties" in of:
            yield from parameters(of, where)
            continue
        told = of.get("description", "")
        told += f" (default {msgspec.json.encode(of['default']).decode()})" if "default" in of else ""
        yield where, kind(of), told
        yield from parameters(of.get("items", {}), f"{where}[]")


def kind(schema: Mapping[str, Any]) -> str:
    """Return the type that a schema asks for, in few words."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(map(kind, schema["anyOf"]))
    if "items" in schema:
        return f"list of ({inner})" if " " in (inner := kind(schema["items"])) else f"list of {inner}"
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        return f"object of ({inner})" if " " in (inner := kind(values)) else f"object of {inner}"
    if len(schema.get("properties", ())) in range(1, SHOWN):
        return "{" + ", ".join(schema["properties"]) + "}"
    return str(schema.get("type", "any"))


COMMAND = command(
    "functions",
    body,
    click.Argument(["words"], nargs=-1, metavar="[[show] NAME]"),
    flags=("app", "json"),
    examples="""
  asyncworker functions
  asyncworker functions show data_validation
  asyncworker functions --app shop:engine --json""",
)
