"""What llama-index's rerankers read: {"kind": cohere, jina or tei, "url", "key", "model", "query", "documents"}."""

import json
import sys

from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

asked = json.load(sys.stdin)
url, key, count = asked["url"], asked.get("key", "any"), len(asked["documents"])
if asked["kind"] == "cohere":
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    reranker = CohereRerank(base_url=url, api_key=key, model=asked["model"], top_n=count, max_retries=1)
elif asked["kind"] == "jina":
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    reranker = JinaRerank(base_url=f"{url}/v1", api_key=key, model=asked["model"], top_n=count)
else:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    reranker = TextEmbeddingInference(base_url=url, auth_token=f"Bearer {key}", top_n=count)
nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in asked["documents"]]
try:
    found = reranker.postprocess_nodes(nodes, QueryBundle(asked["query"]))
    answer = [(each.node.text, each.score) for each in found]
except Exception as error:
    answer = {"error": type(error).__name__, "message": str(error)}
json.dump(answer, sys.stdout)
