"""The answers that reward_hub's client reads: {"host", "port", "messages": conversations}."""

import contextlib
import json
import sys

with contextlib.redirect_stdout(sys.stderr):  # it says that vLLM is missing
    from reward_hub.openai.vllm_client import HTTPClient

asked = json.load(sys.stdin)
client = HTTPClient(asked["host"], asked["port"], "m")
json.dump(client.post_reward_requests(asked["messages"]), sys.stdout)
