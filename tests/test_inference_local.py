import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from forebay.errors import Failure
from forebay.inference import KEY, local
from forebay.inference.local import Local, Served, llama, servers
from forebay.processes.link import Snapshot, decode_snapshot, encode_snapshot
from forebay.world import RealWorld

ENVIRON = {
    "PATH": "/bin",
    "HOME": "/home/ann",
    "LC_ALL": "C",
    "CUDA_VISIBLE_DEVICES": "0",
    "OPENAI_API_KEY": "sk-canary",
    "FOREBAY_HOME": "/canary",
}


def make(settings: Local, cache: Path) -> local.LocalServer:
    return llama(settings, cache, ENVIRON, lambda _: None)


def test_a_file_of_ones_own_is_run_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "My-Model.Q4.gguf"
    path.write_bytes(b"GGUF")
    settings = Local(model=str(path), sha256="a" * 64, threads=3, context=512, parallel=2)
    server = make(settings, tmp_path)
    argv = server.launch.argv
    assert argv[1:4] == ("-P", "-m", "forebay.inference.llama")
    options = dict(zip(argv[4::2], argv[5::2], strict=True))
    assert options == {
        "--model": str(path),
        "--name": "my-model.q4",
        "--sha256": "a" * 64,
        "--threads": "3",
        "--context": "512",
        "--parallel": "2",
    }


def test_a_child_gets_a_key_of_its_own_and_none_of_our_secrets(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    one, two = (make(Local(model=str(path)), tmp_path) for _ in range(2))
    assert one.launch.env == {
        "PATH": "/bin",
        "HOME": "/home/ann",
        "LC_ALL": "C",
        "CUDA_VISIBLE_DEVICES": "0",
        KEY: one.api_key,
    }
    assert one.api_key != two.api_key
    assert len(one.api_key) >= 43  # 256 bits
    served = one.provider({"port": 1, "model": "m", "context": 2})
    for shown in (repr(one), repr(served), repr(one.launch), *one.launch.argv):
        assert one.api_key not in shown


def test_threads_leave_a_core_for_the_gateway(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    argv = make(Local(model=str(path)), tmp_path).launch.argv
    expected = max(1, (os.cpu_count() or 1) - 1)
    assert argv[argv.index("--threads") + 1] == str(expected)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Local(model="gpt-5"), "no weights named 'gpt-5'"),
        (Local(model="/nowhere/x.gguf"), "no such file"),
        (Local(model="all-minilm-l6-v2"), "embeds, it can't chat"),
        (Local(context=8193), "context is 8193; smollm2-135m-instruct was trained for 8192"),
    ],
)
def test_settings_that_can_not_work_are_refused(
    settings: Local, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(Failure, match=reason):
        make(settings, tmp_path)


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ({"threads": -1}, "threads"),
        ({"context": 10}, "context"),
        ({"parallel": 0}, "parallel"),
        ({"sha256": "ABC"}, "sha256"),
        ({"modle": "x"}, "modle"),
    ],
)
def test_settings_out_of_range_are_refused_by_the_config(
    setting: dict[str, object], path: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=path):
        msgspec.convert(setting, Local)


def test_what_is_served_is_what_the_child_announced(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    server = make(Local(model=str(path)), tmp_path)
    facts = {"port": 4711, "model": "m", "context": 2048, "tools": True, "images": False}
    served = server.provider(facts)
    assert served == Served(
        "local", "http://127.0.0.1:4711/v1", server.api_key, ["m"], 2048, 2048, 0, True, False
    )
    assert server.provider({**facts, "port": 4712}).base_url == "http://127.0.0.1:4712/v1"
    # It crosses to the workers in a snapshot, whole.
    crossed = decode_snapshot(encode_snapshot(Snapshot(local=[served])))
    assert crossed.local == [served]


def test_nothing_is_started_where_local_models_are_off() -> None:
    assert asyncio.run(servers(Local(enabled=False), RealWorld(), print)) == []


def test_both_are_found_where_their_weights_are_installed() -> None:
    found = asyncio.run(servers(Local(), RealWorld(), print))
    assert [server.provider_name for server in found] == ["local", "local-embeddings"]
    assert [server.launch.name for server in found] == ["llama", "embedder"]
    only = asyncio.run(servers(Local(embedder=False), RealWorld(), print))
    assert [server.provider_name for server in only] == ["local"]


def test_one_that_can_not_be_had_does_not_keep_the_other_away() -> None:
    said: list[str] = []
    found = asyncio.run(servers(Local(model="gpt-5"), RealWorld(), said.append))
    assert [server.provider_name for server in found] == ["local-embeddings"]
    assert len(said) == 1
    assert said[0].startswith("no local model: There are no weights named 'gpt-5'")
