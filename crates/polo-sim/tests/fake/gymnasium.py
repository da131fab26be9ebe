"""Stands for Gymnasium in the tests of the bridge; its environments misbehave in the way that their names say."""

import os
import random
import sys
import time


class error:
    class UnregisteredEnv(Exception):
        pass


class Array(list):
    """As much of an array as the bridge uses."""

    def reshape(self, *_):
        return self

    def tolist(self):
        return list(self)


class Box:
    low, high = Array([-1.0, float("-inf")]), Array([1.0, float("inf")])


class Discrete:
    start = 1

    def __init__(self, n):
        self.n = n


class Dict:
    pass


class Env:
    def __init__(self, kind, length=5):
        self.kind, self.length = kind, length
        self.observation_space = Dict() if kind == "dictionary" else Box()
        self.action_space = Discrete(3)
        self.random = random.Random()

    def show(self):
        noise = random.random() if self.kind == "entropy" else self.random.random()
        return Array([float(self.steps), noise])

    def reset(self, seed=None):
        if self.kind == "hang":
            time.sleep(60)
        print("a line that is no answer")
        self.random.seed(seed)
        self.steps = 0
        return self.show(), {}

    def step(self, action):
        assert action in (1, 2, 3)
        self.steps += 1
        shown, reward = self.show(), float(action)
        if self.kind == "crash":
            print("segmentation fault, almost", file=sys.stderr)
            os._exit(7)
        if self.kind == "raise":
            raise ZeroDivisionError("no mass")
        if self.kind == "nan":
            shown = Array([float("nan"), 0.0])
        if self.kind == "shape":
            shown = Array([0.0])
        if self.kind == "reward":
            reward = float("inf")
        return shown, reward, self.steps == self.length, False, {}


def make(name, disable_env_checker=False, **arguments):
    if name == "Unknown-v0":
        raise error.UnregisteredEnv("Environment `Unknown` doesn't exist.")
    return Env(name, **arguments)
