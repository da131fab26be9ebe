"""Makes beams.json of the models below: what transformers' beam search finds.

    pip install torch transformers safetensors
    python make_beams.py

Cases in which the best answer was cut at max_new_tokens although another one had ended are left out: there polo
prefers answers that ended, transformers the better score. So are near-ties, which rounding could turn.
"""

import itertools
import json
from pathlib import Path

import torch
from make_models import load
from safetensors.torch import load_file

HERE = Path(__file__).parent
MODELS = ("llama-gqa", "gpt2", "qwen3")
NEW_TOKENS = 14


def cases(folder):
    model = load(folder)
    values = load_file(folder / "golden.safetensors")
    for row, (beams, penalty, stops) in itertools.product(
        range(2), itertools.product((1, 2, 5, 10), (0.0, 0.6, 1.0, 2.0, -0.5), (0, 1, 2))
    ):
        prompt = values["input_ids"][row][values["attention_mask"][row] == 1]
        # Tokens that greedy decoding comes by, so that hypotheses end at different lengths.
        stop = values["greedy"][row][[4, 9]][:stops].tolist()
        if beams == 1 and penalty != 0.0:
            continue  # transformers then decodes greedily
        out = model.generate(
            input_ids=prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            do_sample=False,
            num_beams=beams,
            num_return_sequences=min(beams, 2),
            max_new_tokens=NEW_TOKENS,
            length_penalty=penalty,
            early_stopping="never" if beams > 1 else False,
            eos_token_id=stop or None,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        answers = []
        for sequence in out.sequences:
            tokens = sequence[len(prompt) :].tolist()
            ends = [tokens.index(token) for token in stop if token in tokens]
            answers.append(tokens[: min(ends) + 1] if ends else tokens)
        ended = [bool(answer) and answer[-1] in stop for answer in answers]
        if ended != sorted(ended, reverse=True) or (stop and not ended[0]):
            continue
        scores = out.sequences_scores.tolist() if beams > 1 else None
        if scores and len(scores) == 2 and abs(scores[0] - scores[1]) < 1e-3:
            continue
        # The second answer counts only where it ended too, or where nothing can end.
        count = 1 if stop and not all(ended) else len(answers)
        yield dict(
            prompt=prompt.tolist(),
            beams=beams,
            length_penalty=penalty,
            stop=stop,
            answers=answers[:count],
            scores=scores and scores[:count],
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for name in MODELS:
            found = list(cases(HERE / name))
            text = json.dumps(dict(new_tokens=NEW_TOKENS, cases=found))
            (HERE / name / "beams.json").write_text(text.replace('{"prompt"', '\n{"prompt"') + "\n")
            ended = sum(bool(case["stop"]) for case in found)
            print(f"{name:12} {len(found)} cases, {ended} with an end token, {len(text) / 1024:.0f} KB")
