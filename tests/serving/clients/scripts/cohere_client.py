"""The scores that one of cohere's clients reads, or its error: {"url", "version": 1 | 2, "query", "documents", ...}."""

import json
import sys

import cohere
from cohere.core.api_error import ApiError

asked = json.load(sys.stdin)
make = cohere.ClientV2 if asked.pop("version") == 2 else cohere.Client
client = make(api_key=asked.pop("key", "k"), base_url=asked.pop("url"))
try:
    reply = client.rerank(**asked)
    answer = {"scores": [(result.index, result.relevance_score) for result in reply.results]}
    answer["documents"] = [getattr(getattr(each, "document", None), "text", None) for each in reply.results]
except ApiError as error:
    answer = {"error": type(error).__name__, "status": error.status_code, "body": error.body}
json.dump(answer, sys.stdout)
