"""Streams of simulated decisions as dsjson, and what Vowpal Wabbit makes of them.

    python bench/vowpal_wabbit.py stream FILE.dsjson --decisions 200000 --actions 10
    python bench/vowpal_wabbit.py golden FILE.dsjson GOLDEN.json      golden values of the tests
    python bench/vowpal_wabbit.py speed target/release/polo FILE.dsjson [--runs 5]
    python bench/vowpal_wabbit.py curves target/release/polo FILE.dsjson    progressive losses of both, by decisions

vowpalwabbit and numpy come from PyPI. The speed is decisions per second of a whole process that reads the file once, learns
(squared loss, 2^18 weights, User x Action) and explores by SquareCB; runs are interleaved and medians are reported, with
the peak memory of each process and both progressive losses.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from control_speed import measured

RUNS = {
    "squarecb": "-q UA --squarecb",
    "epsilon-greedy": "-q UA --epsilon 0.05",
    "softmax": "-q UA --softmax --lambda 10",
    "ips": "-q UA --epsilon 0.05 --cb_type ips",
    "plain": "--epsilon 0.05",
    "dr": "-q UA --epsilon 0.05 --cb_type dr",
    "direct": "-q UA --epsilon 0.05 --cb_type dm",
    "cover": "-q UA --cover 4 --epsilon 0.1",
    "cover-dr": "-q UA --cover 4 --epsilon 0.1 --cb_type dr",
    "cover-ips": "-q UA --cover 4 --epsilon 0.1 --cb_type ips",
    "regcb": "-q UA --regcb --mellowness 0.01 --cb_min_cost -1 --cb_max_cost 0",
    "regcbopt": "-q UA --regcb --regcbopt --first_only --mellowness 0.01 --cb_min_cost -1 --cb_max_cost 0",
}

# Progressive losses are compared where schemes draw random numbers, too: there both can only be near each other.
CURVES = {
    "squarecb": ("--squarecb", []),
    "epsilon-greedy": ("--epsilon 0.05", []),
    "softmax": ("--softmax --lambda 10", ["method.lambda=10"]),
    "explore-first": ("--first 1000", ["method.decisions=1000"]),
    "bag": ("--bag 5", []),
    "cover": ("--cover 5 --epsilon 0.05", ["method.epsilon=0.05"]),
    "regcb": ("--regcb --cb_min_cost -1 --cb_max_cost 0", ["method.least_cost=-1", "method.most_cost=0"]),
    "rnd": ("--rnd 3", []),
}

VOWPAL = """
import sys, vowpalwabbit
model = vowpalwabbit.Workspace(sys.argv[1], enable_logging=True)
model.finish()
print([line for line in model.get_log() if line.startswith('average loss')][0].split('=')[1])
"""


def stream(path, decisions, actions, seed, spare_last=False):
    """Users of a segment with five numbers, actions with a name, rewards of 0 or 1, logged by a softmax policy."""
    import numpy
    random = numpy.random.default_rng(seed)
    slopes, levels = random.uniform(-1, 1, (actions, 5)), random.uniform(-1, 1, actions)
    names = ["north", "south", "east", "west"]
    with open(path, "w") as file:
        for number in range(decisions):
            x, segment = random.normal(size=5).round(4), random.integers(4)
            chance = 1 / (1 + numpy.exp(-(slopes @ x + levels + 0.3 * (numpy.arange(actions) % 4 == segment))))
            p = numpy.exp(chance)
            if spare_last:
                p[-1] = 0
            p = (p / p.sum()).astype(numpy.float32).astype(float)
            taken = random.choice(actions, p=p / p.sum())
            reward = int(random.random() < chance[taken])
            order = [taken] + [other for other in range(actions) if other != taken]
            user = {"segment": names[segment], **{f"x{j}": float(value) for j, value in enumerate(x)}}
            file.write(json.dumps({
                "_label_cost": -float(reward), "_label_probability": float(p[taken]), "_label_Action": int(taken) + 1,
                "_labelIndex": int(taken), "Version": "1", "EventId": f"e{number}", "a": [int(k) + 1 for k in order],
                "c": {"User": user, "_multi": [{"Action": {"id": f"a{k}"}} for k in range(actions)]},
                "p": [float(p[k]) for k in order]}) + "\n")


def golden(path, out):
    """Probabilities of every decision, and the progressive loss."""
    import vowpalwabbit
    runs = {}
    for name, options in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            said = folder + "/predictions"
            command = f"--cb_explore_adf --dsjson -d {path} {options} -p {said} -P 1000000"
            run = subprocess.run([sys.executable, "-c", VOWPAL, command], capture_output=True, text=True, check=True)
            probabilities = []
            for block in open(said).read().strip().split("\n\n"):
                pairs = dict(pair.split(":") for pair in block.strip().split(","))
                probabilities.append([float(pairs[str(action)]) for action in range(len(pairs))])
        runs[name] = {"loss": float(run.stdout), "probabilities": probabilities}
    json.dump({"vowpalwabbit": vowpalwabbit.__version__, "runs": runs}, open(out, "w"))


def speed(program, path, runs):
    """A table of both."""
    decisions = sum(1 for _ in open(path))
    found = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            _, own, memory = measured(
                [program, "train", "squarecb", "--data", path, "--out", folder + "/run", "--quiet",
                 "--set", "oracle.interactions=[\"UA\"]", "--set", "training.log_every=1000000"])
            table = open(folder + "/run/metrics.jsonl").read().strip().splitlines()[-1]
            loss = json.loads(table)["losses/average"]
        command = f"--cb_explore_adf --dsjson -d {path} {RUNS['squarecb']} -P 1000000000"
        said, other, their_memory = measured([sys.executable, "-c", VOWPAL, command])
        # What starting Python and loading the library takes is not Vowpal Wabbit's.
        _, start, _ = measured([sys.executable, "-c", "import vowpalwabbit"])
        found.append((own, memory, other - start, their_memory, loss, float(said)))
    own, memory, other, their_memory, loss, their_loss = map(statistics.median, zip(*found))
    print("| | decisions/s | progressive loss | peak memory, MB |")
    print("|---|---|---|---|")
    print(f"| polo | {decisions / own:,.0f} | {loss:.6f} | {memory:.0f} |")
    print(f"| Vowpal Wabbit | {decisions / other:,.0f} | {their_loss:.6f} | {their_memory:.0f} |")
    print(f"\npolo is faster by {other / own:.2f}x")


def curves(program, path):
    """Average losses after 2^k decisions, of polo and of Vowpal Wabbit."""
    import vowpalwabbit
    decisions = sum(1 for _ in open(path))
    places = [2 ** power for power in range(8, 30, 2) if 2 ** power <= decisions]
    print("| | | " + " | ".join(f"{place:,}" for place in places) + " |")
    lines = []
    for method, (options, settings) in CURVES.items():
        with tempfile.TemporaryDirectory() as folder:
            chosen = [word for setting in settings for word in ("--set", setting)]
            subprocess.run([program, "train", method, "--data", path, "--out", folder + "/run", "--quiet",
                            "--set", "oracle.interactions=[\"UA\"]"] + chosen, check=True, stdout=subprocess.DEVNULL)
            own = progressive(open(folder + "/run/final/progressive.txt").read().splitlines())
        model = vowpalwabbit.Workspace(f"--cb_explore_adf --dsjson -d {path} -q UA {options}", enable_logging=True)
        model.finish()
        other = progressive(model.get_log())
        for name, found in (("polo", own), ("Vowpal Wabbit", other)):
            shown = [f"{found[place]:.4f}" for place in places]
            lines.append([method if name == "polo" else "", name] + shown)
    print("|" + "---|" * len(lines[0]))
    for line in lines:
        print("| " + " | ".join(line) + " |")


def progressive(lines):
    """Average loss by number of decisions."""
    found = {}
    for line in lines:
        words = line.split()
        try:
            found[int(words[2])] = float(words[0])
        except (IndexError, ValueError):
            pass
    return found


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("stream")
    make.add_argument("path")
    make.add_argument("--decisions", type=int, default=200_000)
    make.add_argument("--actions", type=int, default=10)
    make.add_argument("--seed", type=int, default=1)
    make.add_argument("--spare-last", action="store_true", help="the last action is never taken")
    values = commands.add_parser("golden")
    values.add_argument("path")
    values.add_argument("out")
    clock = commands.add_parser("speed")
    clock.add_argument("polo")
    clock.add_argument("path")
    clock.add_argument("--runs", type=int, default=5)
    both = commands.add_parser("curves")
    both.add_argument("polo")
    both.add_argument("path")
    arguments = parser.parse_args()
    if arguments.command == "stream":
        stream(arguments.path, arguments.decisions, arguments.actions, arguments.seed, arguments.spare_last)
    elif arguments.command == "golden":
        golden(arguments.path, arguments.out)
    elif arguments.command == "curves":
        curves(os.path.abspath(arguments.polo), arguments.path)
    else:
        speed(os.path.abspath(arguments.polo), arguments.path, arguments.runs)


if __name__ == "__main__":
    main()
