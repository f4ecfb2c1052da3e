"""Reinforcement with a verifier: a model that slips in additions learns to be right again from a yes or no alone.

``python examples/rlvr_arithmetic.py [--steps 30]``   (2 CPU cores: about 3 minutes)
"""

from __future__ import annotations

import argparse

from common import QUIET, accuracy, additions, prompts, right_answer, weakened

from plumbline.objectives.rl import dapo, group_advantages
from plumbline.train import Engine, Rollouts, fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    lm = weakened()
    before = accuracy(lm, lm.model)
    print(f"weakened base: {before:.1%} of held-out additions right (sampled at temperature 1)")
    engine = Engine(lm.ends, pad_id=lm.tokenizer.pad_token_id, max_new_tokens=48)
    rollouts = Rollouts(lm.tokenizer, engine, right_answer, advantages=group_advantages, group_size=8)
    done = fit(
        lm, {"prompts": prompts(lm, additions(2, 400))}, loss=dapo, prepare=rollouts, max_steps=args.steps,
        per_device_train_batch_size=8, learning_rate=3e-4, **QUIET,
    )  # fmt: skip
    for entry in done.history:
        if "reward" in entry:
            print(f"step {entry['step']:3d}  reward {entry['reward']:.2f}  answers alike {entry['zero_spread']:.0%}")
    after = accuracy(lm, done.model)
    print(f"after {args.steps} steps: {after:.1%}; up by {100 * (after - before):.0f} points (at least 15 are wanted)")
    raise SystemExit(0 if after >= before + 0.15 else 1)


if __name__ == "__main__":
    main()
