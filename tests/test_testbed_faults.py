import pytest

from forebay.testbed.twins.faults import Request, Script


def request(number: int, **other: object) -> Request:
    seen = {"path": "/v1/chat/completions", "model": "m", "key": "k", "at_s": 0.0, "draw": 0.5}
    return Request(number=number, **(seen | other))  # type: ignore[arg-type]


def struck(script: str, requests: list[Request]) -> list[str]:
    loaded = Script.decode(script)
    return [fault.label if fault else "-" for fault in map(loaded.choose, requests)]


def test_a_script_is_yaml_or_json_and_may_be_empty() -> None:
    assert Script.decode("").faults == []
    assert Script.decode("[]").faults == []
    assert Script.decode('{"faults": []}').faults == []
    yaml, json = "- what: {kind: cut}", '{"faults": [{"what": {"kind": "cut"}}]}'
    assert Script.decode(yaml).faults == Script.decode(json.encode()).faults != []


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("{}", "xxxxxx"),
        ("{requests: [0, 3]}", "x--x--"),
        ("{times: 2}", "xx----"),
        ("{skip: 1, times: 2}", "-xx---"),
        ("{share: 0.6}", "xxxxxx"),
        ("{share: 0.5}", "------"),
        ("{path: /v1/messages}", "------"),
        ("{path: /v1/*}", "xxxxxx"),
        ("{model: 'm?'}", "------"),
        ("{key: k}", "xxxxxx"),
        ("{from_s: 2, until_s: 4}", "--xx--"),
        ("{until_s: 1, every_s: 3}", "x--x--"),
    ],
)
def test_when_says_which_requests(when: str, expected: str) -> None:
    script = f"- {{name: x, what: {{kind: status, status: 500}}, when: {when}}}"
    requests = [request(number, at_s=float(number)) for number in range(6)]

    assert "".join(struck(script, requests)) == expected


def test_the_first_fault_that_matches_is_the_one() -> None:
    script = """
    - {what: {kind: status, status: 429}, when: {times: 1}}
    - {name: second, what: {kind: stall}}
    """
    assert struck(script, [request(0), request(1)]) == ["status", "second"]


def test_it_says_how_often_each_was_looked_at_and_taken() -> None:
    script = Script.decode("- {what: {kind: status, status: 429}, when: {times: 1}}")
    for number in range(3):
        script.choose(request(number))
    assert [(s["matched"], s["taken"]) for s in script.describe()] == [(3, 1)]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("{", "neither YAML nor JSON"),
        ("- {what: {kind: explode}}", "explode"),
        ("- {what: {kind: status, status: 500}, wehn: {}}", "wehn"),
        ("- {what: {kind: status, status: 500}, where: event}", "happens at head"),
        ("- {what: {kind: error}}", "needs a stream"),
        ("- {what: {kind: write, text: x}, where: head}", "needs a stream"),
        ("- {what: {kind: stall}, where: first, after: 3}", "goes with where: event"),
        ("- {what: {kind: cut, how: complete}}", "needs a head"),
        ("- {what: {kind: stall, comment_every_s: 1}}", "needs a stream"),
        ("- what: {kind: status, status: 500, error: oops}", "no error 'oops'"),
        ("- {what: {kind: error, error: oops}, where: first}", "no error 'oops'"),
        ("- what: {kind: status, status: 42}", "status"),
        ("- what: {kind: link, bytes_per_s: 0}", "bytes_per_s"),
        ("- {what: {kind: cut}, when: {share: 2}}", "share"),
        ("- 3", "fault script is wrong"),
    ],
)
def test_a_script_that_is_wrong_says_where(script: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Script.decode(script)
