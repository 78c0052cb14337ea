"""The real model, behind the real server, asked by the official SDK."""

import http.client
import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec
import openai
import pytest

from forebay import tether
from forebay.inference import KEY, weights
from forebay.inference.catalogue import SMOLLM2
from forebay.inference.local import Local, Served, llama
from inference_kit import running

SETTINGS = Local(threads=1, context=1024, parallel=2)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("llama")
    server = llama(SETTINGS, folder, os.environ, print)
    with running(server, folder / "llama.log") as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=served.base_url, api_key=served.api_key, max_retries=0, timeout=60
    ) as client:
        yield client


MODEL = SMOLLM2.name


def test_it_announces_what_the_loaded_model_can_do(served: Served) -> None:
    assert served.name == "local"
    assert served.models == [MODEL]
    assert (served.context, served.max_output, served.dimensions) == (1024, 1024, 0)
    assert (served.tools, served.images) == (False, False)


def test_it_answers_a_chat_and_counts(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is gravity?"}],
        max_tokens=24,
        temperature=0,
    )
    assert "ravity" in (answer.choices[0].message.content or "")
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 5
    assert 0 < answer.usage.completion_tokens <= 24


def test_it_streams_the_same_answer_with_usage_at_the_end(client: openai.OpenAI) -> None:
    ask = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Count to five."}],
        "max_tokens": 16,
        "temperature": 0,
        "seed": 1,
    }
    whole = client.chat.completions.create(**ask)  # type: ignore[call-overload]
    with client.chat.completions.create(  # type: ignore[call-overload]
        **ask, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_json_schema_is_kept_to(client: openai.OpenAI) -> None:
    class City(msgspec.Struct, forbid_unknown_fields=True):
        name: str
        people: int

    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "people": {"type": "integer", "minimum": 1, "maximum": 999},
        },
        "required": ["name", "people"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Tell me of a village."}],
        max_tokens=64,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": schema, "strict": True},
        },
    )
    assert answer.choices[0].finish_reason == "stop"
    city = msgspec.json.decode(answer.choices[0].message.content or "", type=City)
    assert 1 <= city.people <= 999


def test_it_lists_its_model_and_says_it_is_well(client: openai.OpenAI, served: Served) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    status, body = get(served, "/health", key="")
    assert (status, body) == (200, b'{"status":"ok"}')


@pytest.mark.parametrize("path", ["/v1/models", "/props", "/slots", "/metrics"])
def test_nothing_else_answers_without_its_key(served: Served, path: str) -> None:
    assert get(served, path, key="")[0] == 401
    assert get(served, path, key="wrong")[0] == 401


def test_it_has_no_web_page_no_slots_and_no_metrics(served: Served) -> None:
    statuses = [get(served, path, served.api_key)[0] for path in ("/", "/slots", "/metrics")]
    assert statuses == [404, 501, 501]


def test_a_prompt_above_the_context_is_refused_with_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"exceeds the available context.*1024"):
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "river " * 1100}], max_tokens=1
        )


@pytest.mark.parametrize("stream", [True, False])
def test_generation_stops_when_the_caller_goes(served: Served, stream: bool) -> None:
    """Both slots are given work for half a minute; the callers go; the next is served at once."""
    host = served.base_url.split("/")[2]
    body = msgspec.json.encode(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Write a very long story."}],
            "max_tokens": 950,
            "ignore_eos": True,
            "stream": stream,
        }
    )
    headers = {"authorization": f"Bearer {served.api_key}"}
    callers = []
    for _ in range(SETTINGS.parallel):
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("POST", "/v1/chat/completions", body, headers)
        callers.append(connection)
    if stream:
        for connection in callers:
            assert connection.getresponse().readline().startswith(b"data: ")
    for connection in callers:
        connection.close()
    with openai.OpenAI(
        base_url=served.base_url, api_key=served.api_key, max_retries=0, timeout=8
    ) as client:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=1
        )


# -- without the shared server


def child(*args: str, key: str = "k") -> "subprocess.CompletedProcess[bytes]":
    env = {name: value for name, value in os.environ.items() if name != tether.PARENT}
    return subprocess.run(
        [sys.executable, "-P", "-m", "forebay.inference.llama", "--name", "m", *args],
        env={**env, KEY: key},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_corrupted_weights_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / SMOLLM2.file
    data = bytearray(weights.require(SMOLLM2, tmp_path).path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = child("--model", str(path), "--sha256", SMOLLM2.sha256)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode().startswith(
        f"forebay.inference.llama: The weights at {path} are not the expected ones"
    )


def test_a_file_that_is_no_gguf_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 4096)
    done = child("--model", str(path))
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"can't serve {path}" in done.stderr.decode()


def test_it_does_not_serve_without_a_key() -> None:
    done = child("--model", "/dev/null", key="")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"{KEY} is not set" in done.stderr.decode()


def test_it_dies_with_its_supervisor(tmp_path: Path) -> None:
    code = """
        import asyncio, msgspec, os, sys
        from pathlib import Path
        from forebay.inference.local import Local, llama
        from forebay.processes.child import Child
        from forebay.world import RealWorld

        async def main():
            server = llama(Local(context=256, parallel=1), Path(sys.argv[2]), os.environ, print)
            launch = msgspec.structs.replace(server.launch, pass_fds=(int(sys.argv[1]),))
            child = Child(launch, RealWorld(), log=lambda line: print(line, file=sys.stderr))
            child.start()
            facts = await child.ready(60)
            print(facts["port"], flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
    """
    alive, held = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(held), str(tmp_path)],
        stdout=subprocess.PIPE,
        pass_fds=(held,),
    )
    os.close(held)
    assert parent.stdout is not None
    with parent:
        assert int(parent.stdout.readline()) > 0
        parent.kill()
        readable, _, _ = select.select([alive], [], [], 20)
        assert readable, "the model outlived its supervisor"
        assert os.read(alive, 1) == b""
    os.close(alive)


def get(served: Served, path: str, key: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(served.base_url.split("/")[2], timeout=30)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
