"""What Cohere's clients read: {"url", "key", "version": 1 | 2, "requests": [{"model", "query", "documents", ...}]}."""

import json
import sys

import cohere
from cohere.core.api_error import ApiError

asked = json.load(sys.stdin)
make = cohere.ClientV2 if asked["version"] == 2 else cohere.Client
client = make(api_key=asked.get("key", "any"), base_url=asked["url"])
answers = []
for request in asked["requests"]:
    try:
        results = client.rerank(**request).results
        documents = [getattr(each, "document", None) for each in results]
        scores = [(each.index, each.relevance_score) for each in results]
        answers.append({"scores": scores, "texts": [getattr(each, "text", None) or each["text"] for each in documents]})
    except ApiError as error:
        answers.append({"error": type(error).__name__, "status": error.status_code, "message": error.body["message"]})
json.dump(answers, sys.stdout)
