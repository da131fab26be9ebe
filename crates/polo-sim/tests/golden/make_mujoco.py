"""Writes trajectories of Gymnasium's robots to mujoco/ beside this file; see README.md."""

import json
import sys
from pathlib import Path

import gymnasium
import numpy

NAMES = ["Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5", "InvertedPendulum-v5", "Reacher-v5"]
SEED = 2024
STEPS = 1000
EVERY = 50


def action(env, step):
    """Numbers that are exact in f32, up to a quarter beyond the bounds."""
    bound = env.action_space.high
    turns = [(step * (7 + 2 * joint) + 13 * joint) % 41 - 20 for joint in range(len(bound))]
    return (numpy.array(turns, numpy.float32) / 16 * bound).astype(numpy.float32)


def shown(observation):
    return numpy.asarray(observation, numpy.float32).tolist()


def march(env):
    """One way of STEPS steps, whether or not the task is over."""
    observation, _ = env.reset(seed=SEED)
    rows, earned, over = [], 0.0, 0
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            position, velocity = env.data.qpos.tolist(), env.data.qvel.tolist()
            rows.append({"position": position, "velocity": velocity, "observation": shown(observation),
                         "earned": earned, "over": over})
        observation, reward, terminated, _, _ = env.step(action(env, step))
        earned += float(reward)
        over += bool(terminated)
    return rows


def episode(env, observation):
    begin, earned, ends, step = shown(observation), 0.0, [False, False], 0
    while not any(ends):
        observation, reward, *ends, _ = env.step(action(env, step))
        earned, step = earned + float(reward), step + 1
    return {"begin": begin, "end": shown(observation), "steps": step, "earned": earned, "ends": list(map(bool, ends))}


for name in sys.argv[1:] or NAMES:
    env = gymnasium.make(name)
    observation, _ = env.reset(seed=SEED)
    episodes = [episode(env, observation)] + [episode(env, env.reset()[0]) for _ in range(2)]
    golden = {"seed": SEED, "every": EVERY, "march": march(env.unwrapped), "episodes": episodes}
    path = Path(__file__).parent / "mujoco" / f"{name}.json"
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(path.name, path.stat().st_size, [(e["steps"], e["earned"]) for e in episodes])
