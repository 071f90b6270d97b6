"""Makes a Qwen3 of 115,000 parameters with random weights and a byte tokenizer, from a seed, without a network.

Usage: python tiny_model.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SEED = 20260801
VOCABULARY, HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD = 320, 64, 128, 2, 4, 2, 16

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
random = np.random.default_rng(SEED)


def matrix(rows: int, columns: int) -> np.ndarray:
    return (random.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)


def ones(count: int) -> np.ndarray:
    return np.ones(count, dtype=np.float32)


weights = {
    "model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN),
    "model.norm.weight": ones(HIDDEN),
    "lm_head.weight": matrix(VOCABULARY, HIDDEN),
}
for layer in range(LAYERS):
    at = f"model.layers.{layer}"
    weights |= {
        f"{at}.input_layernorm.weight": ones(HIDDEN),
        f"{at}.post_attention_layernorm.weight": ones(HIDDEN),
        f"{at}.self_attn.q_proj.weight": matrix(HEADS * HEAD, HIDDEN),
        f"{at}.self_attn.k_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN),
        f"{at}.self_attn.v_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN),
        f"{at}.self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD),
        f"{at}.self_attn.q_norm.weight": ones(HEAD),
        f"{at}.self_attn.k_norm.weight": ones(HEAD),
        f"{at}.mlp.gate_proj.weight": matrix(INTERMEDIATE, HIDDEN),
        f"{at}.mlp.up_proj.weight": matrix(INTERMEDIATE, HIDDEN),
        f"{at}.mlp.down_proj.weight": matrix(HIDDEN, INTERMEDIATE),
    }
save_file(weights, str(folder / "model.safetensors"))

# float32, because adapters and optimizer moments take the model's type, and runs are compared bit by bit
config = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
    "dtype": "float32",
}
(folder / "config.json").write_text(json.dumps(config, indent=2))

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<bos>", "<eos>", "<pad>")])
tokenizer.save(str(folder / "tokenizer.json"))
names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
(folder / "tokenizer_config.json").write_text(json.dumps(names, indent=2))
