"""The code on a card: how plain transformers scores one reply to one prompt as prefrank does."""

import json

from prefrank.reports.card.subject import Subject

EXAMPLE = ("How do I bake bread?", ("Mix flour, water, salt and yeast; let it rise; bake it.", "No idea."))
"""Prompt and replies of the card's code."""
_LAST_TOKEN = "model.config.pad_token_id = None  # or a closing token that is padding too would be passed over"


def transformers_code(subject: Subject) -> str:
    """A program; "" where transformers cannot read the folder."""
    if subject.quantised or not (subject.folder / "config.json").is_file():
        return ""
    text = subject.checkpoint.text
    opening = [
        "import torch",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        f"name = {json.dumps(subject.model_id)}",
        'tokenizer = AutoTokenizer.from_pretrained(name, truncation_side="left")',
        "model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32).eval()",
        f"prompt, replies = {json.dumps(EXAMPLE[0])}, {json.dumps(list(EXAMPLE[1]))}",
    ]
    last = [_LAST_TOKEN] if subject.checkpoint.scored_token == "the last" else []
    match text.template:
        case "pair":
            encode = f'tokenizer(prompt, reply, truncation="only_first", max_length={text.max_length}'
            rows = [f'rows = [{encode}, return_tensors="pt") for reply in replies]']
        case "chat":
            opening += last
            turns = '[{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]'
            rows = [
                "rows = [",
                f'    tokenizer.apply_chat_template({turns}, return_tensors="pt", return_dict=True)',
                "    for reply in replies",
                "]",
            ]
        case _:  # fixed strings around each turn, for which transformers' tokenizers have no call
            opening += last
            opening[0] = "import torch\nfrom prefrank import RewardModel, Turn"
            encode = 'RewardModel.load(name).encoder.encode((Turn("user", prompt),), replies)'
            rows = [f'rows = [{{"input_ids": torch.tensor(row.ids)[None]}} for row in {encode}]']
    closing = ["with torch.no_grad():", "    print([model(**row).logits[0, 0].item() for row in rows])"]
    return "\n".join([*opening, *rows, *closing])
