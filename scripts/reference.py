"""Writes the generated parts of docs/, so that a list there is never another than the code's.

A page holds prose and, between two comments, what is generated:

    <!-- generated: errors -->
    …
    <!-- end: errors -->

`PARTS` says which function makes which part. They read the program itself: settings from the
structs of config.py and the `#:` comments above their fields, verbs from the command line's
parser, metrics from what a scrape returns. Meanings that no code says are below, and a part
refuses to be made where one is missing: what isn't explained can't be committed, since a test
holds the pages to this script (tests/test_docs_reference.py).

    make docs     (or: .venv/bin/python scripts/reference.py)
"""

import argparse
import asyncio
import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from msgspec import inspect as types

from forebay import config, reply
from forebay.__main__ import command_line
from forebay.caches.exact import ExactCache
from forebay.dialects import chat_to_messages, failures, headers, messages_to_chat
from forebay.dialects.choice import translate
from forebay.dialects.endpoints import ENDPOINTS
from forebay.errors import CODES, Failure
from forebay.exchange import Dialect, Exchange, Head
from forebay.observe.index import COLUMNS
from forebay.observe.metrics import Metrics
from forebay.observe.recorder import Recorder
from forebay.processes.worker import WorkerControl
from forebay.routing.catalogue import Route, _told
from forebay.schema import chat, messages
from forebay.world import RealWorld

ROOT = Path(__file__).resolve().parents[1]

DIALECTS: dict[Dialect, str] = {"openai": "OpenAI", "anthropic": "Anthropic"}


# -- tables


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; `head` is its columns, joined by " | "."""
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: object) -> str:
    return f"`{text}`"


def _codes(names: Iterable[object]) -> str:
    return ", ".join(_code(name) for name in names)


# -- forebay.yaml


def settings() -> str:
    """Every setting, a section for each part of the file."""
    root = types.type_info(config.Forebay)
    assert isinstance(root, types.StructType)
    rows = [
        (_code(field.encode_name), _docs(config.Forebay)[field.encode_name])
        for field in root.fields
    ]
    parts = [table("part | what it settles", rows)]
    for field in root.fields:
        parts += _sections(field.encode_name, field.type)
    return "\n".join(parts)


def _sections(path: str, kind: types.Type) -> Iterator[str]:
    if isinstance(kind, types.DictType):
        yield from _sections(f"{path}.NAME", kind.value_type)
    elif isinstance(kind, types.UnionType):
        for option in kind.types:
            yield from _sections(path, option)
    elif isinstance(kind, types.StructType):
        title = f"`{path}`"
        if kind.tag is not None:
            title += f" of `{kind.tag_field}: {kind.tag}`"
        if rows := list(_fields(kind)):
            yield f"## {title}\n\n{_first_paragraph(kind.cls)}\n"
            yield table("setting | type | default | what", rows)
        for field in kind.fields:
            # The models of a provider are the same table for each kind: it comes once.
            if not (kind.tag is not None and kind.tag != "openai"):
                yield from _sections(f"{path}.{field.encode_name}", field.type)


def _fields(kind: types.StructType) -> Iterator[tuple[str, str, str, str]]:
    docs = _docs(kind.cls)
    own = kind.cls.__annotations__
    # What a class adds comes before what it has from another.
    for field in sorted(kind.fields, key=lambda field: field.name not in own):
        if isinstance(field.type, types.StructType):
            continue  # a section of its own
        name = field.encode_name
        yield _code(name), _type(field.type), _default(name, field), docs[name]


def _type(kind: types.Type) -> str:
    match kind:
        case types.StrType():
            return "text"
        case types.BoolType():
            return "`true` or `false`"
        case types.IntType():
            return "whole number" + _range(kind)
        case types.FloatType():
            return "number" + _range(kind)
        case types.LiteralType():
            return " or ".join(_code(value) for value in kind.values)
        case types.ListType():
            return f"list of {_type(kind.item_type)}"
        case types.DictType():
            return f"names, each with {_type(kind.value_type)}"
        case types.StructType():
            return "settings"
        case types.UnionType():
            wanted = [t for t in kind.types if not isinstance(t, types.NoneType)]
            return " or ".join(_type(t) for t in wanted)
    raise NotImplementedError(kind)


def _range(kind: types.IntType | types.FloatType) -> str:
    bounds = (("from", kind.ge), ("over", kind.gt), ("to", kind.le), ("below", kind.lt))
    return "".join(f" {word} {_plain(bound)}" for word, bound in bounds if bound is not None)


def _plain(number: float) -> str:
    return f"{int(number)}" if number == int(number) else f"{number:g}"


def _default(name: str, field: types.Field) -> str:
    if field.required:
        return "needed"
    default = field.default
    if default is msgspec.NODEFAULT and callable(field.default_factory):
        default = field.default_factory()
    if default in (None, msgspec.NODEFAULT):  # no default but UNSET
        return "unset"
    if isinstance(default, bool):
        return _code(str(default).lower())
    if isinstance(default, list | dict) or default == "":
        return "empty"
    if name.endswith("_bytes") and default >= 1024:
        size = f"{default >> 20} MiB" if default >= 1 << 20 else f"{default >> 10} KiB"
        return f"`{default}` ({size})"
    return _code(f"{default:g}" if isinstance(default, float) else default)


def _docs(cls: type) -> dict[str, str]:
    """The `#:` comment above each field, of the class and of those it is made from."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not issubclass(base, msgspec.Struct) or base is msgspec.Struct:
            continue
        said: list[str] = []
        for line in inspect.getsource(base).splitlines():
            text = line.strip()
            if text.startswith("#:"):
                said.append(text.removeprefix("#:").strip())
                continue
            field = re.match(r"    (\w+): ", line)
            if field and said:
                found[field[1]] = " ".join(said)
            said = []
    return _Explained(cls.__name__, found)


class _Explained(dict[str, str]):
    def __init__(self, what: str, found: dict[str, str]) -> None:
        super().__init__(found)
        self._what = what

    def __missing__(self, name: str) -> str:
        raise SystemExit(f"{self._what}: {name!r} is explained nowhere")


def _first_paragraph(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]


#: Each set of variables that adds a provider.
PROVIDER_VARIABLES = (
    ("OPENAI_API_KEY",),
    ("ANTHROPIC_API_KEY",),
    ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"),
    *((variable,) for _, variable, _ in config._ENV_OPENAI),
)


def providers_from_environment() -> str:
    rows = []
    for variables in PROVIDER_VARIABLES:
        environ = {name: "https://x.openai.azure.com" for name in variables}
        ((name, made),) = config._from_environment(config.Forebay(), environ).items()
        address = "that of the endpoint" if name == "azure" else made.base_url
        rows.append((" and ".join(map(_code, variables)), _code(name), address))
    return table("environment | adds the provider | at", rows)


# -- the command line


def verbs() -> str:
    parts = []
    for words, about, parser in _commands("forebay", "", command_line()):
        rows = [_option(action) for action in _actions(parser) if not _is_sub(action)]
        parts.append(f"## `{words}`\n\n{about}\n")
        if rows:
            parts.append(table("option | default | what", rows))
    return "\n".join(parts)


def _commands(
    words: str, about: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Every verb that does something, in the order of --help."""
    subs = [action for action in _actions(parser) if isinstance(action, _SUBPARSERS)]
    if not subs:
        yield words, _sentence(parser.description or about), parser
    for sub in subs:
        helps = {choice.dest: choice.help or "" for choice in sub._choices_actions}
        for name, child in sub.choices.items():
            yield from _commands(f"{words} {name}", helps[name], child)


# argparse has no public way to look into a parser; these two names are older than Python 3.
_SUBPARSERS = argparse._SubParsersAction


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if "-h" not in action.option_strings]


def _is_sub(action: argparse.Action) -> bool:
    return isinstance(action, _SUBPARSERS)


def _option(action: argparse.Action) -> tuple[str, str, str]:
    name = action.option_strings[-1] if action.option_strings else ""
    value = ""
    if action.nargs != 0:
        metavar = str(action.metavar or action.dest.upper())
        value = "{" + ",".join(action.choices) + "}" if action.choices else metavar
    if action.nargs == "?":
        value = f"[{value}]"
    default = action.default
    if isinstance(default, list):
        default = ",".join(default)
    shown = "" if default in (None, False, "", argparse.SUPPRESS) else _code(default)
    return _code(f"{name} {value}".strip()), shown, _sentence(action.help or "")


def _sentence(text: str) -> str:
    if not text:
        raise SystemExit("a verb or an option has no help")
    text = text.replace("%%", "%")
    text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


# -- errors

MEANINGS = {
    "bad_json": "The body is no JSON object in UTF-8.",
    "bad_request": "A member is missing or has the wrong type; the message says which.",
    "duplicate_key": "A member stands twice: parsers differ in which of the two they take.",
    "too_deep": "The body is nested deeper than a decoder follows.",
    "unsupported": "The model, its provider or the other dialect can't do what was asked.",
    "missing_key": "A key is needed and none was sent.",
    "bad_key": "The key was cut, mistyped, revoked or never issued here.",
    "key_expired": "The key was good until its end.",
    "foreign_origin": "Without a key: the request comes from a web page, a proxy or another host.",
    "unknown_trace": "The store has no record of this id, or more than one that begins so.",
    "unknown_path": "There is nothing at this path, or no provider of this name.",
    "unknown_model": "No model has this name; the message names what is near.",
    "method_not_allowed": "The path takes another method.",
    "slow_request": "Head or body took longer than `server.head_s` or `server.body_s`.",
    "body_too_large": "The body has more than `server.body_bytes`.",
    "bad_content_type": "Without a key: the content type is not `application/json`.",
    "headers_too_large": "The head has more than `server.head_bytes` or `server.headers`.",
    "internal": "A defect of the gateway; its log has the request's id.",
    "not_configured": "On the command line: a setting, file or folder that can't work.",
    "provider_error": "The provider answered with an error; within a dialect its own passes.",
    "provider_refused_key": "The provider refused the gateway's key: the operator's business.",
    "provider_unreachable": "No connection: name, address, TLS, proxy, or reset.",
    "bad_answer": "What came is no answer of the provider's dialect, or a redirect.",
    "truncated": "The answer ended in the middle, or without a finish reason.",
    "overloaded": "All connections are in use, or a local model is still loading.",
    "shutting_down": "A process was stopped while another waited for it.",
    "provider_timeout": "One of the four clocks (`timeouts`) ran out.",
}


def errors() -> str:
    if MEANINGS.keys() != CODES.keys():
        odd = sorted(MEANINGS.keys() ^ CODES.keys())
        raise SystemExit(f"errors.CODES and MEANINGS differ in {', '.join(odd)}")
    faults = {"us": "the gateway's"}
    rows = [
        (
            _code(code.name),
            str(code.status),
            faults.get(code.fault, f"the {code.fault}'s"),
            "yes" if code.retryable else "no",
            MEANINGS[code.name],
        )
        for code in CODES.values()
    ]
    return table("code | status | whose fault | worth a retry | when", rows)


def errors_on_the_wire() -> str:
    rows = [
        (
            _code(code.name),
            _code(failures.openai_type(code.status)),
            _code(failures.OPENAI_CODES.get(code.name, code.name)),
            _code(failures.anthropic_type(code.status)),
        )
        for code in CODES.values()
    ]
    return table("code | `type` for OpenAI's SDK | `code` there | `type` for Anthropic's SDK", rows)


# -- metrics


class _NoLink:
    """A link to a back office that has counted one request of each kind."""

    async def metrics(self) -> str:
        metrics = Metrics()
        row = dict.fromkeys(COLUMNS, "x") | {
            **{name: 1 for name in COLUMNS if name.startswith(("tokens", "cost", "saved", "ttft"))},
            "status": 200,
            "attempts": 1,
            "outcome": "ok",
        }
        metrics.count([tuple(row.values())])
        return metrics.text()


def metrics() -> str:
    """From a real scrape: what a worker answers."""
    recorder = Recorder(RealWorld(), lambda _: True, "")
    plane: Any = SimpleNamespace(recorder=recorder, way=SimpleNamespace(cache=ExactCache(1, 1.0)))
    link: Any = _NoLink()
    text = asyncio.run(WorkerControl(link, plane, 0).metrics())
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.M))
    rows = []
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        series = re.search(rf"^{name}(?:_bucket)?\{{(.*?)\}} ", text, re.M)
        labels = re.findall(r'(\w+)="', series[1]) if series else []
        if name not in helps:
            raise SystemExit(f"the metric {name} has no HELP")
        rows.append((_code(name), kind, _codes(labels), helps[name]))
    return table("name | kind | labels | what", rows)


# -- headers

LOOKED_AT = {
    "authorization": "The key: `Bearer fb_…`.",
    "x-api-key": "The key, as Anthropic's SDK sends it.",
    "api-key": "The key, as Azure's clients send it.",
    "host": "Without a key it must be local.",
    "origin": "Without a key it must be local.",
    "content-type": "Without a key a body must be JSON. `/passthrough` forwards it.",
    "accept": "`/passthrough` forwards it.",
    "x-forebay-cache": "What the caller wants of the exact cache: `on`, `off` or `refresh`.",
}

TOLD = {
    "x-request-id": "Id of the request, as in its record and in the log.",
    "request-id": "The same, where Anthropic's SDK looks for it (Anthropic's dialect only).",
    "x-forebay-cache": "`exact`: from the cache. `miss`: it was looked for. `refresh`: asked anew "
    "because the caller wanted to. `bypass`: not looked for.",
    "x-forebay-model": "The model that answers, as its provider names it.",
    "x-forebay-provider": "The provider, as `forebay.yaml` names it.",
    "x-forebay-route": "Why this one: `direct`, `name NAME` or `catalogue: PROVIDER`.",
    "server-timing": "Milliseconds in each layer: `read`, `plan`, and `provider` until its head.",
    "x-forebay-cost-usd": "What it cost, where that is known before the first byte leaves.",
    "retry-after": "On a refusal that time alone cures: seconds.",
    "x-should-retry": "`false` on a refusal that asking again can't cure: the SDKs obey it.",
}


def headers_looked_at() -> str:
    names = [name.decode() for name, bits in headers._NAMES.items() if bits & headers._SINGLE]
    if set(names) != LOOKED_AT.keys():
        raise SystemExit(f"LOOKED_AT is not {', '.join(names)}")
    return table("header | what for", [(_code(name), LOOKED_AT[name]) for name in names])


def headers_told() -> str:
    x = Exchange("req_", 0, 0, "POST", "/", "", Head(), "", dialect="anthropic", cost_nusd=1)
    provider: Any = SimpleNamespace(name="x")
    sent = {name.decode() for name, _ in reply.own_headers(x, _told(Route(provider, "", "")))}
    for failure in (
        Failure("bad_json", "", retry_after_s=1.0),
        Failure("overloaded", "", retry_after_s=1.0),
    ):
        caught: Any = SimpleNamespace(response_started=False, reply=lambda *_: None)
        reply.refuse(x, failure, caught)
        sent |= {name.decode() for name, _ in x.reply_headers}
    sent -= {"content-type"}
    if sent != TOLD.keys():
        raise SystemExit(f"TOLD and the replies differ in {', '.join(sorted(sent ^ TOLD.keys()))}")
    return table("header | what it says", [(_code(name), text) for name, text in TOLD.items()])


def headers_passed() -> str:
    """Which cross the gateway, and which way."""
    every = [(name.decode(), bits) for name, bits in headers._NAMES.items()]
    every += [(f"{prefix.decode()}*", bits) for prefix, bits in headers._PREFIXES]
    columns = [headers._UP[d] for d in DIALECTS] + [headers._DOWN[d] for d in DIALECTS]
    crosses = headers._UP_OPENAI | headers._UP_ANTHROPIC
    crosses |= headers._DOWN_OPENAI | headers._DOWN_ANTHROPIC
    rows = [
        (_code(name), *("yes" if bits & way else "" for way in columns))
        for name, bits in every
        if bits & crosses
    ]
    head = "header | goes to OpenAI's | to Anthropic's | comes from OpenAI's | from Anthropic's"
    return table(head, rows)


def headers_recorded() -> str:
    names = [name.decode() for name, bits in headers._NAMES.items() if bits & headers._RECORD]
    names += [f"{prefix.decode()}*" for prefix, bits in headers._PREFIXES if bits & headers._RECORD]
    return _codes(sorted(names)) + "\n"


def headers_of_proxies() -> str:
    names = [name.decode() for name, bits in headers._NAMES.items() if bits & headers._PROXIED]
    names += [
        f"{prefix.decode()}*" for prefix, bits in headers._PREFIXES if bits & headers._PROXIED
    ]
    return _codes(names) + "\n"


# -- endpoints and conversions


def endpoints() -> str:
    rows = []
    for endpoint in ENDPOINTS.values():
        how = []
        for dialect in DIALECTS:
            found = translate(endpoint, dialect, "", 0, "max_tokens")
            if found is None:
                how.append("refused: `unsupported`")
            else:
                how.append("bytes pass" if endpoint.dialect == dialect else "converted")
        cached = "yes" if endpoint.cacheable else "no"
        rows.append((_code(f"POST {endpoint.path}"), DIALECTS[endpoint.dialect], *how, cached))
    return table("path | dialect | provider of OpenAI's | of Anthropic's | exact cache", rows)


def converted_chat() -> str:
    return _conversion(chat.Request, chat_to_messages)


def converted_messages() -> str:
    return _conversion(messages.Request, messages_to_chat)


def _conversion(request: type[msgspec.Struct], module: Any) -> str:
    names = sorted({*request.__struct_fields__, "model", "stream"})
    refused = [
        (
            _code(name),
            ", ".join(
                "nothing" if value is None else _code(msgspec.json.encode(value).decode())
                for value in harmless
            ),
            instead,
        )
        for name, (harmless, instead) in sorted(module.REFUSED.items())
    ]
    dropped = [
        (_code(name), why) for name, why in sorted(module.DROPPED.items()) if name != "stream"
    ]
    return "\n".join(
        (
            f"Converted: {_codes(names)}.\n",
            table("refused | but for | instead", refused),
            table("left out | because it is", dropped),
        )
    )


# -- limits

LIMITS = (
    ("processes.back_office.KEYS_POLL_S", "s", "until a revoked key is refused by every worker"),
    ("processes.back_office.PRICES_S", "s", "between two looks at the price list"),
    ("processes.back_office.DISCOVERY_S", "s", "between two looks at the providers' models"),
    ("processes.supervisor.WORKER_GRACE_S", "s", "that open answers get when the gateway stops"),
    ("processes.supervisor.OFFICE_GRACE_S", "s", "that the back office then gets to write"),
    ("wire.pool.KEEP_ALIVE_S", "s", "a free connection to a provider is kept"),
    ("wire.upstream.MAX_HEAD_BYTES", "B", "of a provider's response head"),
    ("wire.upstream.MAX_HEADERS", "", "headers in it"),
    ("wire.upstream.MAX_BODY_BYTES", "B", "of an answer that is not streamed"),
    ("wire.sse.MAX_EVENT_BYTES", "B", "of one event of a stream"),
    ("wire.members.MAX_MEMBERS", "", "members at the top of a request's body"),
    ("dialects.failures.MAX_MESSAGE", "", "characters of a provider's error message"),
    ("providers.discovery.MAX_MODELS", "", "models taken from a provider's list"),
    ("observe.recorder.RING_BYTES", "B", "of records that wait in a worker for the back office"),
    ("observe.metrics.MAX_SERIES", "", "series of a metric; what is more counts as `other`"),
    ("admission.key_store.MAX_NAME", "", "characters of a key's name"),
    ("console.sessions.MAX_SESSIONS", "", "people logged in to the console at once"),
)


def limits() -> str:
    rows = []
    for path, unit, what in LIMITS:
        module, _, name = path.rpartition(".")
        value = getattr(importlib.import_module(f"forebay.{module}"), name)
        rows.append((_quantity(value, unit), what, _code(path)))
    return table("bound | on | where it stands", rows)


def _quantity(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value >> 20} MiB" if value >= 1 << 20 else f"{value >> 10} KiB"  # type: ignore[operator]
    return f"{value:,g} {unit}".strip()


# -- floors


def floors() -> str:
    """The layers of pyproject.toml, each with the first sentence of its modules."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = project["tool"]["importlinter"]["contracts"]
    layers = [layer.split(" | ") for layer in contract["layers"]]
    rows = [
        (str(len(layers) - at) if name == names[0] else "", _code(name), _about(name))
        for at, names in enumerate(layers)
        for name in names
    ]
    return table("floor | module | what it is", rows)


def _about(name: str) -> str:
    path = ROOT / "src" / "forebay" / name
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    said = re.match(r'"""(.+?)(?:\.\s|\."""|\n\n|:\n)', source, re.S)
    if said is None:
        raise SystemExit(f"{name} does not say what it is")
    return " ".join(said[1].split())


# -- pages

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/concepts.md": {"chat": converted_chat, "messages": converted_messages},
    "docs/internals.md": {"floors": floors},
    "docs/operations.md": {"limits": limits},
    "docs/reference/api.md": {"endpoints": endpoints},
    "docs/reference/cli.md": {"verbs": verbs},
    "docs/reference/config.md": {
        "environment": providers_from_environment,
        "settings": settings,
    },
    "docs/reference/errors.md": {"errors": errors, "wire": errors_on_the_wire},
    "docs/reference/headers.md": {
        "looked-at": headers_looked_at,
        "proxies": headers_of_proxies,
        "told": headers_told,
        "passed": headers_passed,
        "recorded": headers_recorded,
    },
    "docs/reference/metrics.md": {"metrics": metrics},
}


def renewed(page: str, text: str) -> str:
    """A page's text with its generated parts made anew. SystemExit where it lacks one."""
    for name, make in PARTS[page].items():
        marks = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(rf"({re.escape(marks[0])}\n).*?({re.escape(marks[1])})", re.S)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"{page} has no one place for {name}: {marks[0]} … {marks[1]}")
        made = make()
        text = pattern.sub(lambda match, made=made: f"{match[1]}{made}{match[2]}", text)  # type: ignore[misc]
    return text


def main() -> int:
    for page in PARTS:
        path = ROOT / page
        before = path.read_text()
        after = renewed(page, before)
        if after != before:
            path.write_text(after)
            print(f"{page} is renewed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
