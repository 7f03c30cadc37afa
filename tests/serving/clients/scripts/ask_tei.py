"""What tei_client reads: {"url", "query", "documents", "raw_scores"}."""

import json
import sys

from tei_client import HttpClient

asked = json.load(sys.stdin)
client = HttpClient(asked["url"])
info = client.info()
answer = {"health": client.health(), "type": info.server_model_type.value, "most": info.max_client_batch_size}
ranked = client.rerank(asked["query"], asked["documents"], return_text=True, raw_scores=asked["raw_scores"])
answer["rerank"] = [(each.index, each.score, each.text) for each in ranked.ranks]
try:
    client.classify(asked["documents"])
except Exception as error:
    answer["classify"] = str(error)
json.dump(answer, sys.stdout)
