"""MAD2RL, its baseline and heuristics on vehicular edge computing: delays, queues, costs, and the paper's claims."""
