"""Makes the tiny random checkpoints beside this file, and what transformers computes with them.

    pip install torch transformers safetensors
    python make_models.py [NAME ...]        # all of them when no name is given

Every weight is drawn at random, norms and biases included: a model whose norms are 1 and whose
biases are 0 would not notice an implementation that forgets them. A seed is taken only if greedy
decoding never comes near a tie, so that a correct implementation cannot differ by rounding.
The file formats are described in README.md.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.utils import logging

HERE = Path(__file__).parent
VOCAB = 97
LENGTHS = (37, 20, 6)
NEW_TOKENS = 24
LEAST_GAP = 0.005  # least distance between the best and the second logit while decoding
SPECIAL = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)


def llama(config=LlamaConfig, **changes):
    settings = dict(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        **SPECIAL,
    )
    return config(**(settings | changes))


def gpt2(**changes):
    settings = dict(vocab_size=VOCAB, n_embd=24, n_layer=2, n_head=3, n_positions=64, **SPECIAL)
    return GPT2Config(**(settings | changes))


def rope(rope_type, theta=10_000.0, **settings):
    return dict(rope_type=rope_type, rope_theta=theta, **settings)


# With 16 dimensions a head and theta 500, the wavelengths fall into all three branches of Llama 3's
# rule (kept, blended, divided) within the 61 positions that are looked at.
LLAMA3 = rope(
    "llama3",
    theta=500.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)

CONFIGS = {
    "llama": llama(),
    "llama-tied": llama(tie_word_embeddings=True),
    "llama-gqa": llama(num_key_value_heads=2),
    "llama3-rope": llama(num_attention_heads=2, num_key_value_heads=1, rope_parameters=LLAMA3),
    "llama-linear-rope": llama(rope_parameters=rope("linear", factor=4.0)),
    "llama-bias": llama(attention_bias=True, mlp_bias=True),
    "qwen2": llama(Qwen2Config, num_key_value_heads=2, rope_parameters=rope("default", 1e6)),
    "qwen3": llama(
        Qwen3Config, num_key_value_heads=2, head_dim=12, rope_parameters=rope("default", 1e6)
    ),
    "gpt2": gpt2(),
    "gpt2-untied": gpt2(tie_word_embeddings=False, n_inner=40),
}

# Copies of another model's weights in another shape on disk.
COPIES = {
    "llama-sharded": "llama",
    "llama-bf16": "llama",
    "llama-f16": "llama",
    "gpt2-bare": "gpt2",
}

# Folders written before transformers 5 hold `rope_theta` and `rope_scaling` instead of
# `rope_parameters`; most published ones do.
OLD_ROPE_KEYS = {"llama-bf16", "llama3-rope", "qwen2", "qwen3"}


def random_model(config, seed):
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    )
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = 0.2 * torch.randn(weight.shape, generator=draw)
            is_norm = weight.dim() == 1 and not name.endswith("bias")
            weight.copy_(1.0 + noise if is_norm else noise)
    return model.eval()


def load(folder):
    return AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()


def prompts():
    draw = torch.Generator().manual_seed(7)
    return [torch.randint(3, VOCAB, (length,), generator=draw) for length in LENGTHS]


def pad(sequences, left):
    width = max(len(s) for s in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        place = slice(width - len(sequence), width) if left else slice(0, len(sequence))
        ids[row, place], mask[row, place] = sequence, 1
    return ids, mask


@torch.no_grad()
def logits_of_real_tokens(model, ids, mask):
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    return out.logits[mask.bool()]


@torch.no_grad()
def greedy(model, ids, mask):
    model.generation_config.eos_token_id = None
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(out.logits).topk(2, dim=-1).values
    return out.sequences[:, ids.shape[1] :], (best[..., 0] - best[..., 1]).min().item()


def golden(model):
    """What transformers computes, and the narrowest gap that greedy decoding met."""
    sequences = prompts()
    right, left = pad(sequences, left=False), pad(sequences, left=True)
    alone = torch.cat([logits_of_real_tokens(model, *pad([s], left=False)) for s in sequences])
    for padded in (right, left):
        error = (logits_of_real_tokens(model, *padded) - alone).abs().max().item()
        assert error < 2e-5, f"padding changes transformers' own logits by {error}"
    new_tokens, gap = greedy(model, *left)
    return gap, {
        "input_ids": right[0],
        "attention_mask": right[1],
        "left_input_ids": left[0],
        "left_attention_mask": left[1],
        "logits": alone.contiguous(),
        "greedy": new_tokens.contiguous(),
    }


def write_old_rope_keys(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save(model, folder, **options):
    model.generation_config.eos_token_id = SPECIAL["eos_token_id"]
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **options)
    if folder.name in OLD_ROPE_KEYS:
        write_old_rope_keys(folder)


def save_copy(name, folder):
    model = load(HERE / COPIES[name])
    if name == "llama-sharded":
        save(model, folder, max_shard_size="30KB")
    elif name == "gpt2-bare":
        # The published GPT-2 folder: no `transformer.` before the names, and the causal masks
        # stored beside the weights.
        save(model, folder)
        path = folder / "model.safetensors"
        bare = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
        for layer in range(model.config.n_layer):
            mask = torch.tril(torch.ones(1, 1, 64, 64))
            bare[f"h.{layer}.attn.bias"] = mask.to(torch.uint8)
        save_file(bare, path, metadata={"format": "pt"})
    else:
        save(model.to({"llama-bf16": torch.bfloat16, "llama-f16": torch.float16}[name]), folder)


def make(name):
    folder = HERE / name
    if name in COPIES:
        save_copy(name, folder)
        gap, values = golden(load(folder))
        seed = COPIES[name]
    else:
        for seed in range(100):
            save(random_model(CONFIGS[name], seed), folder)
            gap, values = golden(load(folder))
            varied = all(len(set(row.tolist())) > 8 for row in values["greedy"])
            if gap > LEAST_GAP and varied:
                break
        else:
            sys.exit(f"{name}: no seed gives varied tokens without near-ties")
    save_file(values, folder / "golden.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    spread = values["logits"].std().item()
    print(f"{name:20} seed {seed}, gap {gap:.3f}, logits ±{spread:.2f}, {size / 1024:.0f} KB")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for wanted in sys.argv[1:] or [*CONFIGS, *COPIES]:
        make(wanted)
