"""The particle tasks once more, body by body in float64, from the rules and not from the package."""

import math

import numpy as np

LEARNERS = 3
RADIUS = {
    "spread": ([0.15, 0.15, 0.15], [0.05, 0.05, 0.05]),
    "tag": ([0.075, 0.075, 0.075, 0.05], [0.2, 0.2]),
    "world": ([0.075, 0.075, 0.075, 0.045], [0.2, 0.03, 0.03, 0.3, 0.3]),
}
SOLID = {"spread": [False] * 3, "tag": [True, True], "world": [True, False, False, False, False]}
ACCELERATION = {"spread": [None] * 3, "tag": [3.0, 3.0, 3.0, 4.0], "world": [3.0, 3.0, 3.0, 4.0]}
LIMIT = {"spread": [None] * 3, "tag": [1.0, 1.0, 1.0, 1.3], "world": [1.0, 1.0, 1.0, 1.3]}


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


class Game:
    """`positions` [M, 2], `velocities` [M, 2], `landmarks` [K, 2]; `play(actions [M, 2])` is one step."""

    def __init__(self, task, positions, landmarks, times=2):
        self.task, self.times = task, times  # how often the acceleration is multiplied in
        self.positions = [np.array(p, np.float64) for p in positions]
        self.velocities = [np.zeros(2) for _ in positions]
        self.landmarks = [np.array(p, np.float64) for p in landmarks]
        self.agent_radius, self.landmark_radius = RADIUS[task]
        self.contacts = 0

    def play(self, actions):
        count = len(self.positions)
        forces = []
        for i in range(count):
            acceleration = ACCELERATION[self.task][i]
            force = np.array(actions[i], np.float64) * 5.0 if acceleration is None else None
            if force is None:
                force = np.array(actions[i], np.float64)
                for _ in range(self.times):
                    force = force * acceleration
            forces.append(force)
        for i in range(count):
            for j in range(i + 1, count):
                push = self.repulsion(self.positions[i], self.positions[j], self.agent_radius[i] + self.agent_radius[j])
                forces[i] = forces[i] + push
                forces[j] = forces[j] - push
            for k, landmark in enumerate(self.landmarks):
                if SOLID[self.task][k]:
                    reach = self.agent_radius[i] + self.landmark_radius[k]
                    forces[i] = forces[i] + self.repulsion(self.positions[i], landmark, reach)
        for i in range(count):
            velocity = 0.75 * self.velocities[i] + 0.1 * forces[i]
            speed, limit = math.hypot(*velocity), LIMIT[self.task][i]
            if limit is not None and speed > limit:
                velocity = velocity / speed * limit
            self.velocities[i] = velocity
            self.positions[i] = self.positions[i] + 0.1 * velocity

    def repulsion(self, a, b, reach):
        distance = math.hypot(*(a - b))
        self.contacts += distance < reach
        return 100.0 * (a - b) / distance * 1e-3 * softplus((reach - distance) / 1e-3)

    def sees(self, i):
        """Observation of agent i, the prey's where i is 3."""
        here = self.positions[i]
        seen = [*self.velocities[i], *here]
        for landmark in self.landmarks:
            seen += [*(landmark - here)]
        for j, other in enumerate(self.positions):
            if j != i:
                seen += [*(other - here)]
        if self.task == "spread":
            return np.array([*seen, 0.0, 0.0, 0.0, 0.0])
        if i < LEARNERS:
            seen += [*self.velocities[3]]
        if self.task == "world":
            for k in (3, 4):
                inside = math.hypot(*(here - self.landmarks[k])) < self.agent_radius[i] + 0.3
                seen.append(1.0 if inside else -1.0)
        return np.array(seen)

    def pays(self):
        """Rewards of the three learners."""
        if self.task == "spread":
            paid = 0.0
            for landmark in self.landmarks:
                paid += min(1.0 / min(math.hypot(*(p - landmark)) for p in self.positions), 10.0)
            return np.array([paid - 5.0 * self.overlaps(i) for i in range(LEARNERS)])
        team = 0.0
        for i in range(LEARNERS):
            distance = math.hypot(*(self.positions[i] - self.positions[3]))
            team -= 0.1 * distance
            if distance < self.agent_radius[i] + self.agent_radius[3]:
                team += 10.0 if self.task == "tag" else 5.0
        return np.full(LEARNERS, team)

    def overlaps(self, i):
        here = self.positions[i]
        return sum(math.hypot(*(here - self.positions[j])) < 0.3 for j in range(LEARNERS) if j != i)
