"""Writes trajectories of Gymnasium's classic control beside this file; see README.md."""

import json
from pathlib import Path

import gymnasium
import numpy

EPISODES = {"CartPole-v1": 6, "Pendulum-v1": 3, "Acrobot-v1": 2, "MountainCar-v0": 2, "MountainCarContinuous-v0": 2}
# Steps of the scripted policy, the rest of the episodes is random.
SCRIPTED = {
    "CartPole-v1": lambda obs: int(obs[2] + 0.5 * obs[3] > 0),
    "Acrobot-v1": lambda obs: 2 if obs[5] > 0 else 0,
    "MountainCar-v0": lambda obs: 2 if obs[1] >= 0 else 0,
    # Beyond the bounds, where it is clipped.
    "MountainCarContinuous-v0": lambda obs: numpy.array([1.5 if obs[1] >= 0 else -1.5], numpy.float32),
    "Pendulum-v1": lambda obs: numpy.array([3.0 if obs[2] >= 0 else -3.0], numpy.float32),
}


def episode(env, observation, policy):
    actions, observations, rewards, ends = [], [observation.tolist()], [], None
    while ends is None:
        action = policy(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        actions.append(action.tolist() if hasattr(action, "tolist") else action)
        observations.append(observation.tolist())
        rewards.append(float(reward))
        if terminated or truncated:
            ends = [bool(terminated), bool(truncated)]
    return {"actions": actions, "observations": observations, "rewards": rewards, "ends": ends}


for name, count in EPISODES.items():
    env = gymnasium.make(name)
    env.action_space.seed(7)
    observation, _ = env.reset(seed=2024)
    episodes = []
    for number in range(count):
        scripted = number == count - 1
        policy = SCRIPTED[name] if scripted else lambda _: env.action_space.sample()
        episodes.append(episode(env, observation, policy))
        # Without a seed: the generator goes on.
        observation, _ = env.reset()
    path = Path(__file__).with_name(f"{name}.json")
    path.write_text(json.dumps({"seed": 2024, "episodes": episodes}, separators=(",", ":")) + "\n")
    print(path.name, path.stat().st_size, [len(e["actions"]) for e in episodes])
