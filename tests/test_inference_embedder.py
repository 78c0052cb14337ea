"""The real embedder, behind the real server, asked by the official SDK."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from forebay import tether
from forebay.inference import KEY, weights
from forebay.inference.catalogue import MINILM
from forebay.inference.local import Served, embedder
from inference_kit import running

MODEL = MINILM.name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("embedder")
    with running(embedder(folder, os.environ, print), folder / "embedder.log") as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=served.base_url, api_key=served.api_key, max_retries=0, timeout=60
    ) as client:
        yield client


def vectors(client: openai.OpenAI, *texts: str, **more: Any) -> NDArray[np.float64]:
    reply = client.embeddings.create(model=MODEL, input=list(texts), **more)
    return np.array([item.embedding for item in reply.data])


def test_it_announces_its_shape(served: Served, client: openai.OpenAI) -> None:
    assert served.name == "local-embeddings"
    assert (served.context, served.max_output, served.dimensions) == (256, 0, 384)
    assert [model.id for model in client.models.list()] == served.models == [MODEL]


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        (
            "How do I reset my password?",
            "I forgot my password and want to change it",
            "How do I open an account?",
        ),
        ("The cat sat on the mat.", "A kitten rests on a rug.", "The rocket left for the moon."),
        ("It will rain tomorrow", "Tomorrow's forecast is wet weather", "My laptop is broken"),
    ],
)
def test_likeness_of_meaning_is_nearness(
    client: openai.OpenAI, text: str, near: str, far: str
) -> None:
    asked, likely, unlikely = vectors(client, text, near, far)
    assert asked @ likely > asked @ unlikely + 0.15


def test_vectors_have_unit_length_and_do_not_depend_on_their_company(
    client: openai.OpenAI,
) -> None:
    texts = ["word " * n for n in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 7, 7)]
    texts += ["A sentence of another kind: 你好, ¿qué tal?", "[SEP]", "!"]
    together = vectors(client, *texts)
    alone = np.vstack([vectors(client, text) for text in texts])
    assert together.shape == (len(texts), 384)
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    np.testing.assert_allclose((alone**2).sum(axis=1), 1, atol=1e-5)


def test_base64_is_the_very_numbers(client: openai.OpenAI) -> None:
    """The SDK asks for base64 unless told otherwise, and decodes it."""
    floats = vectors(client, "one", "another text", encoding_format="float")
    assert (vectors(client, "one", "another text").astype("f4") == floats.astype("f4")).all()
    raw = client.embeddings.create(model=MODEL, input="one", encoding_format="base64")
    text: object = raw.data[0].embedding
    assert isinstance(text, str)
    assert (np.frombuffer(base64.b64decode(text), "<f4") == floats[0].astype("f4")).all()


def test_usage_counts_what_was_computed(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model=MODEL, input=["Hello world", "Hello"])
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (7, 7)


def test_the_longest_text_fits_and_one_token_more_does_not(client: openai.OpenAI) -> None:
    assert vectors(client, "river " * 254).shape == (1, 384)
    with pytest.raises(openai.BadRequestError, match=r"input\[0\] has 257 tokens"):
        vectors(client, "river " * 255)


def test_a_foreign_key_is_refused(served: Served) -> None:
    with (
        openai.OpenAI(base_url=served.base_url, api_key="other", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        vectors(client, "x")


def test_corrupted_weights_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    data = bytearray(weights.require(MINILM, tmp_path).path.read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    module = "forebay.inference.embedder"
    argv = ["--name", "m", "--model", str(path), "--sha256", MINILM.sha256]
    env = {name: value for name, value in os.environ.items() if name != tether.PARENT}
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *argv],
        env={**env, KEY: "k"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"{path} are not the expected ones" in done.stderr.decode()
