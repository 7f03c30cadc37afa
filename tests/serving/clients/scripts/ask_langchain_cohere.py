"""What langchain's reranker on Cohere's client reads: {"url", "model", "query", "documents", "top_n"}."""

import json
import sys

from langchain_cohere import CohereRerank
from langchain_core.documents import Document

asked = json.load(sys.stdin)
reranker = CohereRerank(model=asked["model"], cohere_api_key="any", base_url=asked["url"], top_n=asked["top_n"])
found = reranker.compress_documents([Document(page_content=text) for text in asked["documents"]], asked["query"])
json.dump([(each.page_content, each.metadata["relevance_score"]) for each in found], sys.stdout)
