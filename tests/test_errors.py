"""Failures as data: every code means one thing, in one status, in both dialects."""

import inspect
import json
import re
from pathlib import Path

import pytest

from forebay import errors
from forebay.dialects import failures
from forebay.errors import CODES, Failure
from forebay.exchange import Dialect

SOURCE = Path(errors.__file__).parent
DIALECTS: list[Dialect] = ["openai", "anthropic"]


def test_every_code_that_is_used_exists_and_every_one_is_used() -> None:
    raised = re.compile(r'Failure\(\s*"([a-z_]+)"')
    assigned = re.compile(r'code = "([a-z_]+)"')
    used: set[str] = set()
    text = ""
    for path in SOURCE.rglob("*.py"):
        if path.name != "errors.py" and "testbed" not in path.parts:
            source = path.read_text()
            text += source
            used |= set(raised.findall(source)) | set(assigned.findall(source))
    assert used <= CODES.keys()
    for code in CODES:
        assert f'"{code}"' in text, f"nothing ends in {code}"


def test_the_tree_in_the_docstring_is_the_table() -> None:
    tree = inspect.getdoc(errors) or ""
    for code in CODES.values():
        assert re.search(rf"\b{code.name}\b", tree), code.name


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
def test_a_code_has_a_status_of_its_fault(code: errors.Code) -> None:
    assert CODES[code.name] is code
    assert 400 <= code.status < 600
    assert (code.status < 500) == (code.fault == "caller")
    if code.retryable:  # what SDKs ask again after
        assert code.status in (408, 409, 429) or code.status >= 500


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_failure_can_be_said_in_both_dialects(code: str, dialect: Dialect) -> None:
    failure = Failure(code, "It broke.", hint="Mend it.", param="model")
    body = json.loads(failures.whole(failure, dialect, "req_1"))
    assert body["error"]["message"] == "It broke. Mend it."
    event = failures.event(failure, dialect, "req_1")
    assert json.loads(event.split(b"data: ")[1])["error"] == body["error"]


def test_a_failure_is_printed_in_a_line() -> None:
    failure = Failure("bad_json", "It broke.", hint="Mend it.", retry_after_s=2, provider="p")
    assert str(failure) == "It broke. Mend it."
    assert str(Failure("bad_json", "It broke.")) == "It broke."
    assert repr(failure) == "<Failure bad_json 400 (caller): It broke. Mend it.>"
    assert (failure.retry_after_s, failure.provider) == (2, "p")


def test_a_code_that_is_none_is_a_defect() -> None:
    with pytest.raises(KeyError):
        Failure("no_such_code", "")
