"""What InferenceClient reads of each of several requests: {"requests": [{"model": URL, "text", "token", ...}]}."""

import json
import sys

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

answers = []
for request in json.load(sys.stdin)["requests"]:
    client = InferenceClient(model=request.pop("model"), token=request.pop("token", None))
    try:
        answers.append([[each.label, each.score] for each in client.text_classification(**request)])
    except HfHubHTTPError as error:
        answers.append({"status": error.response.status_code, "message": str(error)})
json.dump(answers, sys.stdout)
