"""DPPO: a diffusion policy that was trained on data goes on learning in the environment.

  jaxdiff sweep --config=results:pointmaze:diffusion_bc --sweep=seed --workdir=runs/bc
  jaxdiff sweep --config=dppo --sweep=seed --config.init_from=runs/bc --workdir=runs/dppo

The network, the number of denoising steps, history, chunk, normalisation and task are those of the run it starts from.
`num_updates` counts rounds: `online.rollout_length` decisions in each of `online.num_envs` environments, one update.

`paper` is Ren et al. 2024 (arXiv:2409.00588) as released for gym's hopper-medium (cfg/gym/finetune/hopper-v2 of
irom-princeton/dppo), for a policy that was trained with 20 denoising steps and chunks of 4; `default` is smaller, for
policies of `diffusion_bc` on tasks that run on the device.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import base_config
from jaxdiff.suggest import unknown_name

PRESETS = ("default", "paper")


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config; see the comments at each difference."""
    if preset not in PRESETS:
        raise unknown_name("preset of dppo", preset, PRESETS)
    config = base_config("dppo")  # the algorithm's own defaults are the code's
    config.dataset = ""
    config.online.num_envs, config.online.rollout_length = 40, 500
    if preset == "default":
        use_default(config)
        return config
    config.model.policy.network, config.model.policy.activation = "mlp", "relu"
    config.model.policy.hidden = (512, 512, 512)  # the released network has residual connections, this one has not
    config.model.policy.schedule = "cosine_betas"
    config.model.policy.num_levels = config.model.policy.num_steps = 20
    config.model.num_finetuned = 10
    config.action_chunk = 4
    config.num_updates = 1000
    config.eval_interval = config.checkpoint_interval = 10
    return config


def use_default(config: ConfigDict) -> None:
    """For short chains, small networks and minutes on a CPU. Not tuned: no line was compared with another."""
    # Rounds of 2048 decisions instead of 20,000, so that a few hundred of them fit into minutes.
    config.online.num_envs, config.online.rollout_length = 32, 64
    config.model.minibatch_size, config.model.num_epochs = 2048, 4
    config.model.value_hidden = (128, 128)
    # Larger steps, since there are fewer of them.
    config.hparams.clip, config.hparams.clip_base = 0.1, 0.02
    config.hparams.lr = 3e-4
    # The code does not clip gradients; here minibatches are small.
    config.hparams.max_grad_norm = 1.0
    config.num_updates = 300
    config.chunk = 10
    config.eval_interval = config.checkpoint_interval = 50


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds, each from the pretrained member of its own seed; `results` trains those."""
    for seed in range(4):
        yield {"seed": seed}


def sweep_lr() -> Iterator[dict[str, Any]]:
    """Step sizes of the policy."""
    for lr in (1e-4, 3e-4, 1e-3):
        yield {"hparams.lr": lr}
