"""The processes of one installation: supervisor, workers, back office, and their children.

    supervisor ─┬─ worker 1…N     the data plane: sockets, pipeline, nothing that blocks
                ├─ back office    records, SQLite, prices, discovery, console
                ├─ llama          a local model, one more OpenAI-compatible server
                └─ embedder       local embeddings, likewise

Workers and back office talk over one Unix socket (`link`). Each outlives the other's death.
"""
