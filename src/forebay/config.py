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
from typing import Any, Literal

import msgspec
import yaml

from forebay.caches.exact import Exact
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
#: Files looked for, in this order, where none is named.
FILES = ("forebay.yaml", "forebay.yml")


class Server(ServerLimits, frozen=True, forbid_unknown_fields=True):
    """The port that applications use."""

    #: address to listen on; another than loopback needs a caller's key to exist
    host: str = "127.0.0.1"
    #: 0 takes a free one
    port: int = 8080
    #: data-plane processes, each good for one core
    workers: int = 1


class Admin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The console, for operators."""

    #: address to listen on; an admin key is asked for on every one
    host: str = "127.0.0.1"
    #: 0 takes a free one
    port: int = 8081
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
    retention_days: int = 14
    #: most disk for records, in MiB; the oldest go first; 0 sets no bound
    max_mb: int = 10_240


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
    tree = _expand(_parse(text, where), environ, "", where)
    forebay = decode(tree, where)
    extra = _from_environment(forebay, environ)
    if extra:
        joined = {**forebay.providers, **extra}
        forebay = msgspec.structs.replace(forebay, providers=joined)
    _check(forebay, where)
    digest = hashlib.sha256(text.encode() + ",".join(extra).encode()).hexdigest()
    return Loaded(forebay, path, digest[:12], list(extra))


def decode(tree: Any, where: str = "the config") -> Forebay:
    """A parsed tree as settings. Raises Failure(not_configured)."""
    try:
        return msgspec.convert(tree if tree is not None else {}, Forebay)
    except msgspec.ValidationError as error:
        raise _explain(str(error), tree, where) from None


def schema() -> dict[str, Any]:
    """JSON Schema of forebay.yaml, for editors."""
    schema = msgspec.json.schema(Forebay)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _failure(f"{path} cannot be read: {error}.") from None


class _StrictLoader(yaml.SafeLoader):
    """YAML where a key stands once (the second of two would win without a word), and where
    `off` and `on` are words, as in YAML 1.2: `capture: off` is no false."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (yaml's own, changed once)
        first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:bool"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
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


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expand(tree: Any, environ: Mapping[str, str], path: str, where: str) -> Any:
    if isinstance(tree, dict):
        return {k: _expand(v, environ, f"{path}.{k}", where) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_expand(v, environ, f"{path}[{i}]", where) for i, v in enumerate(tree)]
    if not isinstance(tree, str):
        return tree

    def value(match: re.Match[str]) -> str:
        found = environ.get(match[1], match[2])
        if found is None:
            raise _failure(
                f"{where}: {path.lstrip('.')} needs the environment variable {match[1]}, "
                "which is not set.",
                hint=f"Set it, or write ${{{match[1]}:-}} for an empty default.",
            )
        return found

    return _VARIABLE.sub(value, tree)


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
        if not isinstance(settings, AzureOpenAI) or settings.base_url:
            try:
                settings.url()
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
    if forebay.server.workers < 1:
        raise _failure(
            f"{where}: server.workers is {forebay.server.workers}, at least 1 is needed."
        )


_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")


def _explain(error: str, tree: Any, where: str) -> Failure:
    """msgspec's words with the path in the reader's spelling, and the nearest key."""
    match = _PATH.match(error)
    what = match["what"] if match else error
    path = (match["path"] or "") if match else ""
    if unknown := _UNKNOWN.search(what):
        key = unknown["key"]
        full = f"{path}.{key}" if path else key
        known = _keys_at(path, tree)
        near = difflib.get_close_matches(key, known, 1, 0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."
        return _failure(f"{where}: there is no setting {full}.", hint=hint)
    return _failure(f"{where}: {path or 'the file'}: {what}.", param=path)


def _keys_at(path: str, tree: Any) -> list[str]:
    """The setting names that exist at a path like `providers[...].models`."""
    kind: Any = msgspec.inspect.type_info(Forebay)
    for step in [part for part in re.split(r"\.|(?=\[)", path) if part]:
        kind = _step(kind, step)
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
    return Failure("not_configured", message, hint=hint, param=param)
