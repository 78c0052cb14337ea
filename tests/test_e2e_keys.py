"""Who may ask: gateway keys as SDKs meet them, made and revoked with the command meanwhile."""

import json
from typing import Any

import anthropic
import openai
import pytest

import sdk_kit
from sdk_kit import Gateway
from sdk_stage import ANTHROPIC_KEY, AZURE_KEY, OPENAI_KEY, USER, Stage

gateway, guarded, stage = sdk_kit.gateway, sdk_kit.guarded, sdk_kit.stage

#: Of the right shape and never issued; cut; a provider's; nothing like a key.
WRONG = [
    "fb_" + "A" * 49,
    "fb_8zK4",
    "sk-proj-0123456789abcdef0123456789abcdef",
    "x",
]
#: A connection meets either worker: so many in a row and both were asked (1 − 2⁻¹¹).
BOTH = 12


def refused(guarded: Gateway, secret: str) -> tuple[Any, Any]:
    with guarded.openai(secret) as sdk, pytest.raises(openai.AuthenticationError) as one:
        sdk.chat.completions.create(model="openai/instant", messages=USER)
    with guarded.anthropic(secret) as claude, pytest.raises(anthropic.AuthenticationError) as two:
        claude.messages.create(model="openai/instant", max_tokens=9, messages=USER)
    return one.value, two.value


def works(guarded: Gateway, secret: str) -> bool:
    reply = guarded.chat("openai/instant", headers={"authorization": f"Bearer {secret}"})
    return reply.status == 200


@pytest.mark.parametrize("secret", WRONG)
def test_a_wrong_key_is_refused_in_each_dialect(
    guarded: Gateway, stage: Stage, secret: str
) -> None:
    for error in refused(guarded, secret):
        if len(secret) > 4:
            assert secret not in str(error.body) + str(error.response.headers)
        assert error.response.headers["x-should-retry"] == "false"
        assert guarded.record(error.request_id).outcome == "bad_key"
    assert stage.do(lambda: stage.openai.log.total) == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/fast"),
        ("GET", "/passthrough/openai/models"),
        ("DELETE", "/passthrough/bare/files/1"),
    ],
)
def test_no_key_is_refused_everywhere(
    guarded: Gateway, stage: Stage, method: str, path: str
) -> None:
    told = guarded.ask(path, b"{}" if method == "POST" else None, method=method)
    assert told.status == 401
    assert "fb_" in told.json["error"]["message"]  # it says what to send
    assert stage.do(lambda: sum(twin.log.total for twin in stage.twins)) == 0
    assert stage.bare.asked == []


def test_who_looks_after_it_needs_none(guarded: Gateway) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert guarded.ask(path).status == 200


def test_a_key_works_in_every_header_an_sdk_puts_it_in(guarded: Gateway, stage: Stage) -> None:
    identity, secret = guarded.new_key(project="headers", name="a test")
    with guarded.openai(secret) as sdk:
        sdk.chat.completions.create(model="openai/instant", messages=USER)
    with guarded.anthropic(secret) as claude:
        claude.messages.create(model="anthropic/instant", max_tokens=9, messages=USER)
    assert guarded.chat("openai/instant", headers={"api-key": secret}).status == 200
    for seen in (*stage.seen("openai/", 2), *stage.seen("anthropic/", 1)):
        assert secret not in str(seen.headers)

    def mine() -> bool:
        lines = guarded.lines(project="headers", outcome="ok")
        return [line.key for line in lines] == [identity] * 3

    sdk_kit.eventually(mine, "three requests of this key should be recorded")


def test_a_large_body_is_refused_and_not_cut_off(guarded: Gateway) -> None:
    """The SDK is still sending when the refusal comes; it must read it all the same."""
    long: Any = [{"role": "user", "content": "x" * 8_000_000}]
    with guarded.openai("wrong") as sdk, pytest.raises(openai.AuthenticationError):
        sdk.chat.completions.create(model="openai/instant", messages=long)
    with guarded.anthropic("wrong") as claude, pytest.raises(anthropic.AuthenticationError):
        claude.messages.create(model="openai/instant", max_tokens=9, messages=long)


def test_a_key_made_meanwhile_works_within_a_second(guarded: Gateway) -> None:
    made = json.loads(guarded.forebay("keys", "create", "--json"))
    began_ns = guarded.world.now_ns()
    sdk_kit.eventually(lambda: all(works(guarded, made["key"]) for _ in range(BOTH)), "never")
    assert guarded.world.now_ns() - began_ns < 1e9


def test_a_revoked_key_is_refused_within_a_second(guarded: Gateway) -> None:
    identity, secret = guarded.new_key()
    assert all(works(guarded, secret) for _ in range(BOTH))
    # A connection that is kept alive is no way around it.
    with guarded.openai(secret) as sdk:
        sdk.models.list()
        guarded.forebay("keys", "revoke", identity)
        began_ns = guarded.world.now_ns()
        sdk_kit.eventually(
            lambda: not any(works(guarded, secret) for _ in range(BOTH)), "it works on"
        )
        assert guarded.world.now_ns() - began_ns < 1e9
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            sdk.models.list()
    for error in refused(guarded, secret):
        assert identity in error.message  # which key, not the key
        assert secret not in error.message


def test_an_expired_key_is_refused(guarded: Gateway) -> None:
    _, secret = guarded.new_key(lifetime_s=2)
    sdk_kit.eventually(lambda: not works(guarded, secret), "it never expired", 10)
    for error in refused(guarded, secret):
        assert "expired" in error.message


def test_the_first_admin_key_may_ask_too(guarded: Gateway) -> None:
    assert works(guarded, guarded.up.admin_key)


# -- open to this machine --------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", ["openai/instant", "azure/gpt-azure", "anthropic/instant", "trusted/instant"]
)
@pytest.mark.parametrize("secret", ["sk-the-callers-own-provider-key", "fb_" + "A" * 49])
def test_any_key_is_accepted_and_none_goes_up(
    gateway: Gateway, stage: Stage, model: str, secret: str
) -> None:
    with gateway.openai(secret) as sdk:
        sdk.chat.completions.create(
            model=model, messages=USER, extra_headers={"api-key": secret, "x-api-key": secret}
        )
    with gateway.anthropic(secret) as claude:
        claude.messages.create(
            model=model,
            max_tokens=9,
            messages=USER,
            extra_headers={"authorization": f"Bearer {secret}", "cookie": secret},
        )
    for seen in stage.seen(model, 2):
        assert secret not in str(seen.headers)
        assert secret.encode() not in seen.body
        own = ANTHROPIC_KEY if "anthropic" in model else OPENAI_KEY
        own = AZURE_KEY if "azure" in model else own
        assert own in str(seen.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "gateway.example.com"},
        {"origin": "https://example.com"},
        {"forwarded": "for=192.0.2.1"},
        {"x-forwarded-for": "127.0.0.1"},
        {"via": "1.1 proxy"},
        {"content-type": "text/plain"},
    ],
)
def test_what_may_come_from_elsewhere_needs_a_key(
    gateway: Gateway, stage: Stage, headers: dict[str, str]
) -> None:
    assert gateway.chat(headers=headers).status in (403, 415)
    assert stage.do(lambda: stage.openai.log.total) == 0
    _, secret = gateway.new_key()
    with_key = {**headers, "authorization": f"Bearer {secret}"}
    assert gateway.chat(headers=with_key).status == 200
