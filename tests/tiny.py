"""Tiny tokenizers and models made on the spot, shared by the tests: nothing is downloaded."""

import json
import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "how do I bake bread at home", "mix flour water salt and yeast", "the dough needs an hour to rise",
    "user assistant system hello there", "what is the capital of france", "TL;DR: a b c d e f g h",
]  # fmt: skip


def wordpiece_folder(folder: Path) -> Path:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789[]():;,.!?'-")
    words = sorted({word for text in CORPUS for word in re.findall(r"[a-z]{2,}", text.lower())})
    # Not trained: the trainer breaks ties by chance, and the model would be another in every process
    ids = {token: place for place, token in enumerate([*specials, *alphabet, *(f"##{a}" for a in alphabet), *words])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )  # fmt: skip
    tokenizer.enable_truncation(16)  # as all-MiniLM's file has it: must be switched off on reading
    tokenizer.enable_padding(length=16)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "BertTokenizer", "sep_token": "[SEP]", "cls_token": "[CLS]", "pad_token": "[PAD]",
              "unk_token": "[UNK]", "mask_token": "[MASK]", "model_max_length": 512}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


TEMPLATE = "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] | trim + '<|end|>' }}{% endfor %}"


def chat_folder(folder: Path, template: str | None = TEMPLATE, extra: tuple[str, ...] = ()) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    names = ("<|start|>", "<|end|>", *extra)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|end|>"}
    if template:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def bert_folder(folder: Path, *, seed: int = 0, num_labels: int = 1) -> Path:
    """A random two-layer BERT reward model with the WordPiece tokenizer: a plain checkpoint, without prefrank.json."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    wordpiece_folder(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=128, num_labels=num_labels, initializer_range=0.3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def decoder_folder(folder: Path, *, seed: int = 0) -> Path:
    """A random two-layer Llama reward model with a chat template whose end token is also its padding."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    chat_folder(folder)
    end = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][-1]["id"]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=420, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=256, num_labels=1, pad_token_id=end, eos_token_id=end,
        initializer_range=0.2,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def neox_folder(folder: Path, *, seed: int = 0) -> Path:
    """A random two-layer GPT-NeoX reward model with a chat template: a decoder that runs through transformers."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForSequenceClassification

    chat_folder(folder)
    end = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][-1]["id"]
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=420, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=256, num_labels=1, pad_token_id=end, eos_token_id=end, initializer_range=0.2,
    )  # fmt: skip
    GPTNeoXForSequenceClassification(config).save_pretrained(folder)
    return folder


def seed_folder(folder: Path) -> Path:
    """A random DeBERTa-v2 with exactly the files of the model card's checkpoint: spm.model, pytorch_model.bin, no JSON
    tokenizer, and the convolution layer of the large models."""
    import torch
    from sentencepiece import SentencePieceTrainer
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    folder.mkdir(parents=True, exist_ok=True)
    SentencePieceTrainer.train(
        sentence_iterator=iter([line.replace(";", " ").replace(":", " ") for line in CORPUS] * 20),
        model_prefix=str(folder / "spm"), vocab_size=50, hard_vocab_limit=False, minloglevel=2,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
        unk_piece="[UNK]",
    )  # fmt: skip
    (folder / "spm.vocab").unlink()
    config = {"do_lower_case": False, "vocab_type": "spm", "tokenizer_class": "DebertaV2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = DebertaV2ForSequenceClassification(
        DebertaV2Config(
            vocab_size=80, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
            share_att_key=True, position_biased_input=False, type_vocab_size=0, max_relative_positions=-1,
            num_labels=1, conv_kernel_size=3, conv_act="gelu", initializer_range=0.2,
        )
    )  # fmt: skip
    network.config.save_pretrained(folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    return folder
