"""Which of vLLM's routes clients may use. Pure.

Those are named that are for clients, not those that are not: what else vLLM has, in this release or a later one,
changes or shows the whole server (its adapters, weights, caches, size, profile) and is closed.
"""

import re

OPEN = re.compile(
    r"/v\d+/.+|/cohere/v\d+/.+"  # the APIs of OpenAI, Anthropic, Cohere and Jina
    r"|/(tokenize|detokenize|tokenizer_info|pooling|classify|score|rerank|generative_scoring|invocations)/?"
    r"|/(health|ping|metrics|version|load)(/.*)?"
    r"|/(docs|redoc|openapi\.json|static)(/.*)?"
)
CLOSED = re.compile(r"/v\d+/[^/]*lora[^/]*(/.*)?")
"""vLLM has these below the path of OpenAI's API."""


def is_open(path: str) -> bool:
    """Whether a client may send something to this path, as the server has decoded it."""
    return OPEN.fullmatch(path) is not None and CLOSED.fullmatch(path) is None
