"""Given a record with a secret anywhere in it, in any spelling that encoders give it, when it is
cleaned, then the secret is gone and everything else is as it was."""

import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from forebay.observe import record as records
from forebay.observe import restore
from forebay.observe.record import Body, Record
from forebay.observe.redact import Redactor
from records import attempted, changed, chat, chat_stream, chunked, dumps, spliced_model, whole

PROVIDER_KEY = "sk-proj-4Kq9_wZ1-aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789"
SLASHED_KEY = 'Ab+/c"D==kEy/of\\many+parts0123456789'
GATEWAY_KEY = "fb_8zK4QwErTyUiOpAsDfGhJkLzXcVbNm1234567890AbCdEfGhIj"

REDACTOR = Redactor(
    {"OPENAI_API_KEY": PROVIDER_KEY.encode(), "AZURE_API_KEY": SLASHED_KEY.encode()}
)
TOKENS = {
    PROVIDER_KEY: "[secret:OPENAI_API_KEY]",
    SLASHED_KEY: "[secret:AZURE_API_KEY]",
    GATEWAY_KEY: "[secret:gateway-key]",
}

Spelling = Callable[[str], str]


def as_json(text: str) -> str:
    return json.dumps(text)[1:-1]


SPELLINGS: dict[str, Spelling] = {
    "plain": str,
    "JSON": as_json,
    "JSON in JSON": lambda text: as_json(as_json(text)),
    "JSON with slashes escaped": lambda text: as_json(text).replace("/", "\\/"),
    "JSON, every character": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "JSON, every character, upper case": lambda text: "".join(f"\\u{ord(c):04X}" for c in text),
    "URL": lambda text: quote(text, safe=""),
    "URL, lower case": lambda text: "".join(
        c if c.isalnum() or c in "-._~" else f"%{ord(c):02x}" for c in text
    ),
    "URL form": quote_plus,
    "URL, every character": lambda text: "".join(f"%{ord(c):02X}" for c in text),
}
NEVER_ESCAPED = {"JSON, every character", "JSON, every character, upper case"} | {
    "URL, every character"
}


def cleaned(record: Record) -> Record:
    encoded = records.encode(record)
    assert REDACTOR.suspects(encoded)
    return records.decode(records.encode(REDACTOR.clean(records.decode(encoded))))


@pytest.mark.parametrize(
    ("secret", "spelling"),
    [
        pytest.param(secret, spelling, id=f"{token}, {spelling}")
        for secret, token in TOKENS.items()
        for spelling in SPELLINGS
        # Gateway keys are looked for as they are: nothing in them needs escaping.
        if not (secret == GATEWAY_KEY and spelling in NEVER_ESCAPED)
    ],
)
def test_a_secret_in_a_prompt_is_replaced_in_every_spelling(secret: str, spelling: str) -> None:
    spelt = SPELLINGS[spelling](secret)
    body = f'{{"model":"gpt-5-mini","messages":[{{"content":"my key is {spelt}, ok?"}}]}}'

    clean = cleaned(changed(chat(), body=whole(body.encode())))

    assert clean.body.data.decode() == body.replace(spelt, TOKENS[secret])
    assert clean.body.size == len(clean.body.data)


PLACES: dict[str, Callable[[Record, bytes], Record]] = {
    "a request header": lambda r, s: changed(r, headers=[(b"x-note", b"key=" + s)]),
    "a reply header": lambda r, s: changed(r, reply_headers=[(b"x-note", s)]),
    "the name of a header": lambda r, s: changed(r, headers=[(s, b"1")]),
    "the path": lambda r, s: changed(r, path="/v1/" + s.decode()),
    "the query": lambda r, s: changed(r, query="key=" + s.decode()),
    "the model": lambda r, s: changed(r, model=s.decode()),
    "the error": lambda r, s: changed(r, error=f"Incorrect API key provided: {s.decode()}."),
    "a draw": lambda r, s: changed(r, draws=[s.decode()]),
    "an answer": lambda r, s: with_attempt(r, body=whole(b'{"echo":"' + s + b'"}')),
    "what was sent": lambda r, s: with_attempt(r, sent=whole(b'{"key":"' + s + b'"}')),
    "a splice of what was sent": lambda r, s: with_attempt(r, sent=[(9, 19, b'"' + s + b'"')]),
    "a header that was sent": lambda r, s: with_attempt(r, sent_headers=[(b"api-key", s)]),
    "a header of an answer": lambda r, s: with_attempt(r, headers=[(b"x-key", s)]),
    "the model reported": lambda r, s: with_attempt(r, model_reported=s.decode()),
    "the reply": lambda r, s: changed(r, reply_body=whole(b"data: " + s)),
    "a splice of the reply": lambda r, s: changed(r, reply_body=[(0, 0, s)]),
}


def with_attempt(record: Record, **changes: object) -> Record:
    attempt = msgspec.structs.replace(record.attempts[0], **changes)
    return changed(record, attempts=[attempt])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", [PROVIDER_KEY, GATEWAY_KEY], ids=["provider", "gateway"])
def test_a_secret_is_replaced_wherever_it_stands(place: str, secret: str) -> None:
    record = PLACES[place](chat(), secret.encode())
    expected = PLACES[place](chat(), TOKENS[secret].encode())

    clean = cleaned(record)

    assert secret.encode() not in records.encode(clean)
    assert msgspec.to_builtins(clean) == msgspec.to_builtins(sized(expected))


def sized(record: Record) -> Record:
    """`whole` has counted already; nothing else knows a size."""
    return records.decode(records.encode(record))


def test_a_secret_cut_by_chunk_boundaries_is_found_and_the_cuts_move_behind_it() -> None:
    key = PROVIDER_KEY.encode()
    chunks = [
        b"data: the key is " + key[:10],
        key[10:20],
        key[20:] + b" keep it\n\n",
        b"data: x\n\n",
    ]
    record = with_attempt(chat(), body=chunked(chunks))

    clean = cleaned(record).attempts[0].body

    token = TOKENS[PROVIDER_KEY].encode()
    assert clean.data == b"data: the key is " + token + b" keep it\n\ndata: x\n\n"
    behind = len(b"data: the key is " + token)
    end = len(clean.data)
    assert [at for at, _ in restore.cuts(clean)] == [behind, behind, end - 9, end]


def test_splices_point_where_they_pointed_when_the_body_they_edit_changes() -> None:
    body = dumps({"note": PROVIDER_KEY, "model": "openai/gpt-5-mini", "more": GATEWAY_KEY})
    record = changed(
        chat(), body=whole(body), attempts=[attempted("openai", "m", sent=spliced_model(body, "m"))]
    )

    clean = cleaned(record)

    assert json.loads(restore.sent(clean, clean.attempts[0]).data) == {
        "note": TOKENS[PROVIDER_KEY],
        "model": "m",
        "more": TOKENS[GATEWAY_KEY],
    }


def test_a_spliced_reply_stays_right_when_its_answer_changes() -> None:
    record = chat_stream(pieces=("Your key ", PROVIDER_KEY, " is safe"))
    usage_chunk = b'"usage"'

    clean = cleaned(record)

    assert TOKENS[PROVIDER_KEY].encode() in restore.reply(clean).data
    assert usage_chunk not in restore.reply(clean).data
    assert usage_chunk in clean.attempts[0].body.data


def test_everything_that_is_no_secret_is_left_alone() -> None:
    record = chat(prompt="fb_ is a prefix, sk-proj- too; 100%20 \\u0073 a fb_short_key")

    assert not REDACTOR.suspects(records.encode(record))
    assert records.encode(REDACTOR.clean(record)) == records.encode(
        chat(prompt="fb_ is a prefix, sk-proj- too; 100%20 \\u0073 a fb_short_key")
    )


def test_what_is_hashed_stays_hashed() -> None:
    record = changed(
        chat(), body=Body(bytes(range(32)), b"", 9, "hashed"), query="k=" + GATEWAY_KEY
    )

    assert cleaned(record).body == Body(bytes(range(32)), b"", 9, "hashed")


def test_of_two_secrets_that_begin_alike_the_longer_one_wins() -> None:
    redactor = Redactor({"SHORT": b"sk-12345678", "LONG": b"sk-12345678-and-more"})

    clean = redactor.clean(chat(prompt="sk-12345678-and-more sk-12345678!"))

    assert b"[secret:LONG] [secret:SHORT]!" in clean.body.data


def test_values_too_short_to_protect_are_not_looked_for_and_said_so() -> None:
    redactor = Redactor({"LOCAL_KEY": b"none", "EMPTY": b""})

    assert not redactor.suspects(b"none of them")
    assert "too short to look for: LOCAL_KEY" in redactor.describe()


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(sorted(TOKENS)))
def test_no_surroundings_hide_a_secret(before: str, after: str, secret: str) -> None:
    assume("fb_" not in before + after)  # which begins what may be a key, longer than this one
    record = chat(prompt=before + secret + after)

    clean = cleaned(record)

    content = json.loads(clean.body.data)["messages"][1]["content"]
    token = TOKENS[secret]
    if secret == GATEWAY_KEY:  # it ends where its alphabet ends
        assert content.startswith(before + token)
    else:
        assert content == before + token + after


@given(st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=12, max_size=12), st.data())
def test_a_value_spelt_in_a_mixture_is_found_once_the_record_is_suspected(
    spellings: list[str], data: st.DataObject
) -> None:
    spelt = "".join(
        SPELLINGS[spellings[i % 12]](character) for i, character in enumerate(PROVIDER_KEY)
    )
    body = f'{{"messages":[{{"content":"{spelt}"}}],"key":"{PROVIDER_KEY}"}}'

    clean = REDACTOR.clean(changed(chat(), body=whole(body.encode())))

    token = TOKENS[PROVIDER_KEY]
    assert clean.body.data.decode() == f'{{"messages":[{{"content":"{token}"}}],"key":"{token}"}}'
