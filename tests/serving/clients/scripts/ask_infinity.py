"""What Infinity's client reads of all that it can ask: {"url", "key", "query", "documents", "model", "raw_scores"}."""

import json
import sys

from infinity_client import AuthenticatedClient
from infinity_client.api.default import classify, rerank
from infinity_client.api.default import models as list_models
from infinity_client.models import ClassifyInput, HTTPValidationError, RerankInput

asked = json.load(sys.stdin)
client = AuthenticatedClient(base_url=asked["url"], token=asked.get("key", "any"), raise_on_unexpected_status=True)
settings = {key: asked[key] for key in ("model", "raw_scores") if key in asked}
answers = {}
try:
    body = RerankInput(query=asked["query"], documents=asked["documents"], return_documents=True, **settings)
    ranked = rerank.sync(client=client, body=body)
    if isinstance(ranked, HTTPValidationError):
        answers["invalid"] = [[each.loc, each.msg] for each in ranked.detail]
    else:
        answers["rerank"] = [(each.index, each.relevance_score, each.document) for each in ranked.results]
        answers["model"], answers["tokens"] = ranked.model, ranked.usage.total_tokens
        classes = classify.sync(client=client, body=ClassifyInput(input_=asked["documents"], **settings))
        answers["classify"] = [[(each.label, each.score) for each in labels] for labels in classes.data]
        answers["models"] = [model.id for model in list_models.sync(client=client).data]
except Exception as error:
    answers["error"] = str(error)
json.dump(answers, sys.stdout)
