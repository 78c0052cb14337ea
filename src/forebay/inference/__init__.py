"""Models on this machine, as children of their own.

Read in this order: `catalogue` (which weights we know) → `weights` (where they are, verified,
pulled through `package_index`) → `local` (settings to children to providers) → the children:
`llama` (chat) and `embedder` (`embeddings_app` in front of `embedding`).
"""

#: Variable in which each child finds its API key. Not an argument: those are everybody's to see.
KEY = "FOREBAY_LOCAL_KEY"
