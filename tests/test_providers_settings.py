"""How to reach a provider, as people write it, and what is said where it cannot be."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import Failure
from forebay.providers import OpenAI
from forebay.providers.settings import Link
from forebay.wire.pool import Target
from providers_kit import CANARY, world


def target(**settings: Any) -> Target:
    return Link(**{"base_url": "https://x", "proxy": "off", **settings}).target(world())


def refused(**settings: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        target(**settings)
    return caught.value


@pytest.mark.parametrize(
    ("url", "authority", "tls"),
    [
        ("https://api.openai.com/v1", "api.openai.com", True),
        ("http://localhost:8000/v1", "localhost:8000", False),
        ("https://x:443", "x", True),
        ("http://x:80", "x", False),
        ("http://x:443", "x:443", False),
        ("http://[::1]:8000", "[::1]:8000", False),
        ("HTTPS://API.Example.COM", "api.example.com", True),
    ],
)
def test_an_address(url: str, authority: str, tls: bool) -> None:
    origin = target(base_url=url).origin
    assert origin.authority == authority
    assert (origin.tls is not None) == tls
    if origin.tls is not None:
        assert origin.tls.verify_mode == ssl.CERT_REQUIRED
        assert origin.tls.check_hostname


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "//api.openai.com",
        "ftp://x",
        "file:///etc/passwd",
        "https://",
        "https://:8000",
        "https://x:0",
        "https://x:99999",
        "https://x:http",
        "https://[::1",
        "https://x?key=y",
        "https://x#y",
        "https://user@x",
        "https://x/a b",
        "https://x/a\r\nb",
        "https://x y",
        "https://x/ключ",
        "https://x\tevil.com",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    failure = refused(base_url=url)
    assert "base_url" in str(failure)
    assert failure.param == "base_url"


def test_a_key_in_the_place_of_the_address_is_not_shown() -> None:
    for url in (f"https://user:{CANARY}@x", f"https://x?api_key={CANARY}", CANARY):
        assert CANARY not in str(refused(base_url=url))


@given(st.text(max_size=40))
def test_any_address_is_taken_or_refused_in_words(text: str) -> None:
    for url in (text, f"https://{text}", f"http://x/{text}"):
        try:
            origin = target(base_url=url).origin
        except Failure:
            continue
        assert " " not in origin.authority
        assert origin.authority.isprintable()


def test_certificates_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    tls = target(ca_file=str(path)).origin.tls
    assert tls is not None
    assert len(tls.get_ca_certs()) == 1  # these and no others
    path.write_text("no certificate")
    assert "ca_file" in str(refused(ca_file=str(path)))
    assert "ca_file" in str(refused(ca_file=str(tmp_path / "missing.pem")))


@pytest.mark.parametrize(
    ("proxy", "environ", "via"),
    [
        ("", {}, None),
        ("", {"https_proxy": "http://env:1"}, "env:1"),
        ("", {"http_proxy": "http://env:1"}, None),
        ("", {"all_proxy": "http://env:1"}, "env:1"),
        ("", {"https_proxy": "http://env:1", "no_proxy": "x"}, None),
        ("", {"https_proxy": "http://env:1", "no_proxy": "*"}, None),
        ("", {"https_proxy": "http://env:1", "no_proxy": "y"}, "env:1"),
        ("off", {"https_proxy": "http://env:1"}, None),
        ("http://set:2", {"https_proxy": "http://env:1"}, "set:2"),
        ("http://set", {}, "set:3128"),
    ],
)
def test_a_proxy_from_the_settings_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, proxy: str, environ: dict[str, str], via: str | None
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = target(proxy=proxy).origin.proxy
    assert (f"{found.host}:{found.port}" if found else None) == via


@pytest.mark.parametrize("proxy", ["https://x", "socks5://x", "http://", "on"])
def test_a_proxy_that_is_none(proxy: str) -> None:
    if proxy == "on":  # a host of that name
        assert target(proxy=proxy).origin.proxy is not None
        return
    failure = refused(proxy=proxy)
    assert failure.param == "proxy"


def test_a_proxys_password_is_not_shown() -> None:
    made = target(base_url="http://x", proxy=f"http://me:{CANARY}@near")
    assert CANARY not in repr(made.origin)
    failure = refused(proxy=f"https://me:{CANARY}@near")
    assert CANARY not in str(failure)


def test_headers_are_sent_in_lower_case() -> None:
    assert OpenAI(headers={"X-Team": "a"}).extra_headers() == [(b"x-team", b"a")]
