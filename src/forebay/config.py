"""forebay.yaml: one tree of typed settings, each part's own in the part's own file.

The tree is decoded strictly: a key that no setting has is refused with its path and the
nearest name, so that a misspelt limit is never a limit that isn't there. `${NAME}` takes a
value from the environment, `${NAME:-default}` with a default; secrets belong there.

Providers whose usual key is in the environment need no file: they are added under their
usual name unless the file defines that name itself.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from forebay.caches.exact import Exact
from forebay.dialects.failures import masked
from forebay.errors import Failure
from forebay.exchange import Capture
from forebay.inference.local import Local
from forebay.providers import Anthropic, AzureOpenAI, OpenAI
from forebay.providers import Settings as ProviderSettings
from forebay.routing.attempt import Timeouts
from forebay.routing.catalogue import Model
from forebay.wire.server import ServerLimits

#: Providers that the local models stand as.
LOCAL_NAMES = ("local", "local-embeddings")
#: What a config may unfold to. Aliases of aliases (`*a`) make billions of a few lines.
MAX_VALUES = 20_000
MAX_DEPTH = 32
#: Files looked for, in this order, where none is named.
FILES = ("forebay.yaml", "forebay.yml")


Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Server(ServerLimits, frozen=True, forbid_unknown_fields=True):
    """The port that applications use."""

    #: address to listen on; another than loopback needs a caller's key to exist
    host: str = "127.0.0.1"
    #: 0 takes a free one
    port: Port = 8080
    #: data-plane processes, each good for one core
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1


class Admin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The console, for operators."""

    #: address to listen on; an admin key is asked for on every one
    host: str = "127.0.0.1"
    #: 0 takes a free one
    port: Port = 8081
    #: host names the console may be opened under, beside local ones
    hosts: list[str] = []


class Caches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answers that need no model."""

    #: the same request, the same answer
    exact: Exact = Exact()


class RecordSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of each request, and for how long."""

    #: full: exact bytes; hashed: their SHA-256; off: neither (times, tokens and cost stay)
    capture: Capture = "full"
    #: records older than this are deleted; 0 keeps them
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 14
    #: most disk for records, in MiB; the oldest go first; 0 sets no bound
    max_mb: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] = 10_240


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who needs a gateway key."""

    #: callers on this machine: open (no key needed) or required
    loopback: Literal["open", "required"] = "open"


class Forebay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """forebay.yaml. Every part may be left out."""

    #: the port that applications use
    server: Server = Server()
    #: the console's port
    admin: Admin = Admin()
    #: where models live, by a name of your choice
    providers: dict[str, ProviderSettings] = {}
    #: your own names for models: `fast: openai/gpt-5-mini`
    models: dict[str, str | Model] = {}
    #: the models that run on this machine
    local: Local = Local()
    #: which answers may be given again
    caches: Caches = Caches()
    #: what is kept of each request
    record: RecordSettings = RecordSettings()
    #: who needs a gateway key
    keys: Keys = Keys()
    #: how long a provider may take
    timeouts: Timeouts = Timeouts()

    def names(self) -> dict[str, Model]:
        return {
            name: Model(model) if isinstance(model, str) else model
            for name, model in self.models.items()
        }


class Loaded(msgspec.Struct, frozen=True):
    """A config and where it came from."""

    forebay: Forebay
    path: Path | None  # None: no file, everything by default
    version: str  # of the text and the providers added; what records name
    from_env: list[str]  # providers that the environment added


#: Providers that a key in the environment is enough for: (name, key variable, base URL).
_ENV_OPENAI = (
    ("groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1"),
    ("mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1"),
    ("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1"),
    ("openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1"),
    ("together", "TOGETHER_API_KEY", "https://api.together.xyz/v1"),
    ("x-ai", "XAI_API_KEY", "https://api.x.ai/v1"),
)


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read the config. `path` None looks for forebay.yaml in the working directory.

    Raises Failure(not_configured) that names the file, the place in it and what is wrong.
    """
    if path is None:
        path = next((found for name in FILES if (found := Path(name)).is_file()), None)
    text = _read(path) if path is not None else ""
    where = str(path) if path is not None else "the defaults"
    tree = _expand(_parse(text, where), environ, where)
    forebay = decode(tree, where)
    extra = _from_environment(forebay, environ)
    if extra:
        joined = {**forebay.providers, **extra}
        forebay = msgspec.structs.replace(forebay, providers=joined)
    _check(forebay, where)
    digest = hashlib.sha256(text.encode() + ",".join(extra).encode()).hexdigest()
    return Loaded(forebay, path, digest[:12], list(extra))


def overridden(loaded: Loaded, **parts: dict[str, Any]) -> Loaded:
    """With some settings replaced, as the command line does it: `server={"port": 0}`.

    Raises Failure as `load`.
    """
    tree = msgspec.to_builtins(loaded.forebay)
    for part, values in parts.items():
        tree[part] |= values
    forebay = decode(tree, "the command line")
    _check(forebay, "the command line")
    return msgspec.structs.replace(loaded, forebay=forebay)


def decode(tree: Any, where: str = "the config") -> Forebay:
    """A parsed tree as settings. Raises Failure(not_configured)."""
    try:
        return _convert(tree)
    except msgspec.ValidationError as error:
        raise _explain(str(error), tree, where) from None


def _convert(tree: Any) -> Forebay:
    # Not strict: what comes from the environment is text, `port: ${PORT}` too.
    return msgspec.convert(tree if tree is not None else {}, Forebay, strict=False)


def schema() -> dict[str, Any]:
    """JSON Schema of forebay.yaml, for editors."""
    schema = msgspec.json.schema(Forebay)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _failure(f"{path} cannot be read: {error}.") from None


_OLD_TAGS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")


class _StrictLoader(yaml.SafeLoader):
    """YAML where a key stands once (the second of two would win without a word), and where
    `off`, `on` and 2024-10-21 are words, as in YAML 1.2: `capture: off` is no false."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (yaml's own, changed once)
        first: [rule for rule in rules if rule[0] not in _OLD_TAGS]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} stands twice",
                    problem_mark=key_node.start_mark,
                    note=str(line),
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506  (a SafeLoader, stricter)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}" if mark is not None else ""
        raise _failure(f"{where}{line}: {error.problem}.") from None
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise _failure(f"{where} is not YAML: {error}.") from None
    except RecursionError:
        raise _failure(f"{where} nests deeper than YAML can be read.") from None


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expand(tree: Any, environ: Mapping[str, str], where: str) -> Any:
    """The tree with `${NAME}` replaced in every value. Raises Failure(not_configured)."""
    count = 0

    def walk(value: Any, path: str, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise _failure(
                f"{where} unfolds to over {MAX_VALUES} values or {MAX_DEPTH} levels.",
                hint="Look at its aliases (*name): each stands for all that it names.",
            )
        if isinstance(value, dict):
            return {
                k: walk(v, f"{path}.{k}" if path else str(k), depth + 1) for k, v in value.items()
            }
        if isinstance(value, list):
            return [walk(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        return (
            _VARIABLE.sub(lambda found: named(found, path), value)
            if isinstance(value, str)
            else value
        )

    def named(found: re.Match[str], path: str) -> str:
        text = environ.get(found[1], found[2])
        if text is None:
            raise _failure(
                f"{where}: {path} needs the environment variable {found[1]}, which is not set.",
                hint=f"Set it, or write ${{{found[1]}:-}} for an empty default.",
            )
        return text

    return walk(tree, "", 0)


def _from_environment(forebay: Forebay, environ: Mapping[str, str]) -> dict[str, ProviderSettings]:
    found: dict[str, ProviderSettings] = {}
    if key := environ.get("OPENAI_API_KEY"):
        found["openai"] = OpenAI(
            api_key=key,
            organization=environ.get("OPENAI_ORG_ID", ""),
            project=environ.get("OPENAI_PROJECT_ID", ""),
        )
    if key := environ.get("ANTHROPIC_API_KEY"):
        found["anthropic"] = Anthropic(api_key=key)
    key, endpoint = environ.get("AZURE_OPENAI_API_KEY"), environ.get("AZURE_OPENAI_ENDPOINT")
    if key and endpoint:
        version = environ.get("OPENAI_API_VERSION")
        found["azure"] = (
            AzureOpenAI(base_url=endpoint, api_key=key, api_version=version)
            if version
            else AzureOpenAI(base_url=endpoint, api_key=key)
        )
    for name, variable, base_url in _ENV_OPENAI:
        if key := environ.get(variable):
            found[name] = OpenAI(base_url=base_url, api_key=key, prices=name)
    return {name: settings for name, settings in found.items() if name not in forebay.providers}


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def _check(forebay: Forebay, where: str) -> None:
    """What types can't say."""
    for name, settings in forebay.providers.items():
        if not _NAME.fullmatch(name) or name in LOCAL_NAMES:
            raise _failure(
                f"{where}: providers.{name} is no name for a provider.",
                hint="Use letters, digits, dot, dash, underscore; `local` is taken.",
            )
        try:
            settings.check()
        except Failure as failure:
            raise _failure(f"{where}: providers.{name}: {failure}") from None
    known = {*forebay.providers, *LOCAL_NAMES}
    for name, model in forebay.names().items():
        provider, _, rest = model.target.partition("/")
        if provider not in known or not rest:
            near = difflib.get_close_matches(provider, known, 1, 0.5)
            raise _failure(
                f"{where}: models.{name} points to {model.target!r}, which is no provider/model.",
                hint=f"Did you mean {near[0]}/{rest or '…'}?"
                if near
                else f"Providers are: {', '.join(sorted(known))}.",
            )
    server, admin = forebay.server, forebay.admin
    if server.port and (server.host, server.port) == (admin.host, admin.port):
        raise _failure(
            f"{where}: server.port and admin.port are both {server.port}.",
            hint="The console has a port of its own.",
        )


_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$")
_BAD_KEY = re.compile(r"^(?P<what>.*) - at `key` in `\$\.?(?P<path>[^`]*)`$")
_STEP = re.compile(r"\[[^\]]*\]|[^.\[]+")
_MISSING = re.compile(r"missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")


def _explain(error: str, tree: Any, where: str) -> Failure:
    """msgspec's words with the path in the reader's spelling, and what could stand there."""
    match = _PATH.match(error)
    what = match["what"] if match else error
    path = (match["path"] or "") if match else ""
    if (bad_key := _BAD_KEY.match(what)) is not None:
        path, what = bad_key["path"], bad_key["what"] + " as a name; quote it"
    missing = _MISSING.search(what)
    choices = _choices_at(f"{path}.{missing[1]}" if missing else path)
    steps = _STEP.findall(path)
    path = _spelled(steps, tree, error)
    if unknown := _UNKNOWN.search(what):
        key = unknown["key"]
        full = f"{path}.{key}" if path else key
        known = _keys_at(steps)
        near = difflib.get_close_matches(key, known, 1, 0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."
        return _failure(f"{where}: there is no setting {full}.", hint=hint)
    hint = f"It can be {' or '.join(choices)}." if choices else ""
    return _failure(f"{where}: {path or 'the file'}: {what}.", hint=hint, param=path)


def _spelled(steps: list[str], tree: Any, error: str) -> str:
    """A path with the names that msgspec leaves out: `providers[...]` is `providers.home`.

    Which of several it is shows when all the others are taken away and the error stays.
    """
    path = ""
    for at, step in enumerate(steps):
        if step == "[...]":
            held = _held(tree, steps[:at])
            for name in held if isinstance(held, dict) else ():
                alone = _with(tree, steps[:at], {name: held[name]})
                try:
                    _convert(alone)
                except msgspec.ValidationError as again:
                    if str(again) == error:
                        tree, step = alone, str(name)
                        steps = [*steps[:at], step, *steps[at + 1 :]]
                        break
        path += step if step.startswith("[") or not path else f".{step}"
    return path


def _held(tree: Any, steps: list[str]) -> Any:
    for step in steps:
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree


def _with(tree: Any, steps: list[str], value: Any) -> Any:
    if not steps:
        return value
    return {**tree, steps[0]: _with(tree[steps[0]], steps[1:], value)}


def _choices_at(path: str) -> list[str]:
    """The words that may stand at a path, where only a few may."""
    *before, last = _STEP.findall(path) or [""]
    kind = _kind_at(before)
    tags = [
        option.tag
        for option in _options(kind)
        if isinstance(option, msgspec.inspect.StructType) and option.tag_field == last
    ]
    if tags:
        return [str(tag) for tag in tags]
    found: list[str] = []
    for option in _options(_kind_at([*before, last])):
        if isinstance(option, msgspec.inspect.LiteralType):
            found += [str(value) for value in option.values]
    return found


def _kind_at(steps: list[str]) -> Any:
    kind: Any = msgspec.inspect.type_info(Forebay)
    for step in steps:
        kind = _step(kind, step)
    return kind


def _keys_at(steps: list[str]) -> list[str]:
    """The setting names that exist at a path like `providers`, `[...]`, `models`."""
    kind = _kind_at(steps)
    names: list[str] = []
    for option in _options(kind):
        if isinstance(option, msgspec.inspect.StructType):
            names += [field.encode_name for field in option.fields]
            if option.tag_field:
                names.append(option.tag_field)
    return sorted(set(names))


def _step(kind: Any, step: str) -> Any:
    for option in _options(kind):
        if step.startswith("[") and isinstance(option, msgspec.inspect.DictType):
            return option.value_type
        if isinstance(option, msgspec.inspect.StructType):
            for field in option.fields:
                if field.encode_name == step:
                    return field.type
    return kind


def _options(kind: Any) -> tuple[Any, ...]:
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def _failure(message: str, hint: str = "", param: str | None = None) -> Failure:
    # A key that stands where it should not must not be shown for it.
    return Failure("not_configured", masked(message), hint=masked(hint), param=param)
