"""Proves that a folder that polo wrote loads in transformers, and that both compute the same.

    pip install torch transformers safetensors peft
    python bench/check_transformers.py RUN/final --prompt "Hello"
    python bench/check_transformers.py RUN/final --base BASE_MODEL      # a LoRA adapter folder
    python bench/check_transformers.py RUN/final --logits polo.jsonl    # exit 1 when they differ

Prints one JSON line: parameters, the prompt's token ids, the greedy completion, and a checksum of
the prompt's logits. Each line of the `--logits` file is one sequence as polo sees it:

    {"input_ids": [5, 17, 3], "logits": [[0.1, ...], ...]}

with one row of logits for each of the last positions (one row alone is the last position's).
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder, base):
    """The model in f32, and where its tokenizer may be.

    Missing or unexpected weights, of which the libraries only warn, are an error here.
    """
    source = base or folder
    if (folder / "adapter_config.json").exists():
        if base is None:
            adapter = json.loads((folder / "adapter_config.json").read_text())
            source = adapter["base_model_name_or_path"]
    elif base is not None:
        sys.exit(f"{folder} holds no adapter_config.json, so --base makes no sense")
    model, report = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(what):
            sys.exit(f"{source}: {what}: {sorted(map(str, report[what]))}")
    if Path(source) != folder:
        from peft import PeftModel, get_peft_model_state_dict, load_peft_weights

        model = PeftModel.from_pretrained(model, folder)
        wrong = load_peft_weights(folder).keys() ^ get_peft_model_state_dict(model).keys()
        if wrong:
            sys.exit(f"{folder}: missing or unexpected adapter weights: {sorted(wrong)}")
    has_tokenizer = (folder / "tokenizer.json").exists()
    return model.eval(), folder if has_tokenizer else source


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0].float()


def checksum(values):
    """Two sums, of which the second also notices a permutation."""
    flat = values.double().flatten()
    weights = torch.linspace(1.0, 2.0, flat.numel(), dtype=torch.float64)
    return [flat.sum().item(), (flat * weights).sum().item()]


def compare(model, path, tolerance):
    worst = 0.0
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        sequence = json.loads(line)
        theirs = torch.tensor(sequence["logits"])
        ours = logits(model, sequence["input_ids"])[-len(theirs) :]
        if ours.shape != theirs.shape:
            sys.exit(f"{path}:{number}: shape {list(theirs.shape)}, not {list(ours.shape)}")
        worst = max(worst, (ours - theirs).abs().max().item())
    print(json.dumps({"max_abs_difference": worst, "tolerance": tolerance}))
    return worst <= tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, help="base model of a LoRA adapter folder")
    parser.add_argument("--prompt", default="\n\nHuman: Hello, who are you?\n\nAssistant:")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--logits", type=Path, help="logits that polo computed")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()

    torch.use_deterministic_algorithms(True)
    model, home = load(args.folder, args.base)
    if args.logits and not compare(model, args.logits, args.tolerance):
        sys.exit(1)

    tokenizer = AutoTokenizer.from_pretrained(home)
    ids = tokenizer(args.prompt)["input_ids"]
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        out = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=args.new_tokens,
        )
    new = out[0, len(ids) :].tolist()
    report = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "prompt_ids": ids,
        "completion_ids": new,
        "completion": tokenizer.decode(new),
        "logits_checksum": checksum(logits(model, ids)),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
