"""What OpenAI's client reads: {"url", "key", "post": path, "body"}, or {"url", "embed": texts, "encoding_format"}, or
{"url"} for the models."""

import json
import sys

from openai import APIStatusError, OpenAI

asked = json.load(sys.stdin)
client = OpenAI(base_url=asked["url"], api_key=asked.get("key", "k"), max_retries=0)
try:
    if "post" in asked:
        answer = client.post(asked["post"], body=asked["body"], cast_to=object)
    elif "embed" in asked:
        rest = {"encoding_format": asked["encoding_format"]} if "encoding_format" in asked else {}
        reply = client.embeddings.create(model="m", input=asked["embed"], **rest)
        answer = {"rewards": [each.embedding[-1] for each in reply.data], "tokens": reply.usage.prompt_tokens}
    else:
        answer = [model.id for model in client.models.list()]
except APIStatusError as error:
    answer = {"error": type(error).__name__, "status": error.status_code, "body": error.body}
json.dump(answer, sys.stdout)
