"""Hugging Face's InferenceClient, which the models come with anyway."""

from tests.serving.clients.environments import HERE, ask
from tests.serving.clients.exchanges import DOCUMENTS, QUERY, WHOLE, scores
from tests.serving.clients.served import Served


def test_inference_client_reads_scores_of_texts_and_pairs_and_errors(encoder: Served, locked: Served) -> None:
    texts = [{"text": QUERY, "text_pair": document} for document in DOCUMENTS] + WHOLE
    raw = {"model": f"{encoder.url}/predict", "function_to_apply": "none", "top_k": 1}
    requests = [
        *({"model": encoder.url, "text": text} for text in texts),
        *(raw | {"text": text} for text in texts),
        {"model": encoder.url, "text": 3},
        {"model": locked.url, "text": texts[0], "token": "k"},
        {"model": locked.url, "text": texts[0], "token": "another"},
    ]
    *read, wrong, right_key, wrong_key = ask(HERE, "ask_huggingface", requests=requests)
    wanted = scores(encoder) * 2 + scores(encoder, raw=True) * 2
    assert read == [[["LABEL_0", score]] for score in wanted]
    assert wrong["status"] == 400
    assert "inputs is 3; wanted a string, or an object with text and text_pair" in wrong["message"]
    assert right_key == [["LABEL_0", wanted[0]]]
    assert wrong_key["status"] == 401
